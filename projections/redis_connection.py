"""
Connections to Redis that take bounded time and keep their secrets.

redis-py's own timeouts bound a single read, so that a server which sends a byte now and then, or
a name that doesn't resolve, takes as long as it likes; and it tries again ten times. Here one
exchange (resolve, connect, TLS, log in, send, read) has one deadline, and is made once.
"""

import hashlib
import ipaddress
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

from redis import ConnectionPool, Redis
from redis._parsers import _RESP2Parser
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import InvalidResponse, NoScriptError, RedisError

from projections.redis_url import RedisUrl, parse_redis_url

TIMEOUT_SEC: Final = 0.5
_SECRET_CHARS_MIN: Final = 4
"""A shorter secret can't be told from ordinary text: what might hold it isn't shown at all."""

_ABORT: Final = struct.pack("ii", 1, 0)


class Script:
    """A Lua script from a file of this folder."""

    def __init__(self, name: str) -> None:
        self.text = Path(__file__).with_name(name).read_text(encoding="utf-8")
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class Deadline:
    """How long an exchange may still take. Outside of one, each read or write has it all."""

    def __init__(self, timeout_sec: float) -> None:
        self.timeout_sec = timeout_sec
        self._ends_sec: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the time run; within a deadline that runs already, the outer one counts."""
        if self._ends_sec is not None:
            yield
            return
        self._ends_sec = time.monotonic() + self.timeout_sec
        try:
            yield
        finally:
            self._ends_sec = None

    def remaining_sec(self) -> float:
        """Return the seconds left, more than 0; TimeoutError if there are none."""
        if self._ends_sec is None:
            return self.timeout_sec
        remaining = self._ends_sec - time.monotonic()
        if remaining <= 0:
            raise TimeoutError(f"no answer within {self.timeout_sec:g} s")
        return remaining


class BoundedRedis(Redis):
    """A client whose commands each take at most its timeout, and whose errors hold no secret."""

    def __init__(self, pool: ConnectionPool, deadline: Deadline, secrets: Sequence[str]) -> None:
        super().__init__(connection_pool=pool)
        self.auto_close_connection_pool = True
        self._deadline = deadline
        self._secrets = sorted((secret for secret in secrets if secret), key=len, reverse=True)

    @property
    def timeout_sec(self) -> float:
        """The most that one exchange takes, in s."""
        return self._deadline.timeout_sec

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Let all commands within take at most the timeout together."""
        with self._deadline.running():
            yield

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
    url: str, *, env: str, timeout_sec: float = TIMEOUT_SEC, source: str = "--redis-url"
) -> BoundedRedis:
    """
    Return a client for a `redis://`, `rediss://` or `unix://` URL; it connects with its first use.

    Args:
        env: in `prod`, a URL that switches certificate checks off is refused.
        timeout_sec: the most that one command takes, connecting included.
        source: where the URL came from, for the errors.

    Raises:
        BadInput: if the URL isn't one, telling nothing secret of it.
    """
    parsed = parse_redis_url(url, env=env, source=source)
    deadline = Deadline(timeout_sec)
    pool = ConnectionPool(
        connection_class=_CLASSES[parsed.scheme],
        max_connections=1,
        deadline=deadline,
        socket_timeout=timeout_sec,
        socket_connect_timeout=timeout_sec,
        # The older protocol: the newer lets a server push, among else, a timeout of 10 s.
        protocol=2,
        # Its own parser: a compiled one reads from the socket past the deadline.
        parser_class=_RESP2Parser,
        driver_info=None,
        decode_responses=True,
        encoding_errors="backslashreplace",
        **parsed.options,
    )
    return BoundedRedis(pool, deadline, _secrets(parsed))


def _secrets(parsed: RedisUrl) -> list[str]:
    return [secret for told in parsed.secrets for secret in {told, repr(told)[1:-1]}]


class _BoundedSocket:
    """A socket whose every operation ends with the deadline."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._socket = sock
        self._deadline = deadline
        self._is_polled = False
        self._has_failed = False

    def recv(self, size: int) -> bytes:
        with self._timed():
            return self._socket.recv(size)

    def sendall(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            with self._timed():
                view = view[self._socket.send(view) :]

    def settimeout(self, timeout_sec: float | None) -> None:
        """Poll if it is 0; any other timeout gives way to the deadline."""
        self._is_polled = timeout_sec == 0

    def shutdown(self, how: int) -> None:
        """End orderly; but after a failure, drop what the kernel would still deliver later."""
        if self._has_failed:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        else:
            self._socket.shutdown(how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        if self._is_polled:
            self._socket.settimeout(0)
            yield
            return
        try:
            self._socket.settimeout(self._deadline.remaining_sec())
            yield
        except OSError:
            self._has_failed = True
            raise


class _Bounded:
    """Makes a kind of connection keep the deadline."""

    def __init__(self, *, deadline: Deadline, **options: Any) -> None:
        self._deadline = deadline
        super().__init__(**options)

    def _connect(self) -> Any:
        sock = cast("Any", super())._connect()
        return _BoundedSocket(sock, self._deadline)


class _Dialled(Connection):
    """Connects over TCP to the first address that answers, within the deadline."""

    def _connect(self) -> Any:
        deadline = cast("Deadline", cast("Any", self)._deadline)
        failure: OSError = OSError(f"{self.host} has no address")
        for family, kind, protocol, _, address in _resolve(self.host, self.port, deadline):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                sock.settimeout(deadline.remaining_sec())
                sock.connect(address)
                sock.settimeout(deadline.remaining_sec())
            except OSError as error:
                sock.close()
                failure = error
            else:
                return sock
        raise failure


class _TcpConnection(_Bounded, _Dialled):
    pass


class _TlsConnection(_Bounded, SSLConnection, _Dialled):
    pass


class _UnixConnection(_Bounded, UnixDomainSocketConnection):
    pass


_CLASSES: Final = {"redis": _TcpConnection, "rediss": _TlsConnection, "unix": _UnixConnection}

_lookups: Final[dict[tuple[str, int], threading.Thread]] = {}


def _resolve(host: str, port: int, deadline: Deadline) -> list[Any]:
    """
    Return the host's addresses, as `getaddrinfo` does.

    A name is looked up in a thread, the only way to stop waiting for it; while that goes on, no
    second one is begun.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    found: list[Any] = []
    failures: list[str] = []

    def look_up() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            failures.append(str(error))

    earlier = _lookups.get((host, port))
    if earlier is not None:
        earlier.join(deadline.remaining_sec())
        if earlier.is_alive():
            raise TimeoutError(f"{host} doesn't resolve")
    thread = threading.Thread(target=look_up, name=f"resolve {host}", daemon=True)
    _lookups[host, port] = thread
    thread.start()
    thread.join(deadline.remaining_sec())
    if thread.is_alive():
        raise TimeoutError(f"{host} doesn't resolve")
    if failures:
        raise OSError(f"{host} doesn't resolve: {failures[0]}")
    return found
