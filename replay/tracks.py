"""
Tracks: what a policy made of every window, as columns, for comparing and for counting money.

A `Timeline` is what the source held, a `Track` what was decided of it, row for row. A row is a
window, or a gap of several. `Engine` is the seam for a faster way to the same tracks than the
core, `track_by_core`.
"""

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from domain.commands import AdoptPolicy, ApplyOverride, ClearOverride, Command
from domain.controller import decide, evolve
from domain.errors import CommandRefused
from domain.events import (
    Event,
    GapObserved,
    KpiObserved,
    OverrideApplied,
    OverrideEnded,
    StateTransitioned,
    SymbolThrottleChanged,
    TradingState,
)
from domain.kpis import KPI_BY_NAME, KPIS
from domain.policy import Policy
from domain.state import State
from domain.windows import SymbolReadings
from replay.source import Source

STATES: Final = tuple(TradingState)
"""From most to least trading; a track holds positions in it."""
ACTIVE: Final = STATES.index(TradingState.ACTIVE)
FROZEN: Final = STATES.index(TradingState.FROZEN)

EDGE: Final = KPI_BY_NAME["edge_bps"]


class Candidate(msgspec.Struct, frozen=True):
    """A policy to decide by, and what to call it; None is the recorded one."""

    name: str
    policy: Policy | None


class Columns:
    """A column of numbers per symbol, all of the same length; NaN where a symbol had none."""

    def __init__(self) -> None:
        self.rows = 0
        self._columns: dict[str, array[float]] = {}

    def append(self, values: Mapping[str, float]) -> None:
        """Add a row."""
        for symbol in values.keys() - self._columns.keys():
            self._columns[symbol] = array("d", [math.nan]) * self.rows
        for symbol, column in self._columns.items():
            column.append(values.get(symbol, math.nan))
        self.rows += 1

    def part(self, first: int, end: int) -> "Columns":
        """Return the rows from one on and before another."""
        part = Columns()
        part.rows = end - first
        part._columns = {symbol: column[first:end] for symbol, column in self._columns.items()}
        return part

    def of(self, symbol: str) -> Sequence[float]:
        """Return a symbol's column."""
        column = self._columns.get(symbol)
        return array("d", [math.nan]) * self.rows if column is None else column

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that there is a column of."""
        return tuple(self._columns)


class Timeline:
    """
    What the source held, row by row.

    Attributes:
        interval_ms: a window's length.
        starts_ms: each row's first window.
        windows: how many windows a row stands for: 1, or as many as a gap has.
        is_gap: 1 for a gap.
        edge_bps: by symbol; NaN where there is no valid value.
        notional: by symbol, quote currency; NaN where it isn't known.
        fills: by symbol; NaN where they aren't known.
        valid_kpis: by symbol, the KPIs that it has at least one valid value of.
    """

    def __init__(self, interval_ms: int) -> None:
        self.interval_ms = interval_ms
        self.starts_ms = array("q")
        self.windows = array("q")
        self.is_gap = bytearray()
        self.edge_bps = Columns()
        self.notional = Columns()
        self.fills = Columns()
        self.valid_kpis: dict[str, set[str]] = {}

    def add(self, event: KpiObserved | GapObserved) -> None:
        """Add a row."""
        is_gap = isinstance(event, GapObserved)
        self.starts_ms.append(event.window)
        self.windows.append(event.windows if isinstance(event, GapObserved) else 1)
        self.is_gap.append(is_gap)
        observed = () if isinstance(event, GapObserved) else event.symbols
        edge: dict[str, float] = {}
        notional: dict[str, float] = {}
        fills: dict[str, float] = {}
        for symbol in observed:
            name, readings = symbol.memory.symbol, symbol.readings
            edge[name] = self._take_kpis(name, readings)
            if readings.notional is not None:
                notional[name] = readings.notional
            if readings.fills is not None:
                fills[name] = readings.fills
        self.edge_bps.append(edge)
        self.notional.append(notional)
        self.fills.append(fills)

    def part(self, first: int, end: int) -> "Timeline":
        """Return the rows from one on and before another."""
        part = Timeline(self.interval_ms)
        part.starts_ms = self.starts_ms[first:end]
        part.windows = self.windows[first:end]
        part.is_gap = self.is_gap[first:end]
        part.edge_bps = self.edge_bps.part(first, end)
        part.notional = self.notional.part(first, end)
        part.fills = self.fills.part(first, end)
        part.valid_kpis = self.valid_kpis
        return part

    def _take_kpis(self, symbol: str, readings: SymbolReadings) -> float:
        """Note what is valid; return the edge, NaN if it isn't."""
        seen = self.valid_kpis.setdefault(symbol, set())
        if len(seen) < len(KPIS):
            for kpi in KPIS:
                if kpi.name in readings.kpis and kpi.is_valid(readings.kpis[kpi.name]):
                    seen.add(kpi.name)
        edge = readings.kpis.get(EDGE.name)
        return float(edge) if edge is not None and EDGE.is_valid(edge) else math.nan

    def __len__(self) -> int:
        return len(self.starts_ms)

    @property
    def window_count(self) -> int:
        """How many windows the rows stand for, gaps included."""
        return sum(self.windows)

    def end_ms(self, row: int) -> int:
        """Return a row's end, when what was decided of it comes into force."""
        return self.starts_ms[row] + self.windows[row] * self.interval_ms


