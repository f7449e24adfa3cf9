"""Random series for the kernel, and what the core makes of them."""

from collections.abc import Iterable
from typing import NamedTuple

from decider_spec import MINUTE_MS, START_MS, profile
from hypothesis import strategies as st
from random_stories import NAMES, Gap, Window

from domain.commands import Command
from domain.controller import decide, fold
from domain.events import GapObserved, KpiObserved, RampProfile, TradingState
from domain.kernel.decisions import Decisions
from domain.kernel.series import Series
from domain.policy import Policy
from domain.state import State
from domain.windows import WindowReadings
from replay.commands import commands_of_windows
from replay.preparing import series_of_windows

STATES = tuple(TradingState)


class Told(NamedTuple):
    """A feed's windows, and for how many symbols."""

    windows: tuple[WindowReadings, ...]
    symbols: tuple[str, ...]
    limit: int

    @property
    def profile(self) -> RampProfile | None:
        return None if self.limit == len(self.symbols) else profile(self.limit)

    @property
    def series(self) -> Series:
        return series_of_windows(
            self.windows, symbols=self.symbols, interval_ms=MINUTE_MS, limit=self.limit
        )


def told(steps: Iterable[Window | Gap], symbols: int, limit: int) -> Told:
    """Return the windows that the steps stand for; gaps before the first are none."""
    names, number = NAMES[:symbols], 0
    windows: list[WindowReadings] = []
    for step in steps:
        if isinstance(step, Gap):
            number += step.windows if windows else 0
            continue
        padded = [*step.arrived, *[step.arrived[-1]] * symbols]
        for _ in range(step.times):
            readings = dict(zip(names, padded, strict=False))
            windows.append(WindowReadings(START_MS + number * MINUTE_MS, readings))
            number += 1
    return Told(tuple(windows), names, limit)


class CoreRow(NamedTuple):
    """The core after a window, or after a gap: its last window's number, and what holds."""

    window: int
    state: int
    throttle: float
    triggered_by: str | None
    per_symbol: dict[str, float]
    effective: dict[str, float]


def core_rows(commands: Iterable[Command], start_ms: int, interval_ms: int) -> list[CoreRow]:
    state, rows = State(), []
    for command in commands:
        events = decide(state.policy, state, command)
        state = fold(state, events)
        for event in events:
            if isinstance(event, KpiObserved | GapObserved):
                last = (event.end_ms - start_ms) // interval_ms - 1
                rows.append(row_of(state, last))
    return rows


def row_of(state: State, window: int) -> CoreRow:
    return CoreRow(
        window,
        STATES.index(state.trading_state),
        state.throttle,
        state.triggered_by,
        state.per_symbol_throttles(),
        state.effective_throttles(),
    )


def core_decides(story: Told, policy: Policy) -> list[CoreRow]:
    commands = commands_of_windows(
        story.windows,
        symbols=story.symbols,
        interval_ms=MINUTE_MS,
        policy=policy,
        profile=story.profile,
    )
    return core_rows(commands, START_MS, MINUTE_MS)


def kernel_rows(
    decisions: Decisions, windows: Iterable[int], names: Iterable[str]
) -> list[CoreRow]:
    """Return what the kernel decided, of these windows and symbols, as the core's rows."""
    numbers = {name: decisions.symbols.index(name) for name in names}
    effective = {name: decisions.effective_throttle(at) for name, at in numbers.items()}
    per_symbol = {name: decisions.per_symbol_throttle(at) for name, at in numbers.items()}
    rows = []
    for window in windows:
        trigger = int(decisions.triggered_by[window])
        rows.append(
            CoreRow(
                window,
                int(decisions.state[window]),
                float(decisions.throttle[window]),
                None if trigger < 0 else decisions.symbols[trigger],
                {name: float(throttles[window]) for name, throttles in per_symbol.items()},
                {name: float(throttles[window]) for name, throttles in effective.items()},
            )
        )
    return rows


@st.composite
def shapes(draw: st.DrawFn, /, symbols_max: int = 4) -> tuple[int, int]:
    """Return a number of symbols, and how many of them may trade."""
    symbols = draw(st.integers(1, symbols_max))
    return symbols, draw(st.integers(1, symbols))


def same_rows(ours: list[CoreRow], cores: list[CoreRow]) -> None:
    assert len(ours) == len(cores)
    for mine, theirs in zip(ours, cores, strict=True):
        assert mine == theirs
