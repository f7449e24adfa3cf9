"""
Telling, in a line each, what happened where something did.
"""

from collections.abc import Iterable, Iterator

from domain.events import (
    ClockFault,
    Event,
    ExternalWriteDetected,
    GapObserved,
    KpiObserved,
    LateWindowObserved,
    OverrideApplied,
    OverrideEnded,
    PolicyAdopted,
    StateTransitioned,
    SymbolThrottleChanged,
    TradedWhileFrozen,
)
from domain.mutators import clock_reason, gap_reason, override_reason
from domain.windows import format_time


def tell(events: Iterable[Event]) -> Iterator[str]:
    """Yield a line for each event that changed something, in order."""
    for event in events:
        line = _line(event)
        if line is not None:
            yield line


def tell_cause(state_reasons: Iterable[str], triggered_by: str | None) -> str:
    """Return a cause in one line: `BTCUSDT edge_bps=2.0 < 2.5, risk=0.45 > 0.40`."""
    told = ", ".join(state_reasons)
    return f"{triggered_by} {told}" if triggered_by else told


def _line(event: Event) -> str | None:  # noqa: PLR0911 - one return a case
    match event:
        case StateTransitioned():
            cause = tell_cause(event.reasons, event.triggered_by)
            return (
                f"{format_time(event.since_ms)}  {event.previous} -> {event.state} "
                f"(throttle {event.throttle:g}): {cause}"
            )
        case SymbolThrottleChanged() if event.effective_before != event.effective:
            return (
                f"{format_time(event.at_ms)}    {event.symbol} may trade "
                f"{event.effective_before:g} -> {event.effective:g}"
            )
        case GapObserved():
            return f"{format_time(event.window)}  gap: {gap_reason(event)}"
        case LateWindowObserved():
            return f"{format_time(event.window)}  late window, recorded and not decided"
        case ClockFault():
            return f"{format_time(event.last_window)}  clock fault: {clock_reason(event)}"
        case PolicyAdopted() if event.changes:
            return f"policy adopted: {'; '.join(event.changes)}"
        case OverrideApplied():
            return f"{format_time(event.override.applied_at_ms)}  {override_reason(event.override)}"
        case TradedWhileFrozen():
            return (
                f"{format_time(event.filled_at_ms)}  {event.symbol} traded while frozen "
                f"since {format_time(event.frozen_since_ms)}: the bot doesn't obey"
            )
        case ExternalWriteDetected():
            return (
                f"{format_time(event.at_ms)}  {event.key} was set to {event.found!r} by somebody "
                f"else; {event.expected!r} goes back"
            )
        case OverrideEnded():
            return f"{format_time(event.at_ms)}  override {event.id} ended by {event.ended_by}"
        case _:
            return None


def count_decided(events: Iterable[Event]) -> int:
    """Return how many windows were decided."""
    return sum(isinstance(event, KpiObserved) for event in events)
