"""
A client of Redis that asks once, takes bounded time, and keeps its secrets.

redis-py tries again ten times by default; a lost reply then makes a write happen twice. Here every
exchange is made once, and what it comes to is the caller's to judge. Source: FIELD_NOTES.md,
redis-py; DESIGN.md section 3, Redis.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, cast

from redis import ConnectionPool, Redis
from redis._parsers import _HiredisParser
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse, NoScriptError, RedisError
from redis.retry import Retry

from redis_link.budget import TIMEOUT_SEC, Budget, Deadline
from redis_link.connection import CONNECTION_CLASSES
from redis_link.url import RedisUrl, parse_redis_url

_SECRET_CHARS_MIN: Final = 4
"""A shorter secret can't be told from ordinary text: what might hold it isn't shown at all."""


class Script:
    """A Lua script, which the server may know by its hash."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class BoundedRedis(Redis):
    """
    A client whose commands each take at most its timeout, and whose errors hold no secret.

    Attributes:
        place: where the server is, without secrets: `127.0.0.1:6379/0`, `unix socket`.
    """

    def __init__(self, pool: ConnectionPool, deadline: Deadline, url: RedisUrl) -> None:
        super().__init__(connection_pool=pool)
        self.auto_close_connection_pool = True
        self.place = url.place
        self._deadline = deadline
        secrets = {form for told in url.secrets for form in (told, repr(told)[1:-1]) if form}
        self._secrets = sorted(secrets, key=len, reverse=True)

    @property
    def missed(self) -> str:
        """Why the last exchange took too long, if it did: in time, or in bytes."""
        return self._deadline.missed

    def bounded(self) -> AbstractContextManager[None]:
        """Let all commands within take at most the timeout together."""
        return self._deadline.running()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """As `bounded`, but leave that part of the window's budget which publication has."""
        budget = self._deadline.budget
        with self._deadline.running(keeping_sec=0.0 if budget is None else budget.kept_sec):
            yield

    def renew_budget(self) -> None:
        """Begin another window: a server that didn't answer in the last one may be asked again."""
        if self._deadline.budget is not None:
            self._deadline.budget.renew()

    def urge_budget(self) -> None:
        """Let what comes now have what is kept for urgent things of the window's budget."""
        if self._deadline.budget is not None:
            self._deadline.budget.urge()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """
        Return the command's answer.

        Raises:
            RedisError: told without secrets; also where the answer is no Redis protocol.
        """
        try:
            with self._deadline.running():
                return cast("Any", super()).execute_command(*args, **options)
        except RedisError as error:
            error.args = tuple(self.scrub(str(arg)) for arg in error.args)
            raise
        except (ValueError, RecursionError):
            raise InvalidResponse("the answer is no Redis protocol") from None

    def run(self, script: Script, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        """Return a script's answer; the server is sent its text only if it doesn't know it."""
        with self._deadline.running():
            try:
                return self.evalsha(script.sha, len(keys), *keys, *args)
            except NoScriptError:
                return self.eval(script.text, len(keys), *keys, *args)

    def scrub(self, text: str) -> str:
        """Return the text without the password and whatever else is secret in the URL."""
        for secret in self._secrets:
            if secret in text:
                if len(secret) < _SECRET_CHARS_MIN:
                    return "(not shown: it may hold the password)"
                text = text.replace(secret, "***")
        return text


def open_redis(
    url: str,
    *,
    env: str,
    timeout_sec: float = TIMEOUT_SEC,
    source: str = "--redis-url",
    budget: Budget | None = None,
) -> BoundedRedis:
    """
    Return a client for a `redis://`, `rediss://` or `unix://` URL; it connects with its first use.

    Args:
        env: in `prod`, a URL that switches certificate checks off is refused.
        timeout_sec: the most that one command takes, connecting included.
        source: where the URL came from, for the errors.
        budget: what failed exchanges may take in a window, all together; None for no such limit.

    Raises:
        BadInput: if the URL isn't one, telling nothing secret of it.
    """
    parsed = parse_redis_url(url, env=env, source=source)
    deadline = Deadline(timeout_sec, budget)
    pool = ConnectionPool(
        connection_class=CONNECTION_CLASSES[parsed.scheme],
        max_connections=1,
        deadline=deadline,
        socket_timeout=timeout_sec,
        socket_connect_timeout=timeout_sec,
        retry=Retry(NoBackoff(), 0),
        # The older protocol: the newer lets a server push, among else, a timeout of 10 s.
        protocol=2,
        # A Python one would poll by a timeout of 0, which the deadline knows nothing of.
        parser_class=_HiredisParser,
        driver_info=None,
        decode_responses=True,
        encoding_errors="backslashreplace",
        **parsed.options,
    )
    return BoundedRedis(pool, deadline, parsed)
