"""
Decisions over a recorded ledger, in which there was more than windows.

Overrides, other symbols, other policies, a start in a worse state, a clock that went back: the core
itself is told of them, and decides the windows in which an override is in force. Between them
the loop decides; `State` and the loop's memory hold the same, so that one can go on where the
other stopped.
"""

from typing import Final

import numpy as np
from msgspec.structs import replace

from domain.commands import (
    AdoptPolicy,
    ApplyOverride,
    ClearOverride,
    Command,
    ObserveWindow,
    PassWindows,
)
from domain.controller import decide, fold
from domain.errors import CommandRefused
from domain.events import SymbolMemory, TradingState
from domain.judging import throttle_in
from domain.kernel.cells import Cells, judged_cells
from domain.kernel.decisions import Decisions
from domain.kernel.loop import (
    BREACHED,
    HALTED,
    HALVED,
    HELPED,
    IS_FROZEN,
    NOBODY,
    OK_COUNT,
    OKS,
    ON_PROBATION,
    STATE,
    THROTTLED_TO_ZERO,
    TRIGGER,
    UNTHROTTLED,
    WARN_COUNT,
    WAS_HELPED,
    Memory,
    new_memory,
    new_track,
    rules_of,
    run,
)
from domain.kernel.series import ABSENT, MALFORMED, Codes, Series, frozen
from domain.kpis import KPIS, Defect, Reading
from domain.policy import Policy
from domain.state import State
from domain.windows import SymbolReadings, WindowReadings

STATES: Final = tuple(TradingState)
REMOVED: Final = -2
"""A trigger that is no symbol of now; as an index, the one before `NOBODY`."""


def decide_recorded_series(
    series: Series, policy: Policy | None, *, fast: bool = True
) -> Decisions:
    """
    Return what the core decides over a series that its interventions begin and steer.

    With a policy, that one is adopted wherever one was; without, what was recorded. A symbol that
    isn't configured in a window has a throttle of 0.

    Raises:
        CommandRefused: as the core refuses an adoption.
    """
    recording = _Recording(series, fast)
    for intervention in series.interventions:
        recording.decide_until(intervention.at)
        command = intervention.command
        if policy is not None and isinstance(command, AdoptPolicy):
            command = replace(command, policy=policy)
        recording.tell(command)
    recording.decide_until(series.windows)
    return recording.decisions()


class _Recording:
    """A series being decided: the core's state, and how many windows it accounts for."""

    def __init__(self, series: Series, fast: bool) -> None:
        self._series = series
        self._fast = fast
        self._state = State()
        self._done = 0
        self._initial: tuple[float, ...] = ()
        symbols, windows = len(series.symbols), series.windows
        self._track = new_track(symbols, windows)
        self._throttle = np.ones(windows)
        self._caps = np.zeros((symbols, windows))
        self._cells: dict[tuple[str, tuple[str, ...]], Cells] = {}

    def decisions(self) -> Decisions:
        return Decisions(
            symbols=self._series.symbols,
            state=frozen(self._track.state),
            throttle=frozen(self._throttle),
            triggered_by=frozen(self._track.trigger),
            throttles=frozen(self._track.throttles),
            caps=frozen(self._caps),
            limit=len(self._series.symbols),
            initial=self._initial,
        )

    def tell(self, command: Command) -> None:
        """Let the core decide a command; under another policy there may be nothing to clear."""
        try:
            events = decide(self._state.policy, self._state, command)
        except CommandRefused:
            if not isinstance(command, ApplyOverride | ClearOverride):
                raise
            return
        self._state = fold(self._state, events)

    def decide_until(self, last: int) -> None:
        """Decide the windows up to, not including, this one."""
        if not self._done:
            known = self._state.effective_throttles()
            self._initial = tuple(known.get(name, 0.0) for name in self._series.symbols)
        while self._done < last:
            # Overrides bear on windows that they cover in part, too: the core knows which.
            if self._state.overrides:
                self._decide_by_core(last)
            else:
                self._decide_by_loop(last)

    def _decide_by_core(self, last: int) -> None:
        """Let the core decide the next window, or the gap before it."""
        index = self._series.index
        row = int(np.searchsorted(index, self._done))
        next_observed = int(index[row]) if row < len(index) else self._series.windows
        if next_observed > self._done:
            self._pass_by_core(min(next_observed, last))
            return
        self.tell(ObserveWindow(readings=window_readings(self._series, row)))
        self._write(self._done, self._done + 1)
        self._done += 1

    def _pass_by_core(self, last: int) -> None:
        """Let the core step through a gap, and leap once everything has long been frozen."""
        settled = self._done + self._state.policy.no_data_freeze_windows + 2
        while self._done < last:
            until = self._done + 1 if self._done < settled else last
            self.tell(PassWindows(until=self._series.start_of(until)))
            self._write(self._done, until)
            self._done = until

    def _decide_by_loop(self, last: int) -> None:
        state, series = self._state, self._series
        numbers = [series.symbols.index(name) for name in state.symbol_names]
        memory = memory_of(state)
        track = new_track(len(numbers), series.windows)
        cells = self._cells_of(numbers)
        limit = state.symbols_within_limit
        run(
            rules_of(state.policy, limit), memory, cells, series.index, self._done, last, track,
            fast=self._fast,
        )  # fmt: skip
        here = slice(self._done, last)
        self._track.state[here] = track.state[here]
        known = np.array([*numbers, _number(state.triggered_by, series.symbols), NOBODY])
        self._track.trigger[here] = known[track.trigger[here]]
        self._throttle[here] = np.array([1.0, state.policy.cooldown_throttle, 0.0])[
            track.state[here]
        ]
        for number, throttles in zip(numbers, track.throttles, strict=True):
            self._track.throttles[number, here] = throttles[here]
        self._caps[numbers[:limit], here] = 1.0
        self._done = last
        self._state = state_after(
            state, memory, track.throttles[:, last - 1], series.start_of(last - 1)
        )

    def _cells_of(self, numbers: list[int]) -> Cells:
        state = self._state
        key = state.policy.hash, state.symbol_names
        if key not in self._cells:
            self._cells.clear()
            self._cells[key] = judged_cells(self._series, state.policy, numbers)
        return self._cells[key]

    def _write(self, first: int, last: int) -> None:
        """Write the core's state as that after these windows."""
        state, symbols, here = self._state, self._series.symbols, slice(first, last)
        self._track.state[here] = STATES.index(state.trading_state)
        self._track.trigger[here] = _number(state.triggered_by, symbols)
        self._throttle[here] = state.throttle
        for name, throttle in state.per_symbol_throttles().items():
            self._track.throttles[symbols.index(name), here] = round(2 * throttle)
        # What an override caps is below global and KPI-based throttle, or it caps nothing.
        for name, effective in state.effective_throttles().items():
            self._caps[symbols.index(name), here] = effective


