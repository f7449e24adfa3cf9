"""
Samples from a WebSocket: a thread listens and reconnects, the run loop takes what it heard.

What was sent while nobody listened is gone, so a window is told for how much of it the connection
was there. A connection that has fallen silent looks like a quiet market: when a window is collected
and nothing was heard since its end, the server is asked (a ping), and without an answer the
connection counts as gone since it was heard last.

Source: issue 3, Feeds; DESIGN.md section 5.
"""

import ssl
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec
from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from domain.errors import BadInput
from domain.windows import WindowReadings, check_interval, check_symbols
from feeds.aggregation import Aggregator
from feeds.mailbox import NOTICES_MAX, Limits, Mailbox
from feeds.samples import MalformedSample, parse_message
from feeds.websocket_client import Listener, Timing

CONFIRM_SEC: Final = 0.5

_DEFAULT_TIMING: Final = Timing()
_DEFAULT_LIMITS: Final = Limits()


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class WebSocketFeed:
    """A `LiveFeed` that listens to a server's JSON messages, one or many a frame."""

    kind: Literal["websocket"] = "websocket"

    def __init__(
        self,
        url: str,
        symbols: Sequence[str],
        *,
        interval_ms: int,
        lookback_windows: int = 5,
        kpi_max_age_ms: int | None = None,
        lateness_ms: int = 2_000,
        timing: Timing = _DEFAULT_TIMING,
        limits: Limits = _DEFAULT_LIMITS,
        ssl_context: ssl.SSLContext | None = None,
        now_ms: Callable[[], int] = _wall_ms,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Begin to listen; the server need not be there yet.

        Args:
            url: `ws://` or `wss://`, with a username and a password if need be.
            lookback_windows, kpi_max_age_ms, lateness_ms: as `Aggregator` takes them.
            timing: how long is waited for what.
            limits: how much is held between two calls of `poll`.
            ssl_context: for `wss://`; None is the system's certificates.
            now_ms: the wall clock that windows are of.
            monotonic: the clock that connections are timed by, in seconds.

        Raises:
            BadInput: if the URL, the symbols or the interval is malformed. It shows no URL.
        """
        self._server = _server_of(url)
        self._interval_ms = check_interval(interval_ms, source="--interval-sec")
        self._lateness_ms = lateness_ms
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._aggregator = Aggregator(
            check_symbols(symbols, source="--symbols"),
            interval_ms=interval_ms,
            lookback_windows=lookback_windows,
            kpi_max_age_ms=kpi_max_age_ms,
            lateness_ms=lateness_ms,
        )
        self._counts: Counter[str] = Counter()
        self._notices: list[str] = []
        self._named: set[str] = set()
        if self._server.startswith("wss:"):
            ssl_context = ssl_context or ssl.create_default_context()
        else:
            ssl_context = None
        self._mailbox = Mailbox(limits, monotonic)
        self._listener = Listener(url, self._mailbox, timing=timing, ssl_context=ssl_context)

    @property
    def description(self) -> str:
        """The server alone, as a path may be a secret, too: `websocket:wss://example.com:443`."""
        return f"websocket:{self._server}"

    @property
    def lateness_ms(self) -> int:
        """How long after a window's end its samples are still waited for."""
        return self._lateness_ms

    @property
    def newest_ms(self) -> int | None:
        """The latest `ts` up to the last window collected; None without any."""
        return self._aggregator.newest_ms

    def poll(self, now_ms: int) -> None:  # noqa: ARG002
        """Take in what was heard by now."""
        mail = self._mailbox.take()
        self._counts["overflow"] += mail.dropped
        for text in mail.notices:
            self._say(text)
        for problem in mail.bad_frames:
            self._count_malformed("frame", problem)
        for message in mail.messages:
            for sample in parse_message(message):
                if isinstance(sample, MalformedSample):
                    self._count_malformed(sample.kind, sample.detail)
                else:
                    self._aggregator.add(sample)

    def collect(self, start_ms: int, end_ms: int) -> WindowReadings:
        """Return what was heard for the window, and whether that can be the whole."""
        now_ms, now = self._now_ms(), self._monotonic()
        began = now - (now_ms - start_ms) / 1000
        ended = now - (now_ms - end_ms) / 1000
        if self._mailbox.is_connected and self._mailbox.heard_at < ended:
            self._listener.confirm(CONFIRM_SEC)
        self.poll(now_ms)
        # What was dropped may have been of any window that was under way or waited for then.
        is_whole = self._mailbox.dropped_at < began
        share = self._mailbox.share(began, ended) if is_whole else 0.0
        readings = self._aggregator.close(start_ms, connected_share=share, now_ms=now_ms)
        counts = Counter(readings.feed_counts) + self._counts
        self._counts.clear()
        return msgspec.structs.replace(readings, feed_counts=dict(counts))

    def notices(self) -> list[str]:
        """Return connections lost and found, and malformed messages, each kind once."""
        notices, self._notices = self._notices, []
        return notices

    def close(self) -> None:
        """End the connection and the thread."""
        self._listener.close()

    def _count_malformed(self, kind: str, detail: str) -> None:
        self._aggregator.count_malformed(kind)
        if kind not in self._named:
            self._named.add(kind)
            self._say(f"malformed: {kind}: {detail}")

    def _say(self, text: str) -> None:
        if len(self._notices) < NOTICES_MAX:
            self._notices.append(f"{self._server}: {text}")


def _server_of(url: str) -> str:
    try:
        parts = parse_uri(url)
        parts.host.encode("idna")
    except (InvalidURI, ValueError):
        # Its message would show the URL, and with it what it holds of secrets.
        expected = "ws://HOST:PORT/PATH or wss://HOST:PORT/PATH"
        raise BadInput(f"--feed: expected {expected}, was malformed") from None
    host = f"[{parts.host}]" if ":" in parts.host else parts.host
    return f"{'wss' if parts.secure else 'ws'}://{host}:{parts.port}"
