"""
How long Redis may be waited for: each exchange, and all of a window that come to nothing.

A server that accepts every connection and never answers must cost a window one timeout, however
many ask it. So what failed exchanges took is subtracted from what is left for the others of that
window; answers, however many, cost nothing of it. Source: issue 3, Redis down.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from redis.exceptions import RedisError

TIMEOUT_SEC: Final = 0.5
ANSWER_MIB_MAX: Final = 64
"""How much an exchange may be answered with: whatever the keys hold, it has to fit in memory."""

ASK_SEC_MIN: Final = 0.05
"""With less than this left nobody is asked: it would only look like another outage."""


class NotAsked(RedisError):
    """The window's budget was spent on a server that doesn't answer; it wasn't asked again."""


class Budget:
    """
    How long failures may still take until it is renewed, which is once a window.

    Args:
        limit_sec: for all of a window.
        kept_sec: what readers leave to publication, so that an answer too long for one window's
            time never keeps FROZEN from being published.
        urgent_sec: what a window's own work leaves to what can't wait for the next one.

    Attributes:
        left_sec: how long failures may take from now on.
    """

    def __init__(
        self, limit_sec: float = TIMEOUT_SEC, *, kept_sec: float = 0.0, urgent_sec: float = 0.0
    ) -> None:
        self._limit_sec = limit_sec
        self._urgent_sec = urgent_sec
        self.kept_sec = kept_sec
        self.renew()

    def renew(self) -> None:
        """Begin another window."""
        self._held_back_sec = self._urgent_sec
        self.left_sec = self._limit_sec - self._urgent_sec

    def urge(self) -> None:
        """Give what is left for urgent things out: an operator's freeze is to be published."""
        self.left_sec += self._held_back_sec
        self._held_back_sec = 0.0

    def spend(self, sec: float) -> None:
        """Subtract what an exchange took that came to nothing."""
        self.left_sec = max(0.0, self.left_sec - sec)


class Deadline:
    """
    When an exchange has to be over. Outside of one, each read or write has the whole timeout.

    Attributes:
        timeout_sec: the most that an exchange takes.
        allowed_sec: how much the present or the last one was given.
        budget: what limits all of a window together; None for nothing.
    """

    def __init__(self, timeout_sec: float, budget: Budget | None = None) -> None:
        self.timeout_sec = timeout_sec
        self.allowed_sec = timeout_sec
        self.budget = budget
        self._bytes_left = 0
        self._ends_sec: float | None = None

    @contextmanager
    def running(self, *, keeping_sec: float = 0.0) -> Iterator[None]:
        """
        Let the time run; within a deadline that runs already, the outer one counts.

        Args:
            keeping_sec: how much of the budget has to be left for others.

        Raises:
            NotAsked: if the budget doesn't suffice.
        """
        if self._ends_sec is not None:
            yield
            return
        self.allowed_sec = self._allowed_sec(keeping_sec)
        self._bytes_left = ANSWER_MIB_MAX << 20
        began_sec = time.monotonic()
        self._ends_sec = began_sec + self.allowed_sec
        try:
            yield
        except BaseException:
            if self.budget is not None:
                self.budget.spend(time.monotonic() - began_sec)
            raise
        finally:
            self._ends_sec = None

    def remaining_sec(self) -> float:
        """Return the seconds left, more than 0; TimeoutError if there are none."""
        if self._ends_sec is None:
            return self.timeout_sec
        remaining = self._ends_sec - time.monotonic()
        if remaining <= 0:
            raise TimeoutError(self.missed)
        return remaining

    def received(self, count: int) -> None:
        """Count what was received; TimeoutError if it is too much."""
        self._bytes_left -= count
        if self._ends_sec is not None and self._bytes_left < 0:
            raise TimeoutError(self.missed)

    @property
    def missed(self) -> str:
        """Why an exchange that took too long did so."""
        if self._bytes_left < 0:
            return f"an answer of over {ANSWER_MIB_MAX} MiB"
        return f"no answer within {self.allowed_sec:.2g} s"

    def _allowed_sec(self, keeping_sec: float) -> float:
        if self.budget is None:
            return self.timeout_sec
        left_sec = self.budget.left_sec - keeping_sec
        if left_sec < min(ASK_SEC_MIN, self.timeout_sec):
            raise NotAsked("not asked again in this window, as it didn't answer before")
        return min(self.timeout_sec, left_sec)
