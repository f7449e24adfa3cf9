"""
What an event means, in words: one sentence each, the same wherever it is told.
"""

from collections.abc import Iterable
from typing import assert_never

from domain.events import (
    ClockFault,
    Event,
    ExternalWriteDetected,
    GapObserved,
    KpiObserved,
    LateWindowObserved,
    Override,
    OverrideApplied,
    OverrideEnded,
    PolicyAdopted,
    RunStarted,
    RunStopped,
    StateTransitioned,
    SymbolThrottleChanged,
    TradedWhileFrozen,
)
from domain.mutators import clock_reason, gap_reason, override_reason
from domain.windows import format_time

HASH_SHOWN = 12
"""How many digits of a policy's hash tell it from others."""


def in_words(event: Event) -> str:  # noqa: C901, PLR0911, PLR0912 - one return a case
    """Return what the event says, in a line, without its time."""
    match event:
        case RunStarted():
            return (
                f"run {event.run_id} started: {event.feed}, version {event.code_version}"
                + (f", on {event.host}" if event.host else "")
                + f", by its clock {format_time(event.started_at_ms)}"
            )
        case RunStopped():
            return (
                f"run {event.run_id} stopped: {event.reason}, "
                f"by its clock {format_time(event.at_ms)}"
            )
        case PolicyAdopted():
            return _policy_words(event)
        case KpiObserved():
            return _window_words(event)
        case StateTransitioned():
            cause = cause_words(event.reasons, event.triggered_by)
            return f"{event.previous} -> {event.state} (throttle {event.throttle:g}): {cause}"
        case SymbolThrottleChanged():
            return _throttle_words(event)
        case GapObserved():
            return f"gap: {gap_reason(event)}"
        case LateWindowObserved():
            return f"late window {format_time(event.window)}, recorded and not decided"
        case ClockFault():
            return f"clock fault: {clock_reason(event)}"
        case OverrideApplied():
            return override_reason(event.override) + _override_scope(event.override)
        case OverrideEnded():
            why = f": {event.reason}" if event.reason else ""
            return f"override {event.id} ended by {event.ended_by}{why}"
        case ExternalWriteDetected():
            return (
                f"{event.key} was set to {event.found!r} by somebody else; "
                f"{event.expected!r} goes back"
            )
        case TradedWhileFrozen():
            return (
                f"{event.symbol} traded while frozen since {format_time(event.frozen_since_ms)}: "
                "the bot doesn't obey"
            )
        case _:
            assert_never(event)


def cause_words(reasons: Iterable[str], triggered_by: str | None) -> str:
    """Return a cause in one line: `BTCUSDT edge_bps=2.0 < 2.5, risk=0.45 > 0.40`."""
    told = ", ".join(reasons)
    return f"{triggered_by} {told}" if triggered_by else told


def _window_words(event: KpiObserved) -> str:
    ill = [
        cause_words((violation.reason for violation in symbol.violations), symbol.memory.symbol)
        for symbol in event.symbols
        if symbol.violations
    ]
    window = f"window {format_time(event.window)} {event.verdict}"
    return f"{window}: {'; '.join(ill)}" if ill else window


def _policy_words(event: PolicyAdopted) -> str:
    policy = f"policy {event.policy_hash[:HASH_SHOWN]}"
    if event.changes:
        return f"{policy} adopted: {'; '.join(event.changes)}"
    profile = event.profile
    limits = "no profile"
    if profile is not None:
        notional, symbols = f"{profile.max_notional:.10g}", profile.max_symbols
        limits = f"profile {profile.name}, {notional} USD, {symbols} symbols"
    return f"{policy} adopted for {', '.join(event.symbols)} ({limits})"


def _throttle_words(event: SymbolThrottleChanged) -> str:
    if event.effective_before != event.effective:
        return f"{event.symbol} may trade {event.effective_before:g} -> {event.effective:g}"
    return (
        f"{event.symbol} by its own KPIs {event.throttle_before:g} -> {event.throttle:g}; "
        f"it may still trade {event.effective:g}"
    )


def _override_scope(override: Override) -> str:
    """Return whom an override is for and until when, in brackets."""
    bound = "" if override.cap is None else f"{override.cap:g} for "
    until = (
        "" if override.expires_at_ms is None else f", until {format_time(override.expires_at_ms)}"
    )
    return f" ({bound}{override.symbol or 'all symbols'}{until}; {override.id})"
