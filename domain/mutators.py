"""
One small mutator for each event: the next state from the state and what the event recorded.

No rule is applied here and no threshold is read: new code can't reinterpret an old event.
`domain.controller.evolve` chooses among them. Source: DESIGN.md section 2, Aggregate.
"""

from collections.abc import Callable

from msgspec.structs import replace

from domain.events import (
    ClockFault,
    GapObserved,
    KpiObserved,
    Override,
    OverrideApplied,
    OverrideEnded,
    OverrideKind,
    PolicyAdopted,
    RunStarted,
    StateTransitioned,
    SymbolMemory,
)
from domain.kpis import Verdict
from domain.state import Counts, Reset, State
from domain.windows import format_minute


def run_started(state: State, event: RunStarted) -> State:
    """The first run fixes the stream's interval and the ledger's id."""
    if state.run is not None:
        return replace(state, run=event)
    return replace(state, run=event, ledger_id=event.ledger_id, interval_ms=event.interval_ms)


def policy_adopted(state: State, event: PolicyAdopted) -> State:
    """
    Kept symbols keep their memory, new ones start with none, returning ones start with their
    freeze. What loosened sets every count of OK windows back.
    """
    known = {memory.symbol: memory for memory in state.symbols}
    retired = {memory.symbol: memory for memory in state.retired}
    symbols = []
    for symbol in event.symbols:
        memory = known.pop(symbol, None)
        if memory is None:
            returning = retired.pop(symbol, None)
            memory = SymbolMemory(symbol=symbol) if returning is None else _restart(returning)
        symbols.append(_restart(memory) if event.loosened else memory)
    state = replace(
        state,
        policy=event.policy,
        policy_hash=event.policy_hash,
        profile=event.profile,
        symbols=tuple(symbols),
        retired=(*retired.values(), *known.values()),
    )
    if not event.loosened:
        return state
    return _recount(state, None, ("the policy was loosened",))


def kpi_observed(state: State, event: KpiObserved) -> State:
    """The window's memories and counters become the state's."""
    last_reset = state.last_reset
    if event.verdict is not Verdict.OK:
        last_reset = Reset(event.window, event.triggered_by, _reset_reasons(event))
    return replace(
        state,
        symbols=tuple(symbol.memory for symbol in event.symbols),
        throttle=event.throttle,
        ok_windows=event.ok_windows,
        warn_windows=event.warn_windows,
        excused=event.excused,
        last_reset=last_reset,
        window=event.window,
        observed=event,
        overrides=_not_over(state, event.end_ms),
        clock_behind=False,
        counts=_count_window(state.counts, event.verdict),
    )


def gap_observed(state: State, event: GapObserved) -> State:
    """The memories and counters that the missing windows came to become the state's."""
    last = event.end_ms - event.interval_ms
    return replace(
        state,
        symbols=event.memories,
        throttle=event.throttle,
        ok_windows=event.ok_windows,
        warn_windows=event.warn_windows,
        excused=False,
        last_reset=Reset(last, None, (gap_reason(event),)),
        window=last,
        clock_behind=False,
        overrides=_not_over(state, event.end_ms),
        counts=replace(
            state.counts,
            gaps=state.counts.gaps + 1,
            gap_windows=state.counts.gap_windows + event.windows,
        ),
    )


def state_transitioned(state: State, event: StateTransitioned) -> State:
    """The new state, its cause, and counters from zero (a gap may have gone on after it)."""
    return replace(
        state,
        trading_state=event.state,
        throttle=event.throttle,
        previous=event.previous,
        since_ms=event.since_ms,
        reasons=event.reasons,
        triggered_by=event.triggered_by,
        ok_windows=0,
        warn_windows=event.warn_windows,
        excused=False,
        counts=replace(state.counts, transitions=state.counts.transitions + 1),
    )


def clock_fault(state: State, event: ClockFault) -> State:
    """Recovery counts from the moment that the clock has passed the ledger's last window."""
    state = replace(
        state,
        clock_behind=True,
        counts=replace(state.counts, clock_faults=state.counts.clock_faults + 1),
    )
    return _recount(state, None, (clock_reason(event),))


