"""
Windows that nobody decided.

A gap leaves the state that the same number of windows without any data would have left. It may
be years long, so windows that can change nothing but counts are leapt over rather than stepped.
Source: DESIGN.md section 1, Gaps, duplicates, late windows, clocks.
"""

from msgspec.structs import replace

from domain import mutators
from domain.events import CauseKind, GapObserved, StateTransitioned, SymbolMemory, TradingState
from domain.judging import observe_window
from domain.policy import Policy
from domain.state import State


def pass_windows(
    policy: Policy, state: State, start_ms: int, windows: int
) -> tuple[GapObserved, StateTransitioned | None]:
    """
    Return what a number of missing windows come to, and the transition over all of them.

    Args:
        policy: the one in force before the gap.
        start_ms: the first missing window's start.
        windows: how many are missing, at least 1.
    """
    end_ms = start_ms + windows * state.interval_ms
    now = state
    window = start_ms
    while window < end_ms:
        before = now
        now = _step(policy, before, window)
        window += state.interval_ms
        leap = _idle_windows(policy, before, now, window, end_ms)
        if leap > 0:
            now = _leap(now, leap)
            window += leap * state.interval_ms
    gap = GapObserved(
        window=start_ms,
        windows=windows,
        interval_ms=state.interval_ms,
        throttle=now.throttle,
        memories=now.symbols,
        ok_windows=now.ok_windows,
        warn_windows=now.warn_windows,
    )
    if now.trading_state is state.trading_state or now.since_ms is None:
        return gap, None
    return gap, StateTransitioned(
        previous=state.trading_state,
        state=now.trading_state,
        throttle=now.throttle,
        since_ms=now.since_ms,
        cause=CauseKind.GAP,
        reasons=(mutators.gap_reason(gap),),
        warn_windows=now.warn_windows,
    )


def _step(policy: Policy, state: State, window: int) -> State:
    """Return the state after one window without data, with what expired by its end ended."""
    end_ms = window + state.interval_ms
    state = replace(
        state,
        overrides=tuple(
            replace(override, ended_at_ms=override.expires_at_ms)
            if override.ended_at_ms is None
            and override.expires_at_ms is not None
            and override.expires_at_ms <= end_ms
            else override
            for override in state.overrides
        ),
    )
    observed, transition = observe_window(policy, state, window, {})
    state = mutators.kpi_observed(state, observed)
    return state if transition is None else mutators.state_transitioned(state, transition)


def _idle_windows(policy: Policy, before: State, after: State, window: int, end_ms: int) -> int:
    """
    Return how many windows from `window` on are sure to change nothing but counts.

    That is so once a step has changed nothing but counts, until a count reaches its threshold, an
    override ends or the gap does.
    """
    if _shape(before) != _shape(after):
        return 0
    idle = (end_ms - window) // after.interval_ms
    if after.trading_state is TradingState.ACTIVE and after.warn_windows:
        idle = min(idle, policy.min_warn_windows - after.warn_windows - 1)
    for memory in after.symbols:
        for no_data in memory.no_data.values():
            if no_data < policy.no_data_freeze_windows:
                idle = min(idle, policy.no_data_freeze_windows - no_data - 1)
    for override in after.overrides_in_force:
        if override.expires_at_ms is not None:
            idle = min(idle, (override.expires_at_ms - window) // after.interval_ms - 1)
    return idle


def _leap(state: State, windows: int) -> State:
    """Return the state after so many more of the windows that change nothing but counts."""
    return replace(
        state,
        warn_windows=state.warn_windows + windows if state.warn_windows else 0,
        symbols=tuple(
            replace(
                memory,
                no_data={kpi: count + windows for kpi, count in memory.no_data.items()},
            )
            for memory in state.symbols
        ),
    )


def _shape(state: State) -> tuple[object, ...]:
    """Return all that decides the next window without data, the growing counts aside."""
    return (
        state.trading_state,
        state.throttle,
        state.warn_windows > 0,
        state.excused,
        state.ok_windows,
        state.overrides,
        tuple(_memory_shape(memory) for memory in state.symbols),
    )


def _memory_shape(memory: SymbolMemory) -> tuple[SymbolMemory, frozenset[str]]:
    return replace(memory, no_data={}), frozenset(memory.no_data)