def window_readings(series: Series, row: int) -> WindowReadings:
    """Return an observed window as the core is told it; what was malformed is so in one way."""
    symbols = {}
    for symbol, columns in zip(series.symbols, series.columns, strict=True):
        kpis: dict[str, Reading] = {}
        for position, kpi in enumerate(KPIS):
            code = columns.codes[position, row]
            if code == MALFORMED:
                kpis[kpi.name] = Defect.MALFORMED
            elif code != ABSENT:
                kpis[kpi.name] = float(columns.values[position, row])
        symbols[symbol] = SymbolReadings(kpis=kpis)
    return WindowReadings(start_ms=series.start_of(int(series.index[row])), symbols=symbols)


def memory_of(state: State) -> Memory:
    """Return the core's state as the loop remembers it; symbols in the state's order."""
    memory = new_memory(len(state.symbols))
    memory.control[STATE] = STATES.index(state.trading_state)
    memory.control[OK_COUNT] = state.ok_windows
    memory.control[WARN_COUNT] = state.warn_windows
    memory.control[HELPED] = state.excused
    if state.triggered_by is not None:
        # A symbol that led to the state may have been removed since.
        names = state.symbol_names
        memory.control[TRIGGER] = (
            names.index(state.triggered_by) if state.triggered_by in names else REMOVED
        )
    for number, known in enumerate(state.symbols):
        latch = memory.symbols[number]
        latch[IS_FROZEN], latch[ON_PROBATION] = known.frozen, known.probation
        latch[OKS], latch[WAS_HELPED] = known.ok_windows, known.excused
        latch[HALTED] = known.halted
        for position, kpi in enumerate(KPIS):
            latch[BREACHED] |= (kpi.name in known.breached) << position
            memory.missing[number, position] = known.no_data.get(kpi.name, 0)
    return memory


def state_after(state: State, memory: Memory, halves: Codes, window_ms: int) -> State:
    """Return the core's state with what the loop came to, up to this window."""
    control = memory.control
    trading_state = STATES[control[STATE]]
    triggers = (*state.symbol_names, state.triggered_by, None)
    return replace(
        state,
        trading_state=trading_state,
        throttle=throttle_in(state.policy, trading_state),
        triggered_by=triggers[control[TRIGGER]],
        ok_windows=int(control[OK_COUNT]),
        warn_windows=int(control[WARN_COUNT]),
        excused=bool(control[HELPED]),
        window=window_ms,
        clock_behind=False,
        symbols=tuple(
            _symbol_after(known, memory, number, int(halves[number]))
            for number, known in enumerate(state.symbols)
        ),
    )


def _symbol_after(known: SymbolMemory, memory: Memory, number: int, halves: int) -> SymbolMemory:
    latch, missing = memory.symbols[number], memory.missing[number]
    return SymbolMemory(
        symbol=known.symbol,
        throttle={THROTTLED_TO_ZERO: 0.0, HALVED: 0.5, UNTHROTTLED: 1.0}[halves],
        ok_windows=int(latch[OKS]),
        frozen=bool(latch[IS_FROZEN]),
        probation=bool(latch[ON_PROBATION]),
        excused=bool(latch[WAS_HELPED]),
        halted=bool(latch[HALTED]),
        no_data={kpi.name: int(missing[at]) for at, kpi in enumerate(KPIS) if missing[at]},
        breached=tuple(kpi.name for at, kpi in enumerate(KPIS) if latch[BREACHED] >> at & 1),
    )


def _number(symbol: str | None, symbols: tuple[str, ...]) -> int:
    return NOBODY if symbol is None else symbols.index(symbol)
