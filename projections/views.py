"""
What the artifacts show, as values: the shapes of `LIVE_SUMMARY.json` and `LIVE_DECISION.json`,
and how they are made from a stream's state.

The gate reads the same shapes back. Source: DESIGN.md section 3, Outputs.
"""

import msgspec

from domain.errors import CannotTell
from domain.events import KpiObserved, Override, SymbolObservation, TradingState
from domain.kpis import KPIS, Kpi, Verdict
from domain.state import Counts, Reset, State
from domain.windows import format_time


class LedgerPlace(msgspec.Struct, frozen=True):
    """Up to which event of which stream an artifact goes; `root` is its Merkle root, if any."""

    stream: str
    version: int
    position: int
    root: str | None = None


class WindowSpan(msgspec.Struct, frozen=True):
    """The last observed window, ISO times in UTC, the end exclusive."""

    start: str
    end: str
    interval_sec: float
    verdict: Verdict


class ViolationView(msgspec.Struct, frozen=True):
    """One violation of the last window; see `domain.verdicts.Violation`."""

    symbol: str
    kpi: str
    verdict: Verdict
    reason: str
    value: float | None
    comparator: str | None
    threshold: float | None
    margin: float | None
    no_data_windows: int


class ResetView(msgspec.Struct, frozen=True):
    """What last set the count of OK windows back."""

    window: str | None
    symbol: str | None
    reasons: tuple[str, ...]


class Hysteresis(msgspec.Struct, frozen=True):
    """The way back: OK windows so far, how many it takes (null in ACTIVE), the last reset."""

    ok_windows: int
    required: int | None
    last_reset: ResetView | None


class OverrideView(msgspec.Struct, frozen=True):
    """An override in force; times are ISO in UTC."""

    id: str
    kind: str
    symbol: str | None
    cap: float | None
    actor: str
    reason: str
    applied_at: str
    expires_at: str | None


class KpiValues(msgspec.Struct, frozen=True):
    """
    The last window's KPI values.

    `aggregate` is the worst symbol's value, null if a required one is missing; in `per_symbol`
    a KPI that has no valid value is null.
    """

    aggregate: dict[str, float | None]
    per_symbol: dict[str, dict[str, float | None]]


class Summary(msgspec.Struct, frozen=True):
    """`LIVE_SUMMARY.json`."""

    generated_at_utc: str
    env: str
    exchange: str
    feed: str
    dry_run: bool
    state: TradingState
    throttle: float
    ramp_profile: str | None
    symbols: tuple[str, ...]
    per_symbol_throttle: dict[str, float]
    effective_throttle: dict[str, float]
    effective_notional: dict[str, float | None]
    kpis: KpiValues
    required_kpis: tuple[str, ...]
    violations: tuple[ViolationView, ...]
    counts: Counts
    window: WindowSpan
    hysteresis: Hysteresis
    overrides: tuple[OverrideView, ...]
    ledger: LedgerPlace


class Counters(msgspec.Struct, frozen=True):
    """Consecutive windows with that verdict, over all symbols, and of each symbol."""

    ok_windows: int
    warn_windows: int
    per_symbol_ok_windows: dict[str, int]


class Decision(msgspec.Struct, frozen=True):
    """`LIVE_DECISION.json`."""

    state: TradingState
    previous_state: TradingState | None
    throttle: float
    reasons: tuple[str, ...]
    triggered_by: str | None
    since: str | None
    violations: tuple[ViolationView, ...]
    per_symbol_throttle: dict[str, float]
    effective_throttle: dict[str, float]
    counters: Counters
    hysteresis: Hysteresis
    thresholds: dict[str, float]
    symbol_thresholds: dict[str, dict[str, float]]
    policy_hash: str
    window: WindowSpan
    ledger: LedgerPlace


def summary_of(state: State, place: LedgerPlace) -> Summary:
    """
    Return the summary of a state.

    Raises:
        CannotTell: if no window has been observed yet.
    """
    run, observed = state.run, _observed(state)
    assert run is not None
    effective = state.effective_throttles()
    return Summary(
        generated_at_utc=format_time(observed.end_ms),
        env=run.env,
        exchange=run.exchange,
        feed=run.feed,
        dry_run=run.dry_run,
        state=state.trading_state,
        throttle=state.throttle,
        ramp_profile=None if state.profile is None else state.profile.name,
        symbols=state.symbol_names,
        per_symbol_throttle=state.per_symbol_throttles(),
        effective_throttle=effective,
        effective_notional={
            symbol: effective_notional(state, throttle) for symbol, throttle in effective.items()
        },
        kpis=kpi_values(state, observed),
        required_kpis=state.policy.required_kpis,
        violations=violations_of(observed),
        counts=state.counts,
        window=window_span(observed),
        hysteresis=hysteresis_of(state),
        overrides=tuple(override_view(override) for override in state.overrides_in_force),
        ledger=place,
    )


