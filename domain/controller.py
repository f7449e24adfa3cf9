"""
The controller: what a command leads to, and what an event means.

`decide` and `evolve` are total and pure. `decide` returns the events that a command causes, none
where there is nothing to do, and refuses with `CommandRefused`; `evolve` returns the next state.
Source: LIVE_MODE_GUIDE.md, FSM States; DESIGN.md sections 1 and 2.
"""

import math
from collections.abc import Iterable
from functools import reduce
from typing import assert_never

from msgspec.structs import replace

from domain import adoption, mutators
from domain.commands import (
    AdoptPolicy,
    ApplyOverride,
    ClearOverride,
    Command,
    ExpireOverrides,
    ObserveClock,
    ObserveWindow,
    PassWindows,
    ReportExternalWrite,
    ReportFill,
    StartRun,
    StopRun,
)
from domain.errors import CommandRefused
from domain.events import (
    RULES_VERSION,
    CauseKind,
    ClockFault,
    Event,
    ExternalWriteDetected,
    GapObserved,
    KpiObserved,
    LateWindowObserved,
    Override,
    OverrideApplied,
    OverrideEnded,
    OverrideKind,
    PolicyAdopted,
    RunStarted,
    RunStopped,
    StateTransitioned,
    SymbolThrottleChanged,
    TradedWhileFrozen,
    TradingState,
)
from domain.gaps import pass_windows
from domain.judging import observe_window, throttle_in
from domain.policy import Policy
from domain.state import State
from domain.windows import (
    NOTHING,
    TIME_MS_MAX,
    check_interval,
    content_hash,
    format_time,
    without_unwritable,
)


def decide(policy: Policy, state: State, command: Command) -> list[Event]:
    """
    Return the events that the command causes in this state, in order; [] if nothing is to do.

    Raises:
        CommandRefused: if the command isn't allowed in this state.
    """
    events, at_ms = _decide(policy, state, command)
    if not events or isinstance(command, StartRun | AdoptPolicy):
        return events
    return events + _throttle_changes(state, fold(state, events), at_ms)


def evolve(state: State, event: Event) -> State:  # noqa: C901, PLR0911, PLR0912 - one return a case
    """Return the state after the event."""
    match event:
        case RunStarted():
            return mutators.run_started(state, event)
        case PolicyAdopted():
            return mutators.policy_adopted(state, event)
        case KpiObserved():
            return mutators.kpi_observed(state, event)
        case StateTransitioned():
            return mutators.state_transitioned(state, event)
        case GapObserved():
            return mutators.gap_observed(state, event)
        case ClockFault():
            return mutators.clock_fault(state, event)
        case OverrideApplied():
            return mutators.override_applied(state, event)
        case OverrideEnded():
            return mutators.override_ended(state, event)
        case LateWindowObserved():
            return mutators.count(state, "late_windows")
        case ExternalWriteDetected():
            return mutators.count(state, "external_writes")
        case TradedWhileFrozen():
            return mutators.count(state, "fills_while_frozen")
        case SymbolThrottleChanged() | RunStopped():
            return state
        case _:
            assert_never(event)


def fold(state: State, events: Iterable[Event]) -> State:
    """Return the state after all the events."""
    return reduce(evolve, events, state)


def _decide(  # noqa: PLR0911 - one return a case
    policy: Policy, state: State, command: Command
) -> tuple[list[Event], int]:
    """Return the command's events and the moment that they take effect, in ms."""
    match command:
        case StartRun():
            return _start_run(policy, state, command), command.started_at_ms
        case AdoptPolicy():
            return adoption.adopt_policy(state, command), command.window
        case ObserveWindow():
            start_ms = command.readings.start_ms
            return _observe_window(policy, state, command), start_ms + state.interval_ms
        case PassWindows():
            return _pass_windows(policy, state, command.until), command.until
        case ObserveClock():
            return _observe_clock(state, command), command.window
        case ApplyOverride():
            return _apply_override(state, command.override), command.override.applied_at_ms
        case ClearOverride():
            return _clear_override(state, command), command.at_ms
        case ExpireOverrides():
            return _expire_overrides(state, command.at_ms), command.at_ms
        case ReportExternalWrite():
            return _report_external_write(policy, state, command), command.at_ms
        case ReportFill():
            return _report_fill(command), command.filled_at_ms
        case StopRun():
            stopped = RunStopped(run_id=command.run_id, reason=command.reason, at_ms=command.at_ms)
            running = state.run is not None and state.run.run_id == command.run_id
            return [stopped] if running else [], command.at_ms
        case _:
            assert_never(command)