class Freeze(msgspec.Struct, frozen=True):
    """A row that the state was FROZEN after, and not before; and why."""

    row: int
    reasons: tuple[str, ...]
    triggered_by: str | None


class Track:
    """
    What was decided, row by row, of a timeline with as many.

    Attributes:
        name: whose decisions they are.
        policy: by what, where it is one.
        first_state: the state before the first row, a position in `STATES`.
        states: the global state after each row.
        effective: by symbol, the effective throttle after each row.
        in_force: by symbol, the effective throttle at each row's start: what its fills were under.
        freezes: each time that the state became FROZEN.
    """

    def __init__(self, name: str, policy: Policy | None) -> None:
        self.name = name
        self.policy = policy
        self.first_state = ACTIVE
        self.states = bytearray()
        self.effective = Columns()
        self.in_force = Columns()
        self.freezes: list[Freeze] = []

    def part(self, first: int, end: int) -> "Track":
        """Return the rows from one on and before another."""
        part = Track(self.name, self.policy)
        part.first_state = self.states[first - 1] if first else self.first_state
        part.states = self.states[first:end]
        part.effective = self.effective.part(first, end)
        part.in_force = self.in_force.part(first, end)
        part.freezes = [
            Freeze(freeze.row - first, freeze.reasons, freeze.triggered_by)
            for freeze in self.freezes
            if first <= freeze.row < end
        ]
        return part


class Decided(msgspec.Struct, frozen=True):
    """A timeline, what was recorded of it (None if nothing was), and what candidates made of it."""

    timeline: Timeline
    recorded: Track | None
    tracks: list[Track]


Engine = Callable[[Source, Sequence[Candidate]], Decided]
"""Decides all of a source's windows under each candidate."""


