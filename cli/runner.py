"""
The run loops: over windows that are all there, and along the clock.

Source: DESIGN.md section 1, Windows, Gaps, duplicates, late windows, clocks; section 4, `live run`.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

from cli.account import count_decided, tell
from cli.clock import SystemClock, due_window, is_missed, window_at
from cli.session import Session
from domain.events import Event
from domain.windows import WindowReadings
from feeds.base import LiveFeed
from ledger.application import Ledger
from projections.artifacts import write_artifacts

ARTIFACTS_EVERY_MS: Final = 1_000
"""How often a run that outpaces the clock renews the artifacts."""


class Outcome(NamedTuple):
    """What a run came to: windows read, decided, already known or late; why it ended."""

    windows: int
    decided: int
    stopped: bool


class Runner:
    """Feeds a session's decisions to the artifacts, and tells what happened."""

    def __init__(
        self,
        session: Session,
        ledger: Ledger,
        artifacts: Path,
        clock: SystemClock,
        say: Callable[[str], None],
    ) -> None:
        self._session = session
        self._ledger = ledger
        self._artifacts = artifacts
        self._clock = clock
        self._say = say
        self._artifacts_due_ms = 0
        self._decided = 0

    def run_series(
        self,
        series: Iterable[WindowReadings],
        *,
        iterations: int,
        speed: float | None,
        interval_ms: int,
    ) -> Outcome:
        """
        Decide windows that are all there, as fast as can be, or at a multiple of their own pace.

        Args:
            iterations: how many windows to read at most; 0 for all.
            speed: windows' time over wall time; None for no waiting.
        """
        windows, first_ms, began_ms = 0, 0, 0
        for readings in series:
            if self._clock.stop.is_set() or (iterations and windows == iterations):
                break
            if speed is not None and self._session.is_new(readings.start_ms):
                if not first_ms:
                    first_ms, began_ms = readings.start_ms, self._clock.now_ms()
                ended_ms = readings.start_ms + interval_ms - first_ms
                self._wait_until(began_ms + round(ended_ms / speed))
                if self._clock.stop.is_set():
                    break
            windows += 1
            self._observe(readings)
            if self._clock.now_ms() >= self._artifacts_due_ms:
                self._write_artifacts()
        return self._end(windows)

    def run_live(self, feed: LiveFeed, *, iterations: int, interval_ms: int) -> Outcome:
        """
        Decide each window when it is over, by the clock; 0 iterations is for ever.

        A window that isn't decided within one interval of its end is left to be a gap.
        """
        windows = 0
        while not self._clock.stop.is_set() and (not iterations or windows < iterations):
            window = self._await_window(interval_ms)
            if window is None:
                continue
            windows += 1
            self._observe(feed.collect(window, window + interval_ms))
            self._write_artifacts()
            self._session.snapshot_if_due()
        return self._end(windows)

    def _await_window(self, interval_ms: int) -> int | None:
        """Return the window that is over and due; None if the caller must look again."""
        now_ms = self._clock.now_ms()
        self._tell(
            self._session.observe_clock(window_at(now_ms, interval_ms), decided_at_ms=now_ms)
        )
        window = due_window(now_ms, interval_ms, self._session.stream.state.next_window)
        if not self._clock.sleep_until(window + interval_ms):
            return None
        return None if is_missed(self._clock.now_ms(), window, interval_ms) else window

    def _wait_until(self, time_ms: int) -> None:
        while not self._clock.stop.is_set() and not self._clock.sleep_until(time_ms):
            pass

    def _observe(self, readings: WindowReadings) -> None:
        self._tell(self._session.observe(readings, decided_at_ms=self._clock.now_ms()))

    def _tell(self, events: list[Event]) -> None:
        self._decided += count_decided(events)
        for line in tell(events):
            self._say(line)

    def _write_artifacts(self) -> None:
        write_artifacts(self._ledger, self._session.stream, self._artifacts)
        self._artifacts_due_ms = self._clock.now_ms() + ARTIFACTS_EVERY_MS

    def _end(self, windows: int) -> Outcome:
        """Append the run's end, renew the artifacts and store the fold."""
        stopped = self._clock.stop.is_set()
        reason = "stopped by a signal" if stopped else "the windows asked for are decided"
        self._session.stop(reason, at_ms=self._clock.now_ms())
        if self._session.stream.state.observed is not None:
            self._write_artifacts()
        self._session.snapshot()
        return Outcome(windows, self._decided, stopped)
