"""
Redis as feeds ask it: one question at a time, each within one timeout, and none asked twice.

redis-py's own timeouts are for one piece of the conversation: a name that doesn't resolve, or a
server that sends a byte now and then, goes past them. So a question is asked in a thread of its
own; one that isn't answered in time is abandoned together with its connection.

Source: DESIGN.md section 5; FIELD_NOTES.md, redis-py.
"""

import concurrent.futures
import re
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from domain.errors import BadInput

TIMEOUT_SEC: Final = 0.5

# Those after the first two are what redis-py raises on the answers of a server that isn't Redis.
_ERRORS: Final = (
    redis.RedisError, OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError,
)  # fmt: skip
_REASON_MAX: Final = 160
_NOTICES_MAX: Final = 100
_QUICK_SEC: Final = 0.1
_RETRY_MS: Final = 1_000
_PATH: Final = re.compile(r"(/\d*)?")

# What bounds a question and decodes its answer is not for the URL to say.
_OURS: Final = (
    "socket_timeout", "socket_connect_timeout", "timeout", "retry_on_timeout", "retry_on_error",
    "health_check_interval", "protocol", "legacy_responses", "decode_responses", "encoding",
    "encoding_errors", "max_connections",
)  # fmt: skip

Answer = TypeVar("Answer")


class RedisAway(Exception):
    """Redis didn't answer in time, or not what was asked for; the text holds no secret."""


class BoundedRedis:
    """
    A client whose every question takes one timeout at most, and is never repeated.

    Attributes:
        timeout_sec: that timeout.
    """

    def __init__(self, url: str, *, timeout_sec: float = TIMEOUT_SEC) -> None:
        """
        Take the address; nothing is connected before the first question.

        Args:
            url: `redis://`, `rediss://` or `unix://`, with a username and a password if need be.
            timeout_sec: for all of a question: the name, the connection, TLS, the answer.

        Raises:
            BadInput: if the URL is none, or has an option that isn't known. It shows no URL.
        """
        self._options = _options_of(url, timeout_sec)
        self._secrets = _secrets_of(url, self._options)
        self.timeout_sec = timeout_sec
        self._asked: concurrent.futures.Future[Any] | None = None
        self._client = self._asked_client = self._make_client()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="redis-feed")

    @property
    def place(self) -> str:
        """Host, port and database: `127.0.0.1:6379/0`."""
        if "path" in self._options:
            return "unix socket"
        host = self._options.get("host", "localhost")
        port = self._options.get("port", 6379)
        return f"{host}:{port}/{self._options.get('db', 0)}"

    def ask(self, question: Callable[[redis.Redis], Answer]) -> Answer:
        """
        Return the answer.

        Raises:
            RedisAway: if there was none within the timeout, or it was an error.
        """
        watch = Stopwatch()
        self._end_question()
        asked: concurrent.futures.Future[Answer] = self._thread.submit(question, self._client)
        self._asked, self._asked_client = asked, self._client
        try:
            return asked.result(self.timeout_sec - watch.sec)
        except (redis.TimeoutError, TimeoutError):
            self._drop_client()
            raise RedisAway(f"no answer within {self.timeout_sec:g} s") from None
        except redis.ResponseError as error:
            raise RedisAway(self.reason(error)) from None
        except _ERRORS as error:
            self._drop_client()
            raise RedisAway(self.reason(error)) from None

    def reason(self, error: BaseException) -> str:
        """Return what an error says, in one line, short and without secrets."""
        text = " ".join(str(error).split()) or type(error).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text if len(text) <= _REASON_MAX else f"{text[:_REASON_MAX]}..."

    def close(self) -> None:
        """Let go of the connection; a question under way ends with it."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._asked_client.connection_pool.disconnect()
        self._client.connection_pool.disconnect()

    def _end_question(self) -> None:
        """Wait for the end of a question that was abandoned."""
        if self._asked is None or self._asked.done():
            return
        # It may have connected only after it was hung up on.
        self._asked_client.connection_pool.disconnect()
        concurrent.futures.wait([self._asked], self.timeout_sec)
        if not self._asked.done():
            # Looking up a name is the one thing that can't be interrupted.
            raise RedisAway("an earlier question is still unanswered")

    def _drop_client(self) -> None:
        # Whoever still waits on the old connections is woken; a new client shares nothing of it.
        dropped, self._client = self._client, self._make_client()
        dropped.connection_pool.disconnect()

    def _make_client(self) -> redis.Redis:
        pool = redis.ConnectionPool(**self._options)
        try:
            pool.make_connection()
        except (TypeError, ValueError, redis.RedisError):
            names = ", ".join(sorted(set(self._options) - _KNOWN_WITHOUT_QUERY))
            problem = "an option of its query isn't known, or has a value it can't have"
            raise BadInput(f"Redis URL: {problem}; it has {names or 'none'}") from None
        return redis.Redis(connection_pool=pool)


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


_KNOWN_WITHOUT_QUERY: Final = {
    *_OURS, "host", "port", "db", "path", "username", "password", "connection_class", "retry",
}  # fmt: skip


def _options_of(url: str, timeout_sec: float) -> dict[str, Any]:
    try:
        _check_parts(url)
        options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError):
        # The message of a URL that doesn't parse may quote a piece of a password.
        expected = "redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH"
        raise BadInput(
            f"Redis URL: expected {expected}, was malformed; "
            "write / : @ ? # % in a password as %2F %3A %40 %3F %23 %25"
        ) from None
    for name in _OURS:
        options.pop(name, None)
    return options | {
        "socket_timeout": timeout_sec,
        "socket_connect_timeout": timeout_sec,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        # The older protocol greets with no question of its own and has no notifications.
        "protocol": 2,
        "decode_responses": True,
        "encoding_errors": "replace",
    }


def _check_parts(url: str) -> None:
    # What redis-py takes without a word: a password with # or ? in it, cut off there.
    parts = urlsplit(url)
    parse_qsl(parts.query, strict_parsing=bool(parts.query))
    (parts.hostname or "").encode("idna")
    if parts.fragment or (parts.scheme != "unix" and not _PATH.fullmatch(parts.path)):
        raise ValueError("expected a number as path, and no fragment")


def _secrets_of(url: str, options: dict[str, Any]) -> list[str]:
    parts = urlsplit(url)
    found = {parts.username, parts.password, options.get("username"), options.get("password")}
    known = {text for text in found if text}
    return sorted(known | {unquote(text) for text in known}, key=len, reverse=True)
