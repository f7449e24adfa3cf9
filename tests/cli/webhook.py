"""A real web server on this machine that takes notifications, and fails, hangs or trickles."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple

WAIT_SEC: Final = 30.0


class Taken(NamedTuple):
    """One message as it arrived."""

    kind: str
    title: str
    body: str


class Webhook:
    """
    A server that can be told how to behave.

    Attributes:
        mode: `ok`, `fail` (500), `hang` (no answer until it is told otherwise), or `trickle` (an
            answer that never ends, a byte at a time).
        taken: what arrived while it was `ok`.
        asked: how often it was asked, whatever the mode.
        refuses: a text; messages that contain it fail, whatever the mode.
    """

    def __init__(self) -> None:
        self.mode = "ok"
        self.refuses: str | None = None
        self.taken: list[Taken] = []
        self.asked = 0
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, path: str = "hook", query: str = "") -> str:
        return f"json://127.0.0.1:{self.port}/{path}/{query}"

    @property
    def titles(self) -> list[str]:
        return [taken.title for taken in self.taken]

    def takes(self, count: int) -> list[Taken]:
        """Wait until it has taken so many; more is a fault."""
        self.waits_for(lambda: len(self.taken) >= count, f"{count} messages")
        assert len(self.taken) == count, self.titles
        return self.taken

    def waits_for(self, condition: Callable[[], bool], what: str) -> None:
        ends = time.monotonic() + WAIT_SEC
        while not condition():
            assert time.monotonic() < ends, f"waited {WAIT_SEC:g} s for {what}: {self.titles}"
            time.sleep(0.005)

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                told: dict[str, Any] = json.loads(self.rfile.read(length))
                webhook.asked += 1
                with contextlib.suppress(OSError):
                    self._answer(told)

            def _answer(self, told: dict[str, Any]) -> None:
                refused = webhook.refuses is not None and webhook.refuses in repr(told)
                while webhook.mode == "hang" and not webhook._ended.wait(0.02):
                    pass
                if webhook.mode == "trickle":
                    self.send_response(200)
                    self.end_headers()
                    while not webhook._ended.wait(0.05):
                        self.wfile.write(b"x")
                        self.wfile.flush()
                    return
                if webhook.mode == "fail" or refused:
                    self.send_response(500)
                    self.end_headers()
                    return
                webhook.taken.append(Taken(told["type"], told["title"], told["message"]))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


@contextlib.contextmanager
def running_webhook() -> Iterator[Webhook]:
    webhook = Webhook()
    try:
        yield webhook
    finally:
        webhook.close()
