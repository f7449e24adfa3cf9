"""
The run loops: over windows that are all there, and along the clock.

A window's steps are append, publish, artifacts, in this order: what is put out was recorded first.
Source: DESIGN.md section 1, Windows, Gaps, duplicates, late windows, clocks; section 4, `live run`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from cli.account import count_decided, tell
from cli.attendant import Attendant
from cli.clock import SystemClock, due_window, is_missed, window_at
from cli.metering import NO_METER, Meter
from cli.outputs import Outputs
from cli.service import NO_MANAGER, ServiceManager
from cli.session import Session
from cli.shadowing import NO_SHADOWS, Shadows
from domain.commands import ObserveClock
from domain.errors import LedgerDamaged
from domain.events import Event
from domain.windows import WindowReadings
from feeds.base import LiveFeed

ARTIFACTS_EVERY_MS: Final = 1_000
"""How often a run that outpaces the clock renews what it puts out."""

ATTEND_EVERY_MS: Final = 250
"""How often a run that waits for nothing looks at what operators ask."""


class Outcome(NamedTuple):
    """What a run came to: windows read, windows decided, whether a signal ended it."""

    windows: int
    decided: int
    stopped: bool


class Runner:
    """Drives a session, puts out what it decides, and tells what happened."""

    def __init__(
        self,
        session: Session,
        outputs: Outputs,
        attendant: Attendant,
        clock: SystemClock,
        say: Callable[[str], None],
        meter: Meter = NO_METER,
        shadows: Shadows = NO_SHADOWS,
        manager: ServiceManager = NO_MANAGER,
    ) -> None:
        self._session = session
        self._outputs = outputs
        self._attendant = attendant
        self._clock = clock
        self._say = say
        self._meter = meter
        self._shadows = shadows
        self._manager = manager
        self._outputs_due_ms = 0
        self._attend_due_ms = 0
        self._unpublished: list[Event] = []
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
            series: the windows, in order.
            iterations: how many windows to read at most; 0 for all.
            speed: windows' time over wall time; None for no waiting.
            interval_ms: a window's length.
        """
        windows, first_ms, began_ms = 0, 0, 0
        with self._failing_closed():
            self._begin()
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
                self._meter.sampled(readings.start_ms + interval_ms)
                with self._meter.window():
                    self._observe(readings)
                    now_ms = self._clock.now_ms()
                    if now_ms >= self._outputs_due_ms:
                        self._outputs.begin_window()
                        self._put_out()
                if now_ms >= self._attend_due_ms:
                    self._attend(now_ms)
                self._session.snapshot_if_due()
            return self._end(windows)

    def run_live(self, feed: LiveFeed, *, iterations: int, interval_ms: int) -> Outcome:
        """
        Decide each window when it is over, by the clock; 0 iterations is for ever.

        A window that isn't decided within one interval of its end is left to be a gap.
        """
        windows = 0
        with self._failing_closed():
            self._begin()
            while not self._clock.stop.is_set() and (not iterations or windows < iterations):
                window = self._await_window(feed, interval_ms)
                if window is None:
                    continue
                windows += 1
                with self._meter.window():
                    if self._outputs.begin_window():
                        self._put_out()
                    readings = feed.collect(window, window + interval_ms)
                    self._meter.sampled(feed.newest_ms)
                    self._observe(readings)
                    self._put_out()
                self._session.snapshot_if_due()
            return self._end(windows)

    def _await_window(self, feed: LiveFeed, interval_ms: int) -> int | None:
        """Return the window that is over and due; None if the caller must look again."""
        now_ms = self._clock.now_ms()
        behind = ObserveClock(window=window_at(now_ms, interval_ms))
        if self._note(self._session.apply(behind, decided_at_ms=now_ms)):
            self._put_out()
        window = due_window(now_ms, interval_ms, self._session.stream.state.next_window)

        def attend(now_ms: int) -> None:
            feed.poll(now_ms)
            for notice in feed.notices():
                self._say(notice)
            self._attend(now_ms)

        if not self._clock.sleep_until(window + interval_ms + feed.lateness_ms, attend):
            return None
        return None if is_missed(self._clock.now_ms(), window, interval_ms) else window

    def _wait_until(self, time_ms: int) -> None:
        while not self._clock.stop.is_set() and not self._clock.sleep_until(time_ms, self._attend):
            pass

    def _attend(self, now_ms: int) -> None:
        """
        See to operators' requests; each is answered when what it led to is put out.

        A service manager hears from here that the loop goes round: from no thread, which would go
        on while the loop hangs.
        """
        self._manager.alive()
        appended = self._note(self._attendant.attend(now_ms))
        settled = self._attendant.settled
        if appended:
            self._outputs.hurry()
        ended = self._outputs.end_holds(settled)
        if appended:
            self._put_out()
        self._attendant.answer(ended)
        # Whoever lost patience just now may have set the hold since, and not seen the answer.
        self._outputs.end_holds(settled)
        self._notify()
        self._shadows.catch_up()
        self._attend_due_ms = now_ms + ATTEND_EVERY_MS

    def _observe(self, readings: WindowReadings) -> None:
        now_ms = self._clock.now_ms()
        events = self._session.observe(readings, decided_at_ms=now_ms)
        for report in self._outputs.disobeyed(readings):
            events += self._session.apply(report, decided_at_ms=now_ms)
        self._note(events)

    def _note(self, events: list[Event]) -> bool:
        """Keep what was appended until it is put out and told; return whether it was any."""
        self._decided += count_decided(events)
        self._unpublished += events
        return bool(events)

    def _put_out(self) -> None:
        """Put out the ledger's state, which a run that was killed may not have come to."""
        now_ms = self._clock.now_ms()
        events, self._unpublished = self._unpublished, []
        events = events + self._outputs.put_out(events, now_ms=now_ms)
        for line in (*tell(events), *self._outputs.notices()):
            self._say(line)
        self._manager.status(self._standing())
        self._outputs_due_ms = now_ms + ARTIFACTS_EVERY_MS

    def _notify(self) -> None:
        for notice in self._outputs.notify():
            self._say(notice)

    def _begin(self) -> None:
        """Put out what a run that was killed may not have come to, and tell that this one is up."""
        self._put_out()
        self._manager.ready(self._standing())

    def _standing(self) -> str:
        stream = self._session.stream
        state = stream.state
        if state.observed is None:
            return "no window is decided yet"
        return f"{state.trading_state}, throttle {state.throttle:g}, version {stream.version}"

    def _end(self, windows: int) -> Outcome:
        """Append the run's end, renew what is put out and store the fold."""
        self._manager.stopping()
        stopped = self._clock.stop.is_set()
        reason = "stopped by a signal" if stopped else "the windows asked for are decided"
        self._session.stop(reason, at_ms=self._clock.now_ms())
        self._put_out()
        self._outputs.close()
        self._notify()
        self._session.snapshot()
        self._shadows.finish()
        return Outcome(windows, self._decided, stopped)

    @contextmanager
    def _failing_closed(self) -> Iterator[None]:
        """Publish nothing but FROZEN once the ledger can't be written."""
        try:
            yield
        except LedgerDamaged as error:
            self._outputs.publish_fault(str(error))
            raise