class TrackRecorder:
    """
    Makes a track from the events of a stream, told in order.

    Args:
        before: the state that they begin in.
        timeline: where to note what the source held; None if that is noted already.
    """

    def __init__(
        self,
        name: str,
        policy: Policy | None,
        *,
        before: State,
        timeline: Timeline | None = None,
    ) -> None:
        self.track = Track(name, policy)
        self.state = before
        self._timeline = timeline
        self._in_force = before.effective_throttles()
        self._is_row_open = False
        self._is_in_time = True

    def add(self, event: Event) -> None:
        """Take in one event."""
        is_row = isinstance(event, KpiObserved | GapObserved)
        if self._is_row_open and not isinstance(event, StateTransitioned | SymbolThrottleChanged):
            self._close_row()
        if isinstance(event, KpiObserved | GapObserved) and self._timeline is not None:
            self._timeline.add(event)
        if is_row:
            if not self.track.states:
                self.track.first_state = STATES.index(self.state.trading_state)
            self.track.in_force.append(self._in_force)
        else:
            self._note_time(event)
        self.state = evolve(self.state, event)
        self._is_row_open = self._is_row_open or is_row
        if not self._is_row_open and self._is_in_time:
            self._in_force = self.state.effective_throttles()

    def finish(self) -> Track:
        """Return the track, after the last event."""
        if self._is_row_open:
            self._close_row()
        return self.track

    def _note_time(self, event: Event) -> None:
        """What an operator did while a window was under way holds from the next window's start."""
        match event:
            case OverrideApplied():
                at_ms = event.override.applied_at_ms
            case OverrideEnded():
                at_ms = event.at_ms
            case _:
                return
        next_window = self.state.next_window
        self._is_in_time = next_window is None or at_ms <= next_window

    def _close_row(self) -> None:
        self._is_row_open = False
        self._is_in_time = True
        self._in_force = self.state.effective_throttles()
        code = STATES.index(self.state.trading_state)
        if code == FROZEN != self._last_state():
            self.track.freezes.append(
                Freeze(len(self.track.states), self.state.reasons, self.state.triggered_by)
            )
        self.track.states.append(code)
        self.track.effective.append(self._in_force)

    def _last_state(self) -> int:
        return self.track.states[-1] if self.track.states else self.track.first_state


def track_by_core(source: Source, candidates: Sequence[Candidate]) -> Decided:
    """
    Return what the core itself makes of the source under each candidate, in one reading of it.

    Raises:
        CommandRefused: if a candidate can't be adopted for the source's symbols.
    """
    timeline = Timeline(source.interval_ms)
    events = source.recorded()
    recorded = None
    if events is not None:
        recorded = track_of_events(events, "recorded", timeline, before=source.before)
    recorders = [
        TrackRecorder(
            candidate.name,
            candidate.policy,
            before=source.before,
            timeline=timeline if recorded is None and not index else None,
        )
        for index, candidate in enumerate(candidates)
    ]
    for command in source.commands() if recorders else ():
        for recorder, candidate in zip(recorders, candidates, strict=True):
            _decide(recorder, command, candidate.policy)
    return Decided(timeline, recorded, [recorder.finish() for recorder in recorders])


def track_of_events(
    events: Iterable[Event], name: str, timeline: Timeline, *, before: State
) -> Track:
    """Return the track of recorded events, in order from a state on; fill the timeline."""
    recorder = TrackRecorder(name, None, before=before, timeline=timeline)
    for event in events:
        recorder.add(event)
    return recorder.finish()


def constant_track(timeline: Timeline, symbols: Sequence[str], *, is_on: bool) -> Track:
    """Return the track of a controller that always allows everything, or never anything."""
    track = Track("always on" if is_on else "always off", None)
    track.first_state = ACTIVE if is_on else FROZEN
    throttles = dict.fromkeys(symbols, 1.0 if is_on else 0.0)
    for _ in range(len(timeline)):
        track.states.append(track.first_state)
        track.effective.append(throttles)
        track.in_force.append(throttles)
    return track


def _decide(recorder: TrackRecorder, command: Command, policy: Policy | None) -> None:
    if policy is not None and isinstance(command, AdoptPolicy):
        command = replace(command, policy=policy)
    try:
        events = decide(recorder.state.policy, recorder.state, command)
    except CommandRefused:
        # Under another policy there may be nothing to clear, or nothing that may be unfrozen.
        if not isinstance(command, ApplyOverride | ClearOverride):
            raise
        return
    for event in events:
        recorder.add(event)