def _start_run(policy: Policy, state: State, command: StartRun) -> list[Event]:
    if state.run is not None and command.interval_ms != state.interval_ms:
        raise CommandRefused(
            f"this stream's interval is {state.interval_ms / 1000:g} s and can't be changed to "
            f"{command.interval_ms / 1000:g} s; use another ledger for another interval"
        )
    check_interval(command.interval_ms, source="the run's interval")
    started = RunStarted(
        run_id=command.run_id,
        ledger_id=command.ledger_id,
        env=command.env,
        exchange=command.exchange,
        dry_run=command.dry_run,
        interval_ms=command.interval_ms,
        feed=command.feed,
        feed_kind=command.feed_kind,
        rules_version=RULES_VERSION,
        code_version=command.code_version,
        started_at_ms=command.started_at_ms,
        host=command.host,
        process_id=command.process_id,
        fencing_token=command.fencing_token,
        lateness_ms=command.lateness_ms,
    )
    if state.run is not None or command.published is TradingState.ACTIVE:
        return [started]
    reason = f"another controller published {command.published} for this stream"
    return [
        started,
        StateTransitioned(
            previous=TradingState.ACTIVE,
            state=command.published,
            throttle=throttle_in(policy, command.published),
            since_ms=command.started_at_ms,
            cause=CauseKind.START,
            reasons=(reason,),
        ),
    ]


def _observe_window(policy: Policy, state: State, command: ObserveWindow) -> list[Event]:
    readings = command.readings
    start_ms = readings.start_ms
    if state.run is None or not state.symbols:
        raise CommandRefused("no window can be decided before a run started with its symbols")
    if start_ms % state.interval_ms:
        raise CommandRefused(
            f"window {format_time(start_ms)} is not aligned to the stream's interval of "
            f"{state.interval_ms / 1000:g} s"
        )
    _check_time(start_ms)
    if state.window is not None and start_ms <= state.window:
        return _observe_late(state, command)
    events = _pass_windows(policy, state, start_ms)
    events += _expire_overrides(fold(state, events), start_ms + state.interval_ms)
    observed, transition = observe_window(policy, fold(state, events), start_ms, readings.symbols)
    if readings.feed_position is not None or readings.feed_counts:
        observed = replace(
            observed, feed_position=readings.feed_position, feed_counts=readings.feed_counts
        )
    return [*events, observed] if transition is None else [*events, observed, transition]


def _observe_late(state: State, command: ObserveWindow) -> list[Event]:
    readings = command.readings
    asked_for = command.recorded_symbols or state.symbol_names
    symbols = {
        symbol: without_unwritable(readings.symbols[symbol])
        for symbol in asked_for
        if readings.symbols.get(symbol, NOTHING) != NOTHING
    }
    content = content_hash(readings.start_ms, symbols)
    if command.known_late or content == command.recorded_content:
        return []
    return [LateWindowObserved(window=readings.start_ms, content=content, symbols=symbols)]


def _pass_windows(policy: Policy, state: State, until: int) -> list[Event]:
    _check_time(until)
    if state.next_window is None or until <= state.next_window:
        return []
    missing = (until - state.next_window) // state.interval_ms
    gap, transition = pass_windows(policy, state, state.next_window, missing)
    events: list[Event] = _expire_overrides(state, gap.end_ms)
    return [*events, gap] if transition is None else [*events, gap, transition]


def _observe_clock(state: State, command: ObserveClock) -> list[Event]:
    if state.window is None or command.window >= state.window or state.clock_behind:
        return []
    fault = ClockFault(
        window=command.window,
        last_window=state.window,
        behind_ms=state.window - command.window,
    )
    since_ms = state.window + state.interval_ms
    reasons = (mutators.clock_reason(fault),)
    return [fault, *_freeze(state, since_ms, CauseKind.CLOCK, reasons)]


def _apply_override(state: State, override: Override) -> list[Event]:
    if any(other.id == override.id for other in state.overrides):
        return []
    _check_override(state, override)
    if override.cap is not None:
        override = replace(override, cap=override.cap + 0.0)  # A negative zero becomes zero.
    applied = OverrideApplied(override=override)
    reasons = (mutators.override_reason(override),)
    since_ms = override.applied_at_ms
    match override.kind:
        case OverrideKind.FREEZE if override.symbol is None:
            return [applied, *_freeze(state, since_ms, CauseKind.OVERRIDE, reasons)]
        case OverrideKind.UNFREEZE if override.symbol is None:
            unfrozen = StateTransitioned(
                previous=state.trading_state,
                state=TradingState.ACTIVE,
                throttle=1.0,
                since_ms=since_ms,
                cause=CauseKind.OVERRIDE,
                reasons=reasons,
            )
            return [applied, unfrozen] if state.trading_state != TradingState.ACTIVE else [applied]
        case _:
            return [applied]


