"""
Opening the feed that a run was told of.

A feed's library is imported only when that feed is opened.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cli.clock import window_at
from cli.run_options import FeedOptions, RunOptions
from cli.setup import PROD
from domain.errors import BadInput
from domain.events import KpiObserved
from domain.state import State
from domain.windows import WindowReadings
from feeds.base import LiveFeed, SeriesFeed
from ledger.application import Ledger, StreamState

RECORDED_KINDS: Final = frozenset({"mock", "file"})
"""Feeds that are no live market: prod refuses them."""

_KNOWN: Final = "mock://SCENARIO?seed=N or file:PATH"


def check_source(feed: FeedOptions, *, env: str) -> None:
    """
    Refuse a source that is unknown, or not for this environment.

    Raises:
        BadInput: naming the option.
    """
    if feed.scheme not in RECORDED_KINDS or feed.source in {"file:", "mock", "file"}:
        raise BadInput(f"--feed: expected {_KNOWN}, was {feed.scheme}:...")
    if env == PROD and feed.scheme in RECORDED_KINDS:
        raise BadInput(
            f"--env prod refuses a {feed.scheme} feed: its windows are no live market; "
            "use --redis-url or another live feed, or another --env"
        )
    if feed.speed is not None and feed.scheme != "file":
        raise BadInput("--speed: only a file feed can be played at another pace")


def open_series(options: RunOptions, state: State) -> SeriesFeed | None:
    """Return the file feed, checked to its end; None for a feed along the clock."""
    if options.feed.scheme != "file":
        return None
    from feeds.kpi_file import open_kpi_file  # noqa: PLC0415

    path = options.feed.source.removeprefix("file:").removeprefix("//")
    symbols = options.symbols or state.symbol_names or None
    return open_kpi_file(Path(path), symbols=symbols, interval_ms=options.interval_ms)


def open_live(
    options: RunOptions,
    ledger: Ledger,
    stream: StreamState,
    symbols: tuple[str, ...],
    interval_ms: int,
    now_ms: int,
) -> LiveFeed:
    """Return the feed along the clock."""
    from feeds.mock import MockFeed  # noqa: PLC0415

    origin_ms = _first_window(ledger, stream)
    if origin_ms is None:
        past = (options.iterations or 0) if options.is_fresh else 0
        origin_ms = window_at(now_ms, interval_ms) - past * interval_ms
    return MockFeed(options.feed.source, symbols, interval_ms=interval_ms, origin_ms=origin_ms)


def past_windows(
    feed: LiveFeed, *, now_ms: int, windows: int, interval_ms: int
) -> Iterator[WindowReadings]:
    """
    Yield the last complete windows of a market that can tell its past.

    The mock market is as ready to tell it as its present, so that nobody waits for a window.
    """
    first = window_at(now_ms, interval_ms) - windows * interval_ms
    for start_ms in range(first, first + windows * interval_ms, interval_ms):
        yield feed.collect(start_ms, start_ms + interval_ms)


def _first_window(ledger: Ledger, stream: StreamState) -> int | None:
    """Return the stream's first window: a mock scenario goes on from it after a restart."""
    for record in ledger.records(stream.id):
        if isinstance(record.event, KpiObserved):
            return record.event.window
    return None
