"""
The mailbox between the thread that listens to a WebSocket and the run loop.

It is bounded, and keeps account of when the connection was there: from the moment it stood until
the server was heard for the last time.

Source: issue 3, Feeds.
"""

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

SPANS_MAX: Final = 1_000
NOTICES_MAX: Final = 100


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much a mailbox holds; what comes beyond that is dropped and counted."""

    messages: int = 100_000
    bytes: int = 64 << 20


class Mail(msgspec.Struct, frozen=True):
    """
    What was in a mailbox.

    Attributes:
        messages: in the order they came.
        dropped: how many came when there was no room.
        bad_frames: what was wrong with frames that ended a connection.
        notices: connections lost and found.
    """

    messages: list[bytes]
    dropped: int
    bad_frames: list[str]
    notices: list[str]


class Mailbox:
    """What the listener tells the run loop. Every method may be called from either thread."""

    def __init__(self, limits: Limits, monotonic: Callable[[], float]) -> None:
        self._lock = threading.Lock()
        self._limits = limits
        self._monotonic = monotonic
        self._messages: list[bytes] = []
        self._bytes = 0
        self._dropped = 0
        self._dropped_at = -math.inf
        self._received = 0
        self._bad_frames: list[str] = []
        self._notices: list[str] = []
        self._was_lost = False
        self._spans: deque[tuple[float, float]] = deque(maxlen=SPANS_MAX)
        self._connected_at: float | None = None
        self._heard_at = 0.0

    def connected(self) -> None:
        """Note that a connection stands."""
        with self._lock:
            self._connected_at = self._heard_at = self._monotonic()
            if self._was_lost:
                self._say("connected")
            self._was_lost = False

    def heard(self) -> None:
        """Note that the server was heard."""
        with self._lock:
            self._heard_at = self._monotonic()

    def put(self, message: bytes) -> None:
        """Take a message, if there is room for it."""
        with self._lock:
            self._heard_at = self._monotonic()
            self._received += 1
            size = self._bytes + len(message)
            if len(self._messages) >= self._limits.messages or size > self._limits.bytes:
                self._dropped += 1
                self._dropped_at = self._heard_at
                return
            self._messages.append(message)
            self._bytes = size

    def lost(self, reason: str, *, bad_frame: str | None = None) -> None:
        """Note that a connection is gone, or that none comes about."""
        with self._lock:
            if self._connected_at is not None:
                self._spans.append((self._connected_at, self._heard_at))
            self._connected_at = None
            if bad_frame is not None and len(self._bad_frames) < NOTICES_MAX:
                self._bad_frames.append(bad_frame)
            if not self._was_lost:
                self._say(f"not connected ({reason}); trying on")
            self._was_lost = True

    def take(self) -> Mail:
        """Return what is in it, and empty it."""
        with self._lock:
            mail = Mail(self._messages, self._dropped, self._bad_frames, self._notices)
            self._messages, self._bad_frames, self._notices = [], [], []
            self._bytes = self._dropped = 0
            return mail

    @property
    def is_connected(self) -> bool:
        """Whether a connection stands, as far as is known."""
        return self._connected_at is not None

    @property
    def heard_at(self) -> float:
        """When the server was heard last, by the monotonic clock."""
        return self._heard_at

    @property
    def dropped_at(self) -> float:
        """When a message was dropped last, by the monotonic clock; minus infinity if never."""
        return self._dropped_at

    @property
    def received(self) -> int:
        """How many messages came in all, the dropped ones too."""
        return self._received

    def share(self, began: float, ended: float) -> float:
        """Return for how much of the time between two moments the connection was there, 0 to 1."""
        with self._lock:
            spans = list(self._spans)
            if self._connected_at is not None:
                spans.append((self._connected_at, self._heard_at))
        there = sum(max(0.0, min(end, ended) - max(start, began)) for start, end in spans)
        return min(there / (ended - began), 1.0)

    def _say(self, text: str) -> None:
        if len(self._notices) < NOTICES_MAX:
            self._notices.append(text)