def override_applied(state: State, event: OverrideApplied) -> State:
    """A freeze latches its symbol; an unfreeze clears latches, counts and breach memory."""
    override = event.override
    why = (override_reason(override),)
    match override.kind:
        case OverrideKind.CAP:
            return replace(state, overrides=(*state.overrides, override))
        case OverrideKind.FREEZE:
            state = replace(state, overrides=(*state.overrides, override))
            if override.symbol is None:
                return _recount(state, None, why)
            return _change_memories(state, override, _freeze)
        case OverrideKind.UNFREEZE:
            state = _change_memories(state, override, _forget)
            if override.symbol is not None:
                return state
            return replace(
                state,
                retired=tuple(_forget(memory) for memory in state.retired),
                ok_windows=0,
                warn_windows=0,
                excused=False,
                last_reset=Reset(state.window, None, why),
            )


def override_ended(state: State, event: OverrideEnded) -> State:
    """An ended override is kept until its window is over: a window that it held isn't counted."""
    return replace(
        state,
        overrides=tuple(
            replace(override, ended_at_ms=event.at_ms) if override.id == event.id else override
            for override in state.overrides
        ),
    )


def count(state: State, name: str) -> State:
    """Return the state with one more of what `Counts` calls by this name."""
    return replace(state, counts=replace(state.counts, **{name: getattr(state.counts, name) + 1}))


def gap_reason(gap: GapObserved) -> str:
    """Return how a gap is told: `runner down A to B (N windows)`, the end exclusive."""
    start, end = format_minute(gap.window), format_minute(gap.end_ms)
    return f"runner down {start} to {end} ({gap.windows} windows)"


def clock_reason(fault: ClockFault) -> str:
    """Return how a clock fault is told: `clock is 3600 s behind the ledger`."""
    seconds = f"{fault.behind_ms / 1000:.3f}".rstrip("0").rstrip(".")
    return f"clock is {seconds} s behind the ledger"


def override_reason(override: Override) -> str:
    """Return how an override is told: `override freeze by NAME: TEXT`."""
    return f"override {override.kind} by {override.actor}: {override.reason}"


def _recount(state: State, symbol: str | None, reasons: tuple[str, ...]) -> State:
    """Return the state with the global count of OK windows set back."""
    reset = Reset(state.window, symbol, reasons)
    return replace(state, ok_windows=0, excused=False, last_reset=reset)


def _restart(memory: SymbolMemory) -> SymbolMemory:
    return replace(memory, ok_windows=0, excused=False)


def _freeze(memory: SymbolMemory) -> SymbolMemory:
    return replace(_restart(memory), throttle=0.0, frozen=True, probation=False)


def _forget(memory: SymbolMemory) -> SymbolMemory:
    return SymbolMemory(symbol=memory.symbol, halted=memory.halted)


def _change_memories(
    state: State, override: Override, change: Callable[[SymbolMemory], SymbolMemory]
) -> State:
    """Return the state with the override's symbol, or all of them, changed."""
    return replace(
        state,
        symbols=tuple(
            change(memory) if override.symbol in (None, memory.symbol) else memory
            for memory in state.symbols
        ),
    )


def _not_over(state: State, end_ms: int) -> tuple[Override, ...]:
    """Return the overrides that aren't over at the end of a window."""
    if not state.overrides:
        return ()
    return tuple(
        override
        for override in state.overrides
        if override.ended_at_ms is None or override.ended_at_ms > end_ms
    )


def _reset_reasons(event: KpiObserved) -> tuple[str, ...]:
    """Return the reasons of the symbol that the window was not OK for."""
    for symbol in event.symbols:
        if symbol.memory.symbol == event.triggered_by:
            return tuple(violation.reason for violation in symbol.violations)
    return ("every symbol is frozen on its own",)


def _count_window(counts: Counts, verdict: Verdict) -> Counts:
    match verdict:
        case Verdict.OK:
            return replace(counts, windows=counts.windows + 1, ok=counts.ok + 1)
        case Verdict.WARN:
            return replace(counts, windows=counts.windows + 1, warn=counts.warn + 1)
        case Verdict.CRIT:
            return replace(counts, windows=counts.windows + 1, crit=counts.crit + 1)
