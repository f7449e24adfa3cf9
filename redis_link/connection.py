"""
Connections to Redis of which every operation ends with the exchange's deadline.

redis-py's own timeouts bound a single read, so that a server which sends a byte now and then, or
a name that doesn't resolve, takes as long as it likes. Here one exchange (resolve, connect, TLS,
log in, send, read) has one deadline. It reads with redis-py's compiled parser, three times as fast
as its Python one, which asks the socket for bytes by `recv_into` alone.
"""

import ipaddress
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from redis_link.budget import Deadline

_ABORT: Final = struct.pack("ii", 1, 0)


class _BoundedSocket:
    """A socket whose every operation ends with the deadline."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._socket = sock
        self._deadline = deadline
        self._has_failed = False

    def recv(self, size: int, flags: int = 0) -> bytes:
        with self._timed():
            return self._socket.recv(size, flags)

    def recv_into(self, buffer: bytearray) -> int:
        with self._timed():
            count = self._socket.recv_into(buffer)
            self._deadline.received(count)
            return count

    def sendall(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            with self._timed():
                view = view[self._socket.send(view) :]

    def settimeout(self, timeout_sec: float | None) -> None:
        """Do nothing: every timeout gives way to the deadline."""

    def has_unasked(self) -> bool:
        """
        Return whether there is something that nobody asked for; it can't be read any more then.

        That the file is readable doesn't tell with TLS: after the greeting, session tickets wait
        there, which are no answer to anything.

        Raises:
            ConnectionError: redis-py's, if the server has closed the connection.
        """
        self._socket.settimeout(0)
        try:
            if not self._socket.recv(1):
                raise RedisConnectionError("closed by the server")
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        return True

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

    def can_read(self, timeout: float = 0) -> bool:
        """
        Return whether the connection, before it is used again, holds what isn't ours.

        The library would poll the file beside that, and take for data a session ticket that came
        just then: a new TLS connection would be refused by chance.
        """
        connection = cast("Any", self)
        if connection._sock is None:
            return bool(cast("Any", super()).can_read(timeout))
        reader = connection._parser._reader
        return bool(connection._sock.has_unasked() or (reader is not None and reader.has_data()))


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


CONNECTION_CLASSES: Final = {
    "redis": _TcpConnection,
    "rediss": _TlsConnection,
    "unix": _UnixConnection,
}
"""By a URL's scheme."""

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
