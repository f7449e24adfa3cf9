"""
The writing side of one run: commands in, one atomic append out.

A run's `RunStarted`, and the policy that it adopts, are appended with its first new window, so
that a run which brings nothing new leaves the ledger as it is. Source: DESIGN.md section 1.
"""

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from cli.recorded import RecordedWindows
from domain.commands import (
    AdoptPolicy,
    Command,
    ObserveWindow,
    PassWindows,
    StartRun,
    StopRun,
)
from domain.controller import decide, fold
from domain.events import Event
from domain.windows import NOTHING, WindowReadings, content_hash
from ledger.application import Ledger, StreamState
from ledger.snapshots import is_in_later_block

Watcher = Callable[[StreamState, Sequence[Event], int], None]
"""What is told of an append: the stream after it, its events, and when it was, in ms UTC."""


class Session:
    """
    One run on one stream.

    Raises:
        CommandRefused: if the run or its policy isn't allowed; nothing was written then.
    """

    def __init__(
        self, ledger: Ledger, stream: StreamState, start: StartRun, adoption: AdoptPolicy
    ) -> None:
        self.stream = stream
        self.start = start
        self.is_started = False
        self._ledger = ledger
        self._watchers: list[Watcher] = []
        self._adoption: AdoptPolicy | None = adoption
        self._recorded = RecordedWindows(ledger, stream.id)
        self._snapshot_version = stream.version
        self._missing_snapshots = ledger.fill_in_snapshots(stream.id, up_to=stream.version)
        self._decide([start, replace(adoption, window=stream.state.next_window or 0)])

    def watch(self, watcher: Watcher) -> None:
        """Have a watcher called after each append, in the order of the appends."""
        self._watchers.append(watcher)

    def is_new(self, window: int) -> bool:
        """Return whether the ledger doesn't account for a window yet."""
        last = self.stream.state.window
        return last is None or window > last

    def observe(self, readings: WindowReadings, *, decided_at_ms: int) -> list[Event]:
        """Decide a window and append what follows; return it, [] if the window was known."""
        if not self.is_new(readings.start_ms):
            return self._observe_known(readings, decided_at_ms)
        # Missing windows are passed under the policy in force before, then the new one is adopted.
        commands: list[Command] = [PassWindows(until=readings.start_ms)]
        if self._adoption is not None:
            commands.append(replace(self._adoption, window=readings.start_ms))
        events = self._append([*commands, ObserveWindow(readings=readings)], decided_at_ms)
        self._adoption = None
        return events

    def apply(self, command: Command, *, decided_at_ms: int) -> list[Event]:
        """
        Append what an operator's or a watcher's command causes; return it.

        Raises:
            CommandRefused: if it isn't allowed now.
        """
        if not decide(self.stream.state.policy, self.stream.state, command):
            return []
        return self._append([command], decided_at_ms)

    def stop(self, reason: str, *, at_ms: int) -> None:
        """Append the run's end, if the run was begun."""
        if self.is_started:
            stop = StopRun(run_id=self.start.run_id, reason=reason, at_ms=at_ms)
            self._append([stop], at_ms)

    def snapshot_if_due(self) -> None:
        """
        Store the fold if a block of versions is over, else one that earlier runs didn't store.

        Called between windows, never in one.
        """
        if is_in_later_block(self.stream.version, self._snapshot_version):
            self.snapshot()
        else:
            next(self._missing_snapshots, None)

    def snapshot(self) -> None:
        """Store the fold, if anything came since the last one."""
        if self.stream.version > self._snapshot_version:
            self._ledger.take_state_snapshot(self.stream)
            self._snapshot_version = self.stream.version

    def _observe_known(self, readings: WindowReadings, decided_at_ms: int) -> list[Event]:
        state = self.stream.state
        window = readings.start_ms
        recorded = self._recorded.find(window)
        symbols = state.symbol_names if recorded is None else recorded.symbols
        arrived = {symbol: readings.symbols.get(symbol, NOTHING) for symbol in symbols}
        content = content_hash(window, arrived)
        if recorded is not None and content == recorded.content:
            return []
        command = ObserveWindow(
            readings=readings,
            recorded_content=None if recorded is None else recorded.content,
            recorded_symbols=None if recorded is None else recorded.symbols,
            known_late=self._recorded.is_known_late(window, content),
        )
        if not decide(state.policy, state, command):
            return []
        self._recorded.add_late(window, content)
        return self._append([command], decided_at_ms)

    def _append(self, commands: Sequence[Command], decided_at_ms: int) -> list[Event]:
        begin = [] if self.is_started else [self.start]
        events = self._decide([*begin, *commands])
        self.stream = self._ledger.append(self.stream, events, decided_at_ms=decided_at_ms)
        self.is_started = True
        for watch in self._watchers:
            watch(self.stream, events, decided_at_ms)
        return events

    def _decide(self, commands: Sequence[Command]) -> list[Event]:
        """Return the events of several commands, each decided under the policy then in force."""
        state = self.stream.state
        events: list[Event] = []
        for command in commands:
            new = decide(state.policy, state, command)
            state = fold(state, new)
            events += new
        return events
