"""
Explaining a state: from the ledger as of a version, through what the rules recorded and remember.

Nothing is judged again here; a violation is the one that was recorded. Source: issue 5, `live
explain`; DESIGN.md section 1, Global state, Per symbol, Cause.
"""

from collections.abc import Iterator, Mapping

from domain.errors import CannotTell
from domain.events import KpiObserved, OverrideKind, SymbolMemory, SymbolObservation, TradingState
from domain.kpis import KPIS, Kpi, Verdict
from domain.policy import Policy
from domain.state import State
from domain.windows import format_time
from ledger.application import Ledger, StreamState
from ledger.codec import Record
from ledger.reading import observation_of
from projections.episodes import override_text
from projections.explanation import DecidingWindow, Exit, Explanation, KpiView, SymbolExplanation
from projections.freshness import is_stale, valid_until_ms
from projections.views import (
    LedgerPlace,
    ResetView,
    effective_notional,
    hysteresis_of,
    override_view,
    violations_of,
    window_span,
)


def explain(ledger: Ledger, stream: StreamState, at_ms: int) -> Explanation:
    """
    Return what a stream was at a time, given the stream as it was known then.

    Raises:
        CannotTell: if no window had been observed.
    """
    state, observed = stream.state, stream.state.observed
    if observed is None or state.next_window is None:
        raise CannotTell(f"{stream.id}: no window had been observed by {format_time(at_ms)}")
    since_ms = state.since_ms
    return Explanation(
        stream=stream.id,
        at=format_time(at_ms),
        valid_until=format_time(valid_until_ms(state)),
        stale=is_stale(state, at_ms),
        age_sec=(at_ms - observed.end_ms) / 1000,
        state=state.trading_state,
        throttle=state.throttle,
        previous_state=state.previous,
        since=None if since_ms is None else format_time(since_ms),
        for_sec=None if since_ms is None else max(0, state.next_window - since_ms) / 1000,
        reasons=state.reasons,
        triggered_by=state.triggered_by,
        deciding=_deciding(ledger, stream),
        window=window_span(observed),
        warn_windows=state.warn_windows,
        hysteresis=hysteresis_of(state),
        exits=tuple(exits_of(state)),
        overrides=tuple(override_view(override) for override in state.overrides_in_force),
        clock_behind=state.clock_behind,
        missing_windows=(state.next_window - observed.end_ms) // state.interval_ms,
        symbols=tuple(_symbols(ledger, stream, observed)),
        counts=state.counts,
        policy_hash=state.policy_hash,
        ledger=LedgerPlace(stream.id, stream.version, ledger.position(stream)),
    )


def kpis_of(policy: Policy, symbol: SymbolObservation) -> tuple[KpiView, ...]:
    """Return each KPI of a symbol in a window, by the policy that judged it."""
    thresholds = policy.thresholds_of(symbol.memory.symbol)
    return tuple(_kpi(kpi, symbol, thresholds) for kpi in KPIS)


def exits_of(state: State) -> Iterator[Exit]:
    """Yield the ways out of the present state, the nearer to trading first."""
    policy = state.policy
    if state.trading_state is not TradingState.ACTIVE:
        required = state.ok_windows_required or 0
        left = required - state.ok_windows
        to, note = TradingState.ACTIVE, None
        if state.trading_state is TradingState.FROZEN:
            note = "COOLDOWN first, if a waiver excuses a KPI in one of them"
            if state.excused:
                to = TradingState.COOLDOWN
                note = "on probation, since a waiver excused a KPI in one of them"
        counted_from = _counted_from(state)
        earliest = None if counted_from is None else counted_from + left * state.interval_ms
        yield Exit(
            to=to,
            needs=f"{left} more OK {_windows(left)} in a row",
            note=note,
            windows=left,
            earliest=None if earliest is None else format_time(earliest),
            blocked_by=tuple(_blocked_by(state)),
        )
    if state.trading_state is TradingState.ACTIVE:
        left = policy.min_warn_windows - state.warn_windows
        yield _at_earliest(
            state, TradingState.COOLDOWN, f"{left} more WARN {_windows(left)} in a row", left
        )
    if state.trading_state is not TradingState.FROZEN:
        yield _at_earliest(state, TradingState.FROZEN, "one CRIT window", 1)


def _at_earliest(state: State, to: TradingState, needs: str, windows: int) -> Exit:
    assert state.next_window is not None
    earliest_ms = state.next_window + windows * state.interval_ms
    return Exit(to, needs, None, windows, format_time(earliest_ms), ())


def _blocked_by(state: State) -> Iterator[str]:
    """Yield what keeps OK windows from being counted."""
    if state.clock_behind:
        yield "the clock is behind the ledger; nothing is decided until it has passed"
    for override in state.overrides_in_force:
        if override.kind is OverrideKind.FREEZE and override.symbol is None:
            until = override.expires_at_ms
            yield f"{override_text(override)}, until " + (
                "it is cleared" if until is None else format_time(until)
            )


