"""A WebSocket server that sends ready KPIs, samples and rubbish for two symbols."""

import contextlib
import json
import ssl
import threading
import time
from typing import Self

from live_support import wait_for
from support import GOOD
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

BTC, ETH = "BTCUSDT", "ETHUSDT"


class WebSocketMarket:
    """A server that sends ready KPIs, samples and rubbish, and can hang up on everybody."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.connections: set[ServerConnection] = set()
        self.accepted = 0
        self._scheme = "ws" if context is None else "wss"
        self._server = serve(self._handle, "127.0.0.1", 0, ssl=context)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.socket.getsockname()[1]}/kpis"

    def hang_up(self) -> None:
        for connection in list(self.connections):
            connection.close(1012)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self.hang_up()
        wait_for(lambda: not self.connections, "the end of every connection")

    def _handle(self, connection: ServerConnection) -> None:
        self.accepted += 1
        self.connections.add(connection)
        with contextlib.suppress(ConnectionClosed):
            connection.send("{not JSON")
            while True:
                ts = time.time_ns() // 1_000_000
                both = [{"ts": ts, "symbol": symbol, **GOOD} for symbol in (BTC, "DOGEUSDT")]
                connection.send(json.dumps(both))
                connection.send(json.dumps({"ts": ts, "symbol": ETH, **GOOD, "edge_bps": 2.875}))
                time.sleep(0.05)
        self.connections.discard(connection)
