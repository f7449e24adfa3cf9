"""
The rules that judge one window: KPIs, symbols, the window, the global state after it.

Source: LIVE_MODE_GUIDE.md, State Transitions and KPI Thresholds; DESIGN.md section 1.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from domain.events import (
    CauseKind,
    KpiObserved,
    StateTransitioned,
    SymbolMemory,
    SymbolObservation,
    TradingState,
)
from domain.kpis import KPIS, Verdict
from domain.policy import Policy
from domain.state import State, effective_throttles, is_held
from domain.verdicts import Violation, breach, worst_verdict
from domain.windows import NOTHING, SymbolReadings, content_hash, without_unwritable

WARN_SYMBOL_THROTTLE = 0.5
"""The per-symbol throttle of a symbol that is WARN, or on probation."""


class _Leap(NamedTuple):
    """Where a window leads: a transition without its times, or staying."""

    state: TradingState
    throttle: float
    cause: CauseKind
    reasons: tuple[str, ...]
    triggered_by: str | None


def observe_window(
    policy: Policy, state: State, start_ms: int, arrived: Mapping[str, SymbolReadings]
) -> tuple[KpiObserved, StateTransitioned | None]:
    """
    Return the window's observation, and the transition that it causes, if it does.

    Args:
        policy: what to judge by.
        state: as it was before the window; every missing window has been passed.
        start_ms: the window's start.
        arrived: readings by symbol; symbols that aren't the controller's are left out.
    """
    readings = [without_unwritable(arrived.get(memory.symbol, NOTHING)) for memory in state.symbols]
    judged = [
        judge_symbol(
            policy,
            memory,
            reading,
            held=is_held(state, memory.symbol, start_ms),
        )
        for memory, reading in zip(state.symbols, readings, strict=True)
    ]
    counted = judged[: state.symbols_within_limit]
    verdict = window_verdict(policy, state, counted)
    culprit = _culprit(counted) if verdict is not Verdict.OK else None

    held = is_held(state, None, start_ms)
    is_ok = verdict is Verdict.OK and not held
    ok_windows = state.ok_windows + 1 if is_ok else 0
    warn_windows = state.warn_windows + 1 if verdict is Verdict.WARN else 0
    excused = is_ok and (state.excused or any(symbol.excused_kpis for symbol in counted))

    leap = _leap(policy, state, verdict, culprit, (ok_windows, warn_windows, excused))
    throttle = throttle_in(policy, state.trading_state)
    throttle_after = throttle if leap is None else leap.throttle
    memories = tuple(symbol.memory for symbol in judged)
    effective_after = effective_throttles(state, throttle_after, memories)
    observed = KpiObserved(
        window=start_ms,
        interval_ms=state.interval_ms,
        content=content_hash(
            start_ms,
            {memory.symbol: got for memory, got in zip(state.symbols, readings, strict=True)},
        ),
        verdict=verdict,
        throttle=throttle,
        symbols=tuple(
            _with_halted(symbol, effective == 0.0)
            for symbol, effective in zip(judged, effective_after, strict=True)
        ),
        triggered_by=None if culprit is None else culprit.memory.symbol,
        ok_windows=ok_windows,
        warn_windows=warn_windows,
        excused=excused,
    )
    if leap is None:
        return observed, None
    return observed, StateTransitioned(
        previous=state.trading_state,
        state=leap.state,
        throttle=leap.throttle,
        since_ms=observed.end_ms,
        cause=leap.cause,
        reasons=leap.reasons,
        triggered_by=leap.triggered_by,
    )


def judge_symbol(
    policy: Policy, memory: SymbolMemory, readings: SymbolReadings, *, held: bool
) -> SymbolObservation:
    """
    Return one symbol's verdict, its violations in table order, and what is remembered of it.

    Args:
        held: a freeze override held it in the window.

    Source: DESIGN.md section 1, No data is never OK. Every rule is evaluated, always.
    """
    thresholds = policy.thresholds_of(memory.symbol)
    violations: list[Violation] = []
    excused_kpis: list[str] = []
    no_data: dict[str, int] = {}
    breached: list[str] = []
    for kpi in KPIS:
        reading = readings.kpis.get(kpi.name)
        if reading is not None and kpi.is_valid(reading):
            value, threshold = float(reading), thresholds[kpi.policy_key]
            if kpi.is_breached(value, threshold):
                violations.append(breach(kpi, value, threshold))
                breached.append(kpi.name)
            continue
        was_breached = kpi.name in memory.breached
        if was_breached:
            breached.append(kpi.name)
        if reading is None:
            if not (was_breached or kpi.name in policy.required_kpis):
                continue
            if memory.halted and kpi.name in policy.waived_when_halted:
                excused_kpis.append(kpi.name)
                continue
        no_data[kpi.name] = count = memory.no_data.get(kpi.name, 0) + 1
        freezes = count >= policy.no_data_freeze_windows
        violations.append(
            Violation(
                kpi=kpi.name,
                verdict=Verdict.CRIT if freezes else Verdict.WARN,
                no_data_windows=count,
                arrived=reading,
            )
        )
    verdict = worst_verdict(violation.verdict for violation in violations)
    return SymbolObservation(
        memory=_remember(
            policy, memory, verdict, bool(excused_kpis), held, no_data, tuple(breached)
        ),
        readings=readings,
        verdict=verdict,
        violations=tuple(violations),
        excused_kpis=tuple(excused_kpis),
    )


def window_verdict(policy: Policy, state: State, counted: list[SymbolObservation]) -> Verdict:
    """
    Return the window's verdict over the symbols within the profile's limit.

    Source: DESIGN.md section 1, Verdict of a symbol, of a window; the guide's Scenario 3.
    """
    crit = sum(symbol.verdict is Verdict.CRIT for symbol in counted)
    if crit >= policy.global_freeze_symbols:
        return Verdict.CRIT
    if policy.global_freeze_symbols > 1:
        counted = [
            symbol
            for symbol, before in zip(counted, state.symbols, strict=False)
            if not before.frozen
        ]
        if not counted:
            return Verdict.WARN
    ill = any(symbol.verdict is not Verdict.OK for symbol in counted)
    return Verdict.WARN if ill else Verdict.OK


def throttle_in(policy: Policy, trading_state: TradingState) -> float:
    """Return the global throttle of a state under a policy."""
    match trading_state:
        case TradingState.ACTIVE:
            return 1.0
        case TradingState.COOLDOWN:
            return policy.cooldown_throttle
        case TradingState.FROZEN:
            return 0.0


def _leap(
    policy: Policy,
    state: State,
    verdict: Verdict,
    culprit: SymbolObservation | None,
    counters: tuple[int, int, bool],
) -> _Leap | None:
    """Return the one transition of the table that matches first."""
    ok_windows, warn_windows, excused = counters
    now = state.trading_state
    if verdict is Verdict.CRIT and now is not TradingState.FROZEN:
        return _by_verdict(policy, TradingState.FROZEN, culprit)
    if now is TradingState.ACTIVE and warn_windows >= policy.min_warn_windows:
        return _by_verdict(policy, TradingState.COOLDOWN, culprit)
    if now is TradingState.COOLDOWN and ok_windows >= policy.min_ok_windows:
        return _by_recovery(policy, TradingState.ACTIVE, ok_windows)
    if now is TradingState.FROZEN and ok_windows >= policy.unfreeze_after_ok_windows:
        after = TradingState.COOLDOWN if excused else TradingState.ACTIVE
        return _by_recovery(policy, after, ok_windows)
    return None


def _by_verdict(policy: Policy, state: TradingState, culprit: SymbolObservation | None) -> _Leap:
    if culprit is None:
        reasons: tuple[str, ...] = ("every symbol is frozen on its own",)
    else:
        reasons = tuple(violation.reason for violation in culprit.violations)
    symbol = None if culprit is None else culprit.memory.symbol
    return _Leap(state, throttle_in(policy, state), CauseKind.VERDICT, reasons, symbol)


def _by_recovery(policy: Policy, state: TradingState, ok_windows: int) -> _Leap:
    reasons = (f"recovered after {ok_windows} OK windows",)
    return _Leap(state, throttle_in(policy, state), CauseKind.RECOVERY, reasons, None)


def _culprit(counted: list[SymbolObservation]) -> SymbolObservation | None:
    """Return the first symbol with the worst verdict, None if all are OK."""
    worst = worst_verdict(symbol.verdict for symbol in counted)
    if worst is Verdict.OK:
        return None
    return next(symbol for symbol in counted if symbol.verdict is worst)


def _remember(
    policy: Policy,
    memory: SymbolMemory,
    verdict: Verdict,
    excused: bool,
    held: bool,
    no_data: dict[str, int],
    breached: tuple[str, ...],
) -> SymbolMemory:
    """Return the symbol's latch and counters after a window; `halted` is not known yet."""
    frozen = memory.frozen or verdict is Verdict.CRIT
    probation = memory.probation and verdict is not Verdict.CRIT
    if verdict is not Verdict.OK or held:
        ok_windows, excused = 0, False
    else:
        ok_windows, excused = memory.ok_windows + 1, memory.excused or excused
        if frozen and ok_windows >= policy.unfreeze_after_ok_windows:
            frozen, probation = False, excused
            ok_windows, excused = 0, False
        elif probation and ok_windows >= policy.min_ok_windows:
            probation = False
    if frozen:
        throttle = 0.0
    else:
        throttle = 1.0 if verdict is Verdict.OK and not probation else WARN_SYMBOL_THROTTLE
    return SymbolMemory(
        symbol=memory.symbol,
        throttle=throttle,
        ok_windows=ok_windows,
        frozen=frozen,
        probation=probation,
        excused=excused,
        no_data=no_data,
        breached=breached,
    )


def _with_halted(symbol: SymbolObservation, halted: bool) -> SymbolObservation:
    if not halted:
        return symbol
    memory = msgspec.structs.replace(symbol.memory, halted=True)
    return msgspec.structs.replace(symbol, memory=memory)