def _counted_from(state: State) -> int | None:
    """Return the start of the first window that can count towards recovery; None if unknown."""
    start_ms = state.next_window
    if start_ms is None or state.clock_behind:
        return None
    for override in state.overrides:
        if override.kind is OverrideKind.FREEZE and override.symbol is None:
            ends_ms = override.expires_at_ms if override.ended_at_ms is None else (
                override.ended_at_ms
            )  # fmt: skip
            if ends_ms is None:
                return None
            # The window that it ends in is still held.
            start_ms = max(start_ms, -(-ends_ms // state.interval_ms) * state.interval_ms)
    return start_ms


def _windows(count: int) -> str:
    return "window" if count == 1 else "windows"


def _deciding(ledger: Ledger, stream: StreamState) -> DecidingWindow | None:
    """Return the window whose verdict led to the state; None if it was no window's."""
    state = stream.state
    if state.since_ms is None or state.triggered_by is None:
        return None
    record = _observation_up_to(ledger, stream, state.since_ms - state.interval_ms)
    if record is None or not isinstance(record.event, KpiObserved):
        return None
    observed = record.event
    told = tuple(one for one in violations_of(observed) if one.symbol == state.triggered_by)
    if tuple(one.reason for one in told) != state.reasons:
        return None
    return DecidingWindow(window_span(observed), record.version, told)


def _observation_up_to(ledger: Ledger, stream: StreamState, window: int) -> Record | None:
    record = observation_of(ledger, stream.id, window)
    return None if record is None or record.version > stream.version else record


def _symbols(
    ledger: Ledger, stream: StreamState, observed: KpiObserved
) -> Iterator[SymbolExplanation]:
    state = stream.state
    seen = {symbol.memory.symbol: symbol for symbol in observed.symbols}
    violations = violations_of(observed)
    effective = state.effective_throttles()
    for index, memory in enumerate(state.symbols):
        symbol = seen.get(memory.symbol)
        yield SymbolExplanation(
            symbol=memory.symbol,
            verdict=None if symbol is None else symbol.verdict,
            per_symbol_throttle=memory.throttle,
            effective_throttle=effective[memory.symbol],
            effective_notional=effective_notional(state, effective[memory.symbol]),
            limited_by=tuple(_limits(state, memory, index)),
            frozen=memory.frozen,
            probation=memory.probation,
            ok_windows=memory.ok_windows,
            required=_required(state.policy, memory),
            last_reset=_reset_of(ledger, stream, memory),
            kpis=() if symbol is None else kpis_of(state.policy, symbol),
            violations=tuple(one for one in violations if one.symbol == memory.symbol),
        )


def _required(policy: Policy, memory: SymbolMemory) -> int | None:
    if memory.frozen:
        return policy.unfreeze_after_ok_windows
    return policy.min_ok_windows if memory.probation else None


def _limits(state: State, memory: SymbolMemory, index: int) -> Iterator[str]:
    """Yield all that bounds a symbol's effective throttle below 1.0."""
    if index >= state.symbols_within_limit and state.profile is not None:
        limit = state.profile.max_symbols
        yield f"beyond the limit of profile {state.profile.name} ({limit} symbols): 0"
    if state.throttle < 1.0:
        yield f"the global state {state.trading_state}: {state.throttle:g}"
    required = _required(state.policy, memory)
    if required is not None:
        kind = "freeze" if memory.frozen else "probation"
        counted = f"{memory.ok_windows} of {required} OK windows in a row"
        yield f"its own {kind}, {counted}: {memory.throttle:g}"
    elif memory.throttle < 1.0:
        yield f"not OK in the last window: {memory.throttle:g}"
    for override in state.overrides_in_force:
        if override.cap is not None and override.symbol in (None, memory.symbol):
            yield f"{override_text(override)}: {override.cap:g}"


def _reset_of(ledger: Ledger, stream: StreamState, memory: SymbolMemory) -> ResetView | None:
    """Return the window before a symbol's OK windows in a row, if it is known and was not OK."""
    state = stream.state
    if state.window is None or not (memory.frozen or memory.probation):
        return None
    window = state.window - memory.ok_windows * state.interval_ms
    record = _observation_up_to(ledger, stream, window)
    if record is None or not isinstance(record.event, KpiObserved):
        return None
    reasons = tuple(
        one.reason for one in violations_of(record.event) if one.symbol == memory.symbol
    )
    return ResetView(format_time(window), memory.symbol, reasons) if reasons else None


def _kpi(kpi: Kpi, symbol: SymbolObservation, thresholds: Mapping[str, float]) -> KpiView:
    reading = symbol.readings.kpis.get(kpi.name)
    threshold = thresholds[kpi.policy_key]
    is_valid = reading is not None and kpi.is_valid(reading)
    value = float(reading) if is_valid and reading is not None else None
    headroom = None
    if value is not None:
        headroom = value - threshold if kpi.breached_when == "<" else threshold - value
    violation = next((one for one in symbol.violations if one.kpi == kpi.name), None)
    if violation is not None:
        verdict: Verdict | None = violation.verdict
    else:
        verdict = Verdict.OK if is_valid else None
    return KpiView(
        kpi=kpi.name,
        value=value,
        arrived=None if is_valid or reading is None else reading,
        threshold=threshold,
        breached_when=kpi.breached_when,
        headroom=headroom,
        verdict=verdict,
        excused=kpi.name in symbol.excused_kpis,
        no_data_windows=0 if violation is None else violation.no_data_windows,
    )
