"""
The listening half of the WebSocket feed: a thread with an event loop that fills a mailbox.

Nothing in here knows what a message means. Source: issue 3, Feeds.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import random
import ssl
import threading
import time
from typing import Final

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from feeds.mailbox import Mailbox

MESSAGE_BYTES_MAX: Final = 1 << 20

_OPEN_ERRORS: Final = (OSError, EOFError, ValueError, WebSocketException)
_BAD_FRAME_CODES: Final = {1002: "broken frame", 1007: "broken text", 1009: "too large a message"}
_CLOSE_SEC: Final = 0.5
_JOIN_SEC: Final = 5.0
# The library's own messages would show the request, and with it what a URL holds of secrets.
_MUTE: Final = logging.Logger("websockets.muted", logging.CRITICAL + 1)


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """
    How the listener waits, in seconds.

    Attributes:
        open_sec: for a connection to stand, TLS and the handshake included.
        ping_every_sec: between two questions to the server whether it is there.
        ping_timeout_sec: for its answer, or anything else from it.
        backoff_sec: before the second attempt to connect; doubled from one to the next.
        backoff_max_sec: the most of that. Every wait is cut by up to a half, at random.
    """

    open_sec: float = 10.0
    ping_every_sec: float = 20.0
    ping_timeout_sec: float = 20.0
    backoff_sec: float = 0.5
    backoff_max_sec: float = 30.0


def backoff_sec(timing: Timing, failures: int) -> float:
    """Return the longest wait after so many failures in a row, in seconds."""
    # The exponent is bounded, as 2 ** 2000 is no float.
    return min(timing.backoff_sec * 2.0 ** min(failures, 40), timing.backoff_max_sec)


class Listener:
    """A thread that connects, listens, and connects again, until it is closed."""

    def __init__(
        self,
        url: str,
        mailbox: Mailbox,
        *,
        timing: Timing,
        ssl_context: ssl.SSLContext | None,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        self._url = url
        self._mailbox = mailbox
        self._timing = timing
        self._ssl = ssl_context
        self._message_bytes_max = message_bytes_max
        self._dice = random.SystemRandom()
        self._connection: ClientConnection | None = None
        self._has_timed_out = False
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._listen_on())
        self._thread = threading.Thread(target=self._run, name="websocket-feed", daemon=True)
        self._thread.start()

    def confirm(self, timeout_sec: float) -> None:
        """Ask the server whether it is there; whether it was heard is in the mailbox then."""
        connection = self._connection
        if connection is None or not self._thread.is_alive():
            return
        asking = self._ping(connection, timeout_sec)
        try:
            asked = asyncio.run_coroutine_threadsafe(asking, self._loop)
        except RuntimeError:
            asking.close()  # The loop was closed a moment ago.
            return
        with contextlib.suppress(TimeoutError, concurrent.futures.CancelledError):
            asked.result(timeout_sec + 0.1)

    def close(self) -> None:
        """End the thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(_JOIN_SEC)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._task)
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        finally:
            self._loop.close()

    async def _listen_on(self) -> None:
        failures = 0
        while True:
            failures = 0 if await self._listen_once() else failures + 1
            await asyncio.sleep(backoff_sec(self._timing, failures) * self._dice.uniform(0.5, 1.0))

    async def _listen_once(self) -> bool:
        """Return whether there was a connection worth the name, after it is gone."""
        try:
            connection = await connect(
                self._url,
                ssl=self._ssl,
                logger=_MUTE,
                proxy=None,
                open_timeout=self._timing.open_sec,
                close_timeout=_CLOSE_SEC,
                ping_interval=None,
                max_size=self._message_bytes_max,
            )
        except _OPEN_ERRORS as error:
            self._mailbox.lost(_reason(error))
            return False
        self._has_timed_out = False
        self._mailbox.connected()
        began = time.monotonic()
        pinging = asyncio.create_task(self._keep_pinging(connection))
        self._connection = connection
        messages = 0
        try:
            while True:
                self._mailbox.put(await connection.recv(decode=False))
                messages += 1
        except ConnectionClosed as closed:
            self._tell_closed(closed)
        finally:
            self._connection = None
            pinging.cancel()
            await _shut(connection)
        return messages > 0 or time.monotonic() - began >= self._timing.backoff_max_sec

    def _tell_closed(self, closed: ConnectionClosed) -> None:
        if self._has_timed_out:
            self._mailbox.lost(
                f"nothing heard for {self._timing.ping_timeout_sec:g} s after a ping"
            )
            return
        if closed.rcvd is not None:
            self._mailbox.heard()
        is_ours = closed.sent is not None and not closed.rcvd_then_sent
        bad = _BAD_FRAME_CODES.get(closed.sent.code) if is_ours and closed.sent else None
        code = closed.rcvd.code if closed.rcvd is not None else None
        self._mailbox.lost(
            bad or ("cut off" if code is None else f"closed by the server with code {code}"),
            bad_frame=bad,
        )

    async def _keep_pinging(self, connection: ClientConnection) -> None:
        while True:
            await asyncio.sleep(self._timing.ping_every_sec)
            before = self._mailbox.heard_at
            is_answered = await self._ping(connection, self._timing.ping_timeout_sec)
            # Whoever has so much to say that a pong waits its turn is there, too.
            if not is_answered and self._mailbox.heard_at <= before:
                self._has_timed_out = True
                connection.transport.abort()
                return

    async def _ping(self, connection: ClientConnection, timeout_sec: float) -> bool:
        try:
            async with asyncio.timeout(timeout_sec):
                await (await connection.ping())
        except (TimeoutError, ConnectionClosed):
            return False
        self._mailbox.heard()
        return True


async def _shut(connection: ClientConnection) -> None:
    """Close politely if that is quick, else at once."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_SEC):
            await connection.close()
    connection.transport.abort()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_SEC):
            await connection.wait_closed()


def _reason(error: Exception) -> str:
    """Return why there is no connection: in our words, as an error's text may hold the URL."""
    match error:
        case InvalidStatus():
            return f"HTTP {error.response.status_code}"
        case ssl.SSLCertVerificationError():
            return f"certificate: {error.verify_message}"
        case TimeoutError():
            return "no answer in time"
        case OSError(strerror=str(text)):
            return text
        case _:
            return type(error).__name__
