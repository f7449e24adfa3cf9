"""
The clock, and which window is due by it.

Boundaries are computed from the epoch each time, so nothing drifts. A sleep is cut into short
pieces in which the wall clock is held against the monotonic one: a step of the clock, or a process
that was stopped, is noticed at once. Source: DESIGN.md section 1, Windows; Gaps.
"""

import time
from collections.abc import Callable
from typing import Final

SLICE_SEC: Final = 0.25
NOTICE_SEC: Final = 0.05
STEP_MS: Final = 1_000
"""How far the two clocks may part within one slice before it counts as a step."""


class StopFlag:
    """
    What a signal's handler may set while the same thread waits for it.

    A `threading.Event` may not: its lock isn't reentrant, so that a signal which comes just when
    `wait` holds it waits for itself for ever. Nor is a queue safe: `SimpleQueue.get` loses its
    timeout if that runs out before the wait has begun.
    """

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """Set it; a wait under way ends within `NOTICE_SEC`."""
        self._is_set = True

    def is_set(self) -> bool:
        """Return whether it was ever set."""
        return self._is_set

    def wait(self, timeout_sec: float) -> None:
        """Return when it is set, or the time is over."""
        ends_sec = time.monotonic() + timeout_sec
        while not self._is_set and (left_sec := ends_sec - time.monotonic()) > 0:
            time.sleep(min(left_sec, NOTICE_SEC))


class SystemClock:
    """Wall clock and sleep, ended early by a stop."""

    def __init__(self) -> None:
        self.stop = StopFlag()

    def now_ms(self) -> int:
        """Return milliseconds since the epoch, UTC."""
        return time.time_ns() // 1_000_000

    def sleep_until(self, time_ms: int, attend: Callable[[int], None] | None = None) -> bool:
        """
        Sleep until the wall clock shows a time.

        Args:
            time_ms: the time to wait for.
            attend: called with the time before each piece of sleep, at least once.

        Returns:
            Whether it does now: False after a stop or a step of the clock, when the caller must
            look again.
        """
        while not self.stop.is_set():
            before_ms, before_sec = self.now_ms(), time.monotonic()
            if attend is not None:
                attend(before_ms)
            left_ms = time_ms - self.now_ms()
            if left_ms <= 0:
                return True
            self.stop.wait(min(left_ms / 1000, SLICE_SEC))
            elapsed_ms = (time.monotonic() - before_sec) * 1000
            if abs(self.now_ms() - before_ms - elapsed_ms) > STEP_MS:
                return False
        return False


def window_at(time_ms: int, interval_ms: int) -> int:
    """Return the start of the window that a time lies in."""
    return time_ms - time_ms % interval_ms


def due_window(now_ms: int, interval_ms: int, next_window: int | None) -> int:
    """
    Return the start of the window to decide next.

    That is the latest one that is over, if the ledger doesn't account for it yet, else the one
    that comes after what it accounts for; in a new ledger the one under way.

    Args:
        next_window: the first window that the ledger doesn't account for, None if it has none.
    """
    under_way = window_at(now_ms, interval_ms)
    return under_way if next_window is None else max(under_way - interval_ms, next_window)


def is_missed(now_ms: int, window: int, interval_ms: int) -> bool:
    """Return whether a window can't be decided any more within one interval of its end."""
    return now_ms >= window + 2 * interval_ms
