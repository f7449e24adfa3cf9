"""
The HTTP server behind `/metrics`, which no scraper can hold a run up with.

Every connection has a thread of its own, which may wait for as long as it likes; there are few of
them, and a new one takes the place of the oldest.

Source: issue 4, Metrics.
"""

import contextlib
import socket
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from threading import Lock, Thread
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

METRICS_PATH: Final = "/metrics"
HEALTH_PATH: Final = "/-/healthy"
CONNECTIONS_MAX: Final = 8
IDLE_SEC: Final = 10.0
"""How long a connection may neither send nor take anything."""

_CLOSING_SEC: Final = 0.1


class Page(NamedTuple):
    """What `/metrics` answers with: the content's type, and the content."""

    kind: str
    content: bytes


class Health(NamedTuple):
    """Whether what was decided may still be believed, and what there is to say about it."""

    is_healthy: bool
    text: str


class MetricsServer(ThreadingMixIn, TCPServer):
    """
    Listens from the beginning, and answers from `serve` on; what comes before that waits.

    Raises:
        OSError: if the address can't be had.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 16

    def __init__(self, address: str, port: int) -> None:
        self.address_family, place = _resolve(address, port)
        self._lock = Lock()
        self._open: dict[socket.socket, None] = {}
        self._thread: Thread | None = None
        super().__init__(place, _Handler)

    @property
    def url(self) -> str:
        """Where the metrics are."""
        host, port = self.server_address[:2]
        host = f"[{host!s}]" if self.address_family is socket.AF_INET6 else str(host)
        return f"http://{host}:{port}{METRICS_PATH}"

    def serve(self, page: Callable[[str], Page], health: Callable[[], Health]) -> None:
        """
        Answer from now on, in a thread that doesn't keep the process alive.

        Args:
            page: returns the metrics in the best of the formats that an `Accept` header names.
            health: returns whether the run is well.
        """
        self.page, self.health = page, health
        self._thread = Thread(
            target=self.serve_forever, args=[_CLOSING_SEC], name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Answer no more and let go of the address and of every connection."""
        if self._thread is not None:
            self.shutdown()
            self._thread.join()
        self.server_close()
        with self._lock:
            for connection in self._open:
                _hang_up(connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the connection a thread; the oldest one gives way if there are too many."""
        with self._lock:
            self._open[request] = None
            if len(self._open) > CONNECTIONS_MAX:
                oldest = next(iter(self._open))
                del self._open[oldest]
                _hang_up(oldest)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a scraper that went away or took too long: it is no news of the run."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection: one request, one answer."""

    server: MetricsServer
    timeout = IDLE_SEC
    server_version = "live-ledger"
    sys_version = ""
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def do_GET(self) -> None:
        """Answer with a page."""
        status, kind, page = self._answer()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page)

    do_HEAD = do_GET  # noqa: N815 - the base's way to name methods

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Log nothing: a run's output is for what happens in it."""

    def _answer(self) -> tuple[HTTPStatus, str, bytes]:
        path = urlsplit(self.path).path
        if path == METRICS_PATH:
            return HTTPStatus.OK, *self.server.page(self.headers.get("Accept", ""))
        if path == HEALTH_PATH:
            is_healthy, text = self.server.health()
            status = HTTPStatus.OK if is_healthy else HTTPStatus.SERVICE_UNAVAILABLE
            return status, "text/plain; charset=utf-8", f"{text}\n".encode()
        text = f"expected {METRICS_PATH} or {HEALTH_PATH}\n"
        return HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", text.encode()


def _resolve(address: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Return the family of an address, and the address as numbers."""
    flags = socket.AI_PASSIVE
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=flags)
    family, _, _, _, place = found[0]
    return family, (str(place[0]), int(place[1]))


def _hang_up(connection: socket.socket) -> None:
    """End a connection under whichever thread waits for it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
