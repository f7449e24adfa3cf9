"""
Redis as feeds ask it: a question that isn't answered is no data, and never raises anything else.

Source: DESIGN.md section 5; issue 3, Feeds.
"""

import time
from collections.abc import Callable
from typing import Final, TypeVar

import redis
from redis.exceptions import TimeoutError as RedisTimeout

from redis_link.client import BoundedRedis

# Those after the first two are what redis-py raises on the answers of a server that isn't Redis.
_ERRORS: Final = (
    redis.RedisError, OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError,
)  # fmt: skip
_REASON_MAX: Final = 160
_NOTICES_MAX: Final = 100
_QUICK_SEC: Final = 0.1
_RETRY_MS: Final = 1_000

Answer = TypeVar("Answer")


class RedisAway(Exception):
    """
    Redis didn't answer in time, or not what was asked for; the text holds no secret.

    `is_slow` tells that it was asked, and took too long.
    """

    def __init__(self, reason: str, *, is_slow: bool = False) -> None:
        super().__init__(reason)
        self.is_slow = is_slow


def ask(client: BoundedRedis, question: Callable[[BoundedRedis], Answer]) -> Answer:
    """
    Return the answer.

    Raises:
        RedisAway: if there was none within the timeout, or it was an error.
    """
    try:
        with client.reading():
            return question(client)
    except (RedisTimeout, TimeoutError):
        client.connection_pool.disconnect()
        raise RedisAway(client.missed, is_slow=True) from None
    except redis.ResponseError as error:
        raise RedisAway(reason(client, error)) from None
    except _ERRORS as error:
        # What is left of an answer that can't be read must not pass for the next one.
        client.connection_pool.disconnect()
        raise RedisAway(reason(client, error)) from None


def reason(client: BoundedRedis, error: BaseException) -> str:
    """Return what an error says, in one line, short and without secrets."""
    text = client.scrub(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= _REASON_MAX else f"{text[:_REASON_MAX]}..."


class Notices:
    """What is to be said, each kind of it once; an outage once when it begins and when it ends."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._waiting: list[str] = []
        self._said: set[str] = set()
        self.is_out = False
        self._retry_ms: int | None = None

    def say(self, text: str) -> None:
        """Say something now; what nobody takes in time is let go of."""
        if len(self._waiting) < _NOTICES_MAX:
            self._waiting.append(text)

    def say_once(self, kind: str, text: str) -> None:
        """Say something unless something of its kind was said before."""
        if kind not in self._said and len(self._said) < _NOTICES_MAX:
            self._said.add(kind)
            self.say(text)

    def forget(self, kind: str) -> None:
        """Let a kind be said again: what it was about has passed."""
        self._said.discard(kind)

    def out(self, reason: str, *, now_ms: int | None = None, took_sec: float = 0.0) -> None:
        """Say that an outage begins; it may be looked into between windows if that costs little."""
        if not self.is_out:
            self.say(f"{self._server}: {reason}; no data until it is back")
        self.is_out = True
        cheap = now_ms is not None and took_sec < _QUICK_SEC
        self._retry_ms = now_ms + _RETRY_MS if cheap and now_ms is not None else None

    def back(self) -> None:
        """Say that an outage is over."""
        if self.is_out:
            self.say(f"{self._server}: back")
        self.is_out = False

    def may_try(self, now_ms: int) -> bool:
        """Return whether to ask while a window is passing."""
        return not self.is_out or (self._retry_ms is not None and now_ms >= self._retry_ms)

    def take(self) -> list[str]:
        """Return what is to be said since the last call."""
        waiting, self._waiting = self._waiting, []
        return waiting


class Stopwatch:
    """Seconds since it was made, by the monotonic clock."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    @property
    def sec(self) -> float:
        """How long it has been."""
        return time.monotonic() - self._since
