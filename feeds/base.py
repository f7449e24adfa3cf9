"""
The contract of a feed: what the run loop and replay ask of any source of windows.

There are two kinds. A `SeriesFeed` has all its windows already, so that it can be checked before
the first one is decided. A `LiveFeed` collects a window while time passes. Neither knows the
policy: a feed says what arrived, and the core says what it means.

Source: DESIGN.md section 2, Shape.
"""

from collections.abc import Iterator
from typing import Literal, Protocol

from domain.windows import WindowReadings

FeedKind = Literal["mock", "file", "redis", "websocket"]
"""What sort of feed it is. Prod refuses some of them, so it is recorded with the run."""


class Feed(Protocol):
    """What every feed tells about itself; it is recorded in the ledger."""

    @property
    def description(self) -> str:
        """The feed as the ledger names it (`file:standx.parquet`): no secret, and no path."""
        ...

    @property
    def kind(self) -> FeedKind:
        """What sort of feed it is."""
        ...


class SeriesFeed(Feed, Protocol):
    """Windows that are all there already. What can be wrong with them was found when opened."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols to decide for, in order; one of them may have no data at all."""
        ...

    @property
    def interval_ms(self) -> int:
        """The length of a window; every start is a multiple of it."""
        ...

    @property
    def window_count(self) -> int:
        """How many windows `windows()` yields: those with a row; a gap between two isn't one."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What somebody should know about the windows before they are decided."""
        ...

    def windows(self) -> Iterator[WindowReadings]:
        """
        Yield every window with a row, starts increasing, read as it is asked for.

        Each call starts again from the first window.

        Raises:
            BadInput: if the source is no longer what it was when the feed was opened.
        """
        ...


class LiveFeed(Feed, Protocol):
    """Windows that come about as time passes."""

    @property
    def lateness_ms(self) -> int:
        """How long after a window's end its samples are still waited for."""
        ...

    @property
    def newest_ms(self) -> int | None:
        """
        The newest sample's own time as of the last window collected; None before the first.

        What is malformed, of another symbol, or stamped later than now, is no sample here.
        """
        ...

    def poll(self, now_ms: int) -> None:
        """Take in what has arrived by now; called every so often while a window passes."""
        ...

    def collect(self, start_ms: int, end_ms: int) -> WindowReadings:
        """
        Return what arrived for the window from `start_ms` on and before `end_ms`.

        It is called once a window, when the window is over and `lateness_ms` have passed. That
        nothing arrived is no error: it is a window without symbols, which the core judges as
        NO_DATA. Windows may be left out, but never come twice or go backwards.
        """
        ...

    def notices(self) -> list[str]:
        """Return what somebody should be told since the last call, each kind of it once."""
        ...

    def close(self) -> None:
        """Let go of connections and threads; nothing else is called after it."""
        ...