def decision_of(state: State, place: LedgerPlace) -> Decision:
    """
    Return the decision of a state.

    Raises:
        CannotTell: if no window has been observed yet.
    """
    observed = _observed(state)
    return Decision(
        state=state.trading_state,
        previous_state=state.previous,
        throttle=state.throttle,
        reasons=state.reasons,
        triggered_by=state.triggered_by,
        since=None if state.since_ms is None else format_time(state.since_ms),
        violations=violations_of(observed),
        per_symbol_throttle=state.per_symbol_throttles(),
        effective_throttle=state.effective_throttles(),
        counters=Counters(
            ok_windows=state.ok_windows,
            warn_windows=state.warn_windows,
            per_symbol_ok_windows={memory.symbol: memory.ok_windows for memory in state.symbols},
        ),
        hysteresis=hysteresis_of(state),
        thresholds=state.policy.thresholds,
        symbol_thresholds=state.policy.symbols,
        policy_hash=state.policy_hash,
        window=window_span(observed),
        ledger=place,
    )


def effective_notional(state: State, throttle: float) -> float | None:
    """
    Return what one symbol may trade, in USD: its share of the profile's notional, throttled.

    None without a profile. Source: DESIGN.md section 1, Per symbol.
    """
    if state.profile is None:
        return None
    return throttle * state.profile.max_notional / state.symbols_within_limit


def kpi_values(state: State, observed: KpiObserved) -> KpiValues:
    """Return the window's values per symbol, and of each KPI the worst over all symbols."""
    per_symbol = {
        symbol.memory.symbol: {kpi.name: _valid_value(kpi, symbol) for kpi in KPIS}
        for symbol in observed.symbols
    }
    aggregate: dict[str, float | None] = {}
    for kpi in KPIS:
        values = [symbol[kpi.name] for symbol in per_symbol.values()]
        there = [value for value in values if value is not None]
        missing = len(there) < len(values) and kpi.name in state.policy.required_kpis
        aggregate[kpi.name] = None if missing or not there else kpi.worst(there)
    return KpiValues(aggregate, per_symbol)


def violations_of(observed: KpiObserved) -> tuple[ViolationView, ...]:
    """Return all violations of the window, by symbol in configured order, KPIs in table order."""
    return tuple(
        ViolationView(
            symbol=symbol.memory.symbol,
            kpi=violation.kpi,
            verdict=violation.verdict,
            reason=violation.reason,
            value=violation.value,
            comparator=violation.comparator,
            threshold=violation.threshold,
            margin=violation.margin,
            no_data_windows=violation.no_data_windows,
        )
        for symbol in observed.symbols
        for violation in symbol.violations
    )


def window_span(observed: KpiObserved) -> WindowSpan:
    """Return the window's start, end, length and verdict."""
    return WindowSpan(
        start=format_time(observed.window),
        end=format_time(observed.end_ms),
        interval_sec=observed.interval_ms / 1000,
        verdict=observed.verdict,
    )


def hysteresis_of(state: State) -> Hysteresis:
    """Return how far the way back is."""
    reset = state.last_reset
    return Hysteresis(
        ok_windows=state.ok_windows,
        required=state.ok_windows_required,
        last_reset=None if reset is None else _reset_view(reset),
    )


def _observed(state: State) -> KpiObserved:
    if state.observed is None or state.run is None:
        raise CannotTell("no window has been observed yet; there is nothing to report")
    return state.observed


def _valid_value(kpi: Kpi, symbol: SymbolObservation) -> float | None:
    reading = symbol.readings.kpis.get(kpi.name)
    return float(reading) if reading is not None and kpi.is_valid(reading) else None


def _reset_view(reset: Reset) -> ResetView:
    window = None if reset.window is None else format_time(reset.window)
    return ResetView(window, reset.symbol, reset.reasons)


def override_view(override: Override) -> OverrideView:
    """Return an override as the artifacts and `live override list` show it."""
    expires = override.expires_at_ms
    return OverrideView(
        id=override.id,
        kind=override.kind,
        symbol=override.symbol,
        cap=override.cap,
        actor=override.actor,
        reason=override.reason,
        applied_at=format_time(override.applied_at_ms),
        expires_at=None if expires is None else format_time(expires),
    )
