"""
Delivery to one target: a daemon thread that hands messages over, and tries again.

Nobody waits for it: a service that hangs keeps its own thread and nothing else. What waits is
bounded, and so is how long anything but CRIT is tried. Source: DECISIONS.md 58.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from projections.notify_messages import Message, Severity

WAITING_MAX: Final = 100
"""How many messages may wait for one target; the oldest are given up beyond that."""

PAUSE_SEC_FIRST: Final = 1.0
PAUSE_SEC_MAX: Final = 600.0
GIVEN_UP_AFTER_MS: Final = 3_600_000
"""How old a message that isn't CRIT may be for a failed attempt to be tried again."""

Send = Callable[[str, str, Severity], bool]
"""Hands a title, a text and its severity to a service; returns whether that took it."""


class Parcel:
    """A message on its way to one target, since when, and how often it was tried."""

    def __init__(self, message: Message, *, may_repeat: bool, queued_ms: int) -> None:
        self.message = message
        self.may_repeat = may_repeat
        self.since_ms = queued_ms if message.decided_at_ms is None else message.decided_at_ms
        self.attempts = 0


class Result(msgspec.Struct, frozen=True):
    """What became of a message: delivered, or given up for a reason."""

    message: Message
    attempts: int
    given_up: str | None = None


class Tally(NamedTuple):
    """Where a courier stands. `failed` counts attempts; `oldest` is the first that waits."""

    waiting: int
    failed: int
    is_failing: bool
    oldest: Message | None


Write = Callable[[Message, bool], tuple[str, str]]
"""Returns a message's title and text as they are now, given whether it may be a repeat."""


class Courier:
    """
    Delivers to one target, in the order of the messages.

    A message that the target doesn't take keeps the next ones back, so that an end is never told
    before its beginning; but the newest CRIT is tried beside it: one that the service refuses for
    what it is must not hide a freeze.

    Args:
        name: the target's, without a secret.
        write: called on the courier's thread.
        now_ms: the wall clock.
    """

    def __init__(self, name: str, send: Send, write: Write, now_ms: Callable[[], int]) -> None:
        self.name = name
        self._send = send
        self._write = write
        self._now_ms = now_ms
        self._changed = threading.Condition()
        self._parcels: deque[Parcel] = deque()
        self._results: list[Result] = []
        self._failed = 0
        self._pause_sec = 0.0
        self._due_sec = 0.0
        self._is_urgent = False
        self._is_trying = False
        threading.Thread(target=self._work, name=f"notify {name}", daemon=True).start()

    def take(self, messages: Sequence[Message], *, may_repeat: bool = False) -> None:
        """Queue messages; a CRIT among them is reason to try at once."""
        queued_ms = self._now_ms()
        with self._changed:
            for message in messages:
                self._parcels.append(Parcel(message, may_repeat=may_repeat, queued_ms=queued_ms))
                self._is_urgent |= message.severity is Severity.CRIT
            while len(self._parcels) > WAITING_MAX:
                self._settle(self._least(), f"more than {WAITING_MAX} were waiting")
            self._changed.notify()

    def put_first(self, message: Message) -> None:
        """Queue a message before all others, and try at once."""
        parcel = Parcel(message, may_repeat=False, queued_ms=self._now_ms())
        with self._changed:
            self._parcels.appendleft(parcel)
        self.hurry()

    def hurry(self) -> None:
        """Try at once whatever waits, whenever it was tried last."""
        with self._changed:
            self._is_urgent = True
            self._changed.notify()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, or what waits was tried in vain since it was hurried."""
        with self._changed:
            return not self._parcels or not (self._is_urgent or self._is_trying)

    def results(self) -> list[Result]:
        """Return what messages came to since the last call."""
        with self._changed:
            results, self._results = self._results, []
        return results

    def waiting(self) -> list[Message]:
        """Return what hasn't come to anything yet, results that nobody fetched included."""
        with self._changed:
            unfetched = [result.message for result in self._results]
            return unfetched + [parcel.message for parcel in self._parcels]

    def tally(self) -> Tally:
        """Return where it stands."""
        with self._changed:
            oldest = self._parcels[0].message if self._parcels else None
            return Tally(len(self._parcels), self._failed, self._pause_sec > 0, oldest)

    def _work(self) -> None:
        while True:
            parcel = self._await()
            if not self._try(parcel):
                newest = self._newest_crit_but(parcel)
                if newest is None or not self._try(newest):
                    self._pause()
            with self._changed:
                self._is_trying = False

    def _await(self) -> Parcel:
        """Return the first message as soon as it is due."""
        with self._changed:
            while not (self._parcels and (self._is_urgent or self._left_sec() <= 0)):
                self._changed.wait(self._left_sec() if self._parcels else None)
            self._is_urgent, self._is_trying = False, True
            return self._parcels[0]

    def _left_sec(self) -> float:
        return self._due_sec - time.monotonic()

    def _try(self, parcel: Parcel) -> bool:
        """Hand one message over, without the lock: it may take as long as it takes."""
        title, body = self._write(parcel.message, parcel.may_repeat or parcel.attempts > 0)
        parcel.attempts += 1
        is_sent = self._send(title, body, parcel.message.severity)
        with self._changed:
            if is_sent:
                self._pause_sec, self._due_sec = 0.0, 0.0
                self._settle(parcel, None)
                return True
            self._failed += 1
            if self._is_too_old(parcel):
                minutes = GIVEN_UP_AFTER_MS // 60_000
                self._settle(parcel, f"it couldn't be delivered for over {minutes} minutes")
            return False

    def _pause(self) -> None:
        with self._changed:
            self._pause_sec = min(max(PAUSE_SEC_FIRST, 2 * self._pause_sec), PAUSE_SEC_MAX)
            self._due_sec = time.monotonic() + self._pause_sec

    def _newest_crit_but(self, parcel: Parcel) -> Parcel | None:
        with self._changed:
            for other in reversed(self._parcels):
                if other.message.severity is Severity.CRIT:
                    return None if other is parcel else other
        return None

    def _least(self) -> Parcel:
        """Return what is given up first: the oldest, of those that aren't CRIT if there is one."""
        lesser = (each for each in self._parcels if each.message.severity is not Severity.CRIT)
        return next(lesser, self._parcels[0])

    def _is_too_old(self, parcel: Parcel) -> bool:
        if parcel.message.severity is Severity.CRIT:
            return False
        return self._now_ms() - parcel.since_ms > GIVEN_UP_AFTER_MS

    def _settle(self, parcel: Parcel, given_up: str | None) -> None:
        # It may have been given up while it was under way; what was noted first stands.
        if parcel in self._parcels:
            self._parcels.remove(parcel)
            self._results.append(Result(parcel.message, parcel.attempts, given_up))