def _check_override(state: State, override: Override) -> None:
    if override.symbol is not None and override.symbol not in state.symbol_names:
        known = ", ".join(state.symbol_names) or "none"
        raise CommandRefused(f"no such symbol: {override.symbol}; this stream has {known}")
    if override.expires_at_ms is not None and override.expires_at_ms <= override.applied_at_ms:
        raise CommandRefused("an override must expire after it is applied")
    if override.kind is OverrideKind.CAP:
        cap = override.cap
        if cap is None or not math.isfinite(cap) or not 0.0 <= cap <= 1.0:
            raise CommandRefused(f"expected a cap from 0.0 to 1.0, was {cap}")
    elif override.cap is not None:
        raise CommandRefused(f"only a cap has a value, {override.kind} has none")
    if override.kind is OverrideKind.UNFREEZE:
        if state.clock_behind:
            raise CommandRefused("the clock is behind the ledger; set the clock right first")
        for other in state.overrides_in_force:
            overlaps = None in (override.symbol, other.symbol) or override.symbol == other.symbol
            if other.kind is OverrideKind.FREEZE and overlaps:
                raise CommandRefused(
                    f"a freeze by {other.actor} is in force ({other.id}); clear it first"
                )


def _clear_override(state: State, command: ClearOverride) -> list[Event]:
    if not any(override.id == command.id for override in state.overrides_in_force):
        known = ", ".join(override.id for override in state.overrides_in_force) or "none"
        raise CommandRefused(f"no override {command.id} is in force; in force: {known}")
    return [
        OverrideEnded(
            id=command.id, at_ms=command.at_ms, ended_by=command.actor, reason=command.reason
        )
    ]


def _expire_overrides(state: State, at_ms: int) -> list[Event]:
    return [
        OverrideEnded(id=override.id, at_ms=override.expires_at_ms, ended_by="expiry")
        for override in state.overrides_in_force
        if override.expires_at_ms is not None and override.expires_at_ms <= at_ms
    ]


def _report_external_write(
    policy: Policy, state: State, command: ReportExternalWrite
) -> list[Event]:
    """Adopt a write towards less trading; report any other. Source: DESIGN.md, Overrides."""
    found, expected = command.found.strip(), command.expected
    kind: OverrideKind | None = None
    cap: float | None = None
    if command.symbol is None:
        if found == TradingState.FROZEN != expected:
            kind = OverrideKind.FREEZE
        elif found == TradingState.COOLDOWN and expected == TradingState.ACTIVE:
            kind, cap = OverrideKind.CAP, policy.cooldown_throttle
    else:
        written = _throttle_of(found)
        published = _throttle_of(expected)
        if written is not None and published is not None and written < published:
            kind, cap = OverrideKind.CAP, written
    if kind is None:
        return [
            ExternalWriteDetected(
                key=command.key, found=command.found[:200], expected=expected, at_ms=command.at_ms
            )
        ]
    override = Override(
        id=command.id,
        kind=kind,
        actor="redis",
        reason=f"{command.key} was set to {found}",
        applied_at_ms=command.at_ms,
        symbol=command.symbol,
        cap=cap,
    )
    return _apply_override(state, override)


def _report_fill(command: ReportFill) -> list[Event]:
    if command.filled_at_ms <= command.frozen_since_ms + command.grace_ms:
        return []
    return [
        TradedWhileFrozen(
            symbol=command.symbol,
            filled_at_ms=command.filled_at_ms,
            frozen_since_ms=command.frozen_since_ms,
            notional=command.notional,
        )
    ]


def _freeze(state: State, since_ms: int, cause: CauseKind, reasons: tuple[str, ...]) -> list[Event]:
    """Return the transition to FROZEN, none if it is FROZEN already: its cause stays."""
    if state.trading_state is TradingState.FROZEN:
        return []
    return [
        StateTransitioned(
            previous=state.trading_state,
            state=TradingState.FROZEN,
            throttle=0.0,
            since_ms=since_ms,
            cause=cause,
            reasons=reasons,
        )
    ]


def _throttle_changes(before: State, after: State, at_ms: int) -> list[Event]:
    """Return a change for each symbol whose KPI-based or effective throttle is another now."""
    throttles_before, effective_before = before.per_symbol_throttles(), before.effective_throttles()
    throttles, effective = after.per_symbol_throttles(), after.effective_throttles()
    return [
        SymbolThrottleChanged(
            symbol=symbol,
            at_ms=at_ms,
            throttle_before=throttles_before[symbol],
            throttle=throttles[symbol],
            effective_before=effective_before[symbol],
            effective=effective[symbol],
        )
        for symbol in throttles
        if throttles_before[symbol] != throttles[symbol]
        or effective_before[symbol] != effective[symbol]
    ]


def _check_time(time_ms: int) -> None:
    if not -TIME_MS_MAX <= time_ms <= TIME_MS_MAX:
        raise CommandRefused(f"expected a time in milliseconds since 1970, was {time_ms}")


def _throttle_of(text: str) -> float | None:
    """Return the throttle that a key's text stands for, None if it is none."""
    try:
        throttle = float(text)
    except ValueError:
        return None
    return throttle + 0.0 if 0.0 <= throttle <= 1.0 else None  # A negative zero becomes zero.
