"""
Replay: the same core that decides live decides again, one row a window.

Source: DESIGN.md section 4, `live replay`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from domain.commands import ApplyOverride, ClearOverride, Command
from domain.controller import decide, fold
from domain.errors import CommandRefused
from domain.events import GapObserved, KpiObserved, TradingState
from domain.state import State
from domain.windows import format_time

_NEW: Final = State()


class ReplayedWindow(msgspec.Struct, frozen=True):
    """
    The controller after one window, or after one gap.

    Attributes:
        window: the start, ISO, UTC; a gap's is that of its first window.
        gap: whether nobody decided it.
        windows: how many windows a gap stands for; only a gap has it.
        state, throttle, reasons, triggered_by: the global state then and its cause.
        per_symbol_throttle, effective_throttle: by symbol.
    """

    window: str
    gap: bool
    state: TradingState
    throttle: float
    reasons: tuple[str, ...]
    triggered_by: str | None
    per_symbol_throttle: dict[str, float]
    effective_throttle: dict[str, float]
    windows: int | msgspec.UnsetType = msgspec.UNSET


def replay(commands: Iterable[Command], before: State = _NEW) -> Iterator[ReplayedWindow]:
    """
    Yield the controller after every window and every gap that the commands lead to.

    Args:
        commands: what the core is told.
        before: the state that they begin in.

    An override that the replayed state doesn't allow is left out: under another policy there may
    be nothing to clear.
    """
    state = before
    for command in commands:
        try:
            events = decide(state.policy, state, command)
        except CommandRefused:
            if not isinstance(command, ApplyOverride | ClearOverride):
                raise
            continue
        state = fold(state, events)
        for event in events:
            if isinstance(event, KpiObserved | GapObserved):
                yield row_after(state, event)


def row_after(state: State, event: KpiObserved | GapObserved) -> ReplayedWindow:
    """Return the controller after a window or a gap; `state` is what its events led to."""
    return ReplayedWindow(
        window=format_time(event.window),
        gap=isinstance(event, GapObserved),
        state=state.trading_state,
        throttle=state.throttle,
        reasons=state.reasons,
        triggered_by=state.triggered_by,
        per_symbol_throttle=state.per_symbol_throttles(),
        effective_throttle=state.effective_throttles(),
        windows=event.windows if isinstance(event, GapObserved) else msgspec.UNSET,
    )


class ReplaySummary:
    """
    What a replay came to: windows per state, gaps, transitions, the first freeze.

    Args:
        before: the state that it began in.
    """

    def __init__(self, before: TradingState = TradingState.ACTIVE) -> None:
        self._state = before
        self.windows_in: Counter[TradingState] = Counter()
        self.windows = 0
        self.gaps = 0
        self.gap_windows = 0
        self.transitions = 0
        self.first: ReplayedWindow | None = None
        self.last: ReplayedWindow | None = None
        self.first_freeze: ReplayedWindow | None = None

    def add(self, row: ReplayedWindow) -> None:
        """Count one row; rows come in order."""
        if isinstance(row.windows, int):
            self.windows_in[row.state] += row.windows
            self.gaps += 1
            self.gap_windows += row.windows
        else:
            self.windows_in[row.state] += 1
            self.windows += 1
        is_transition = row.state is not self._state
        self.transitions += is_transition
        if is_transition and row.state is TradingState.FROZEN and self.first_freeze is None:
            self.first_freeze = row
        self.first = self.first or row
        self.last = row
        self._state = row.state
