"""
Opening the feed that a run was told of.

A feed's library is imported only when that feed is opened.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from cli.clock import window_at
from cli.run_options import FeedOptions, RunOptions
from cli.setup import PROD
from domain.errors import BadInput
from domain.events import KpiObserved, RunStarted
from domain.kpis import Defect
from domain.state import State
from domain.windows import SymbolReadings, WindowReadings
from feeds.anomaly import ANOMALY, TRAILING_WINDOWS, AnomalyTracker
from feeds.base import FeedKind, LiveFeed, SeriesFeed
from ledger.application import Ledger, StreamState
from ledger.reading import last_observations, last_observations_by

if TYPE_CHECKING:
    from redis_link.client import BoundedRedis

RECORDED_SCHEMES: Final = frozenset({"mock", "file"})
"""Feeds that are no live market: prod refuses them."""

LIVE_SCHEMES: Final = frozenset({"redis", "redis-stream", "ws", "wss"})

_KNOWN: Final = (
    "mock://SCENARIO?seed=N, file:PATH, redis-stream:KEY, ws://... or wss://..., or none with "
    "--redis-url"
)


def check_source(feed: FeedOptions, *, env: str, redis_url: str | None) -> None:
    """
    Refuse a source that is unknown, lacks a server, or is not for this environment.

    Raises:
        BadInput: naming the option.
    """
    scheme, separator, rest = feed.source.partition(":")
    if scheme not in RECORDED_SCHEMES | LIVE_SCHEMES or not separator:
        raise BadInput(f"--feed: expected {_KNOWN}, was {scheme}:...")
    if scheme in {"file", "redis-stream"} and not rest:
        raise BadInput(f"--feed: expected {_KNOWN}, was {feed.source}")
    if scheme.startswith("redis") and redis_url is None:
        raise BadInput("--feed: a Redis feed needs --redis-url")
    if env == PROD and scheme in RECORDED_SCHEMES:
        raise BadInput(
            f"--env prod refuses a {scheme} feed: its windows are no live market; "
            "use --redis-url or another live feed, or another --env"
        )
    if feed.speed is not None and scheme != "file":
        raise BadInput("--speed: only a file feed can be played at another pace")


def open_series(options: RunOptions, state: State) -> SeriesFeed | None:
    """Return the file feed, checked to its end; None for a feed along the clock."""
    if options.feed.scheme != "file":
        return None
    from feeds.kpi_file import open_kpi_file  # noqa: PLC0415

    path = options.feed.source.removeprefix("file:").removeprefix("//")
    symbols = options.symbols or state.symbol_names or None
    return open_kpi_file(Path(path), symbols=symbols, interval_ms=options.interval_ms)


def check_mock(source: str) -> None:
    """Refuse an unknown scenario."""
    from feeds.mock import MockFeed  # noqa: PLC0415

    MockFeed(source, ("ANY",), interval_ms=1_000, origin_ms=0).close()


def open_live(
    options: RunOptions,
    ledger: Ledger,
    stream: StreamState,
    symbols: tuple[str, ...],
    interval_ms: int,
    now_ms: int,
    client: "BoundedRedis | None",
) -> LiveFeed:
    """Return the feed along the clock; `client` is a Redis feed's."""
    feed: LiveFeed
    match options.feed.scheme:
        case "redis":
            assert client is not None
            feed = _redis_hashes(client, options, symbols, interval_ms)
        case "redis-stream":
            assert client is not None
            feed = _redis_stream(client, options, ledger, stream, symbols, interval_ms)
        case "ws" | "wss":
            from feeds.websocket import WebSocketFeed  # noqa: PLC0415

            feed = WebSocketFeed(
                options.feed.source, symbols, **_sampling(options.feed, interval_ms)
            )
        case _:
            feed = _mock(options, ledger, stream, symbols, interval_ms, now_ms)
    if options.feed.derive_anomaly:
        return DerivingFeed(feed, symbols, last_observations(ledger, stream.id, TRAILING_WINDOWS))
    return feed


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


class DerivingFeed:
    """A feed whose missing anomaly scores are derived from the other KPIs of past windows."""

    def __init__(self, feed: LiveFeed, symbols: tuple[str, ...], past: list[KpiObserved]) -> None:
        self._feed = feed
        self._tracker = AnomalyTracker(symbols)
        for observed in past:
            for symbol in observed.symbols:
                self._tracker.remember(symbol.memory.symbol, symbol.readings.kpis)

    @property
    def description(self) -> str:
        """The feed's own."""
        return self._feed.description

    @property
    def kind(self) -> FeedKind:
        """The feed's own."""
        return self._feed.kind

    @property
    def lateness_ms(self) -> int:
        """The feed's own."""
        return self._feed.lateness_ms

    @property
    def newest_ms(self) -> int | None:
        """The feed's own."""
        return self._feed.newest_ms

    def poll(self, now_ms: int) -> None:
        """Let the feed take in what has arrived."""
        self._feed.poll(now_ms)

    def collect(self, start_ms: int, end_ms: int) -> WindowReadings:
        """Return the feed's window, with a score for each symbol that has none and can have one."""
        readings = self._feed.collect(start_ms, end_ms)
        symbols = {name: self._scored(name, got) for name, got in readings.symbols.items()}
        return replace(readings, symbols=symbols)

    def notices(self) -> list[str]:
        """Return the feed's own."""
        return self._feed.notices()

    def close(self) -> None:
        """Close the feed."""
        self._feed.close()

    def _scored(self, symbol: str, readings: SymbolReadings) -> SymbolReadings:
        score = None if ANOMALY in readings.kpis else self._tracker.derive(symbol, readings.kpis)
        self._tracker.remember(symbol, readings.kpis)
        if score is None:
            return readings
        return replace(readings, kpis={**readings.kpis, ANOMALY: score})


def _redis_hashes(
    client: "BoundedRedis", options: RunOptions, symbols: tuple[str, ...], interval_ms: int
) -> LiveFeed:
    from feeds.redis_hash import RedisHashFeed  # noqa: PLC0415

    return RedisHashFeed(
        client,
        symbols,
        env=options.key.env,
        exchange=options.key.exchange,
        interval_ms=interval_ms,
        kpi_key=options.feed.kpi_key,
        allow_untimed=options.feed.allow_untimed,
        kpi_max_age_ms=options.feed.kpi_max_age_ms,
        lateness_ms=options.feed.lateness_within(interval_ms),
    )


def _redis_stream(
    client: "BoundedRedis",
    options: RunOptions,
    ledger: Ledger,
    stream: StreamState,
    symbols: tuple[str, ...],
    interval_ms: int,
) -> LiveFeed:
    """Return the stream feed, which goes on where the runs before it were in this very stream."""
    from feeds.redis_stream import RedisStreamFeed, resume_windows, stream_of  # noqa: PLC0415

    key = options.feed.source.removeprefix("redis-stream:")
    here = stream_of(f"redis-stream:{client.place} {key}")

    def read_here(run: RunStarted) -> bool:
        return stream_of(run.feed) == here

    sampling = _sampling(options.feed, interval_ms)
    past = last_observations_by(ledger, stream, resume_windows(**sampling), read_here)
    resume = [(seen.window, seen.feed_position) for seen in past if seen.feed_position is not None]
    stale = _stale_kpis(past[-1]) if past else {}
    return RedisStreamFeed(client, key, symbols, resume=resume, stale=stale, **sampling)


def _stale_kpis(observed: KpiObserved) -> dict[str, list[str]]:
    return {
        symbol.memory.symbol: [
            kpi for kpi, reading in symbol.readings.kpis.items() if reading is Defect.STALE
        ]
        for symbol in observed.symbols
    }


def _sampling(feed: FeedOptions, interval_ms: int) -> dict[str, Any]:
    """Return what every feed of samples is told about windows."""
    return {
        "interval_ms": interval_ms,
        "lookback_windows": feed.lookback_windows,
        "kpi_max_age_ms": feed.kpi_max_age_ms,
        "lateness_ms": feed.lateness_within(interval_ms),
    }


def _mock(
    options: RunOptions,
    ledger: Ledger,
    stream: StreamState,
    symbols: tuple[str, ...],
    interval_ms: int,
    now_ms: int,
) -> LiveFeed:
    """Return the mock feed; its scenario begins with the stream's first window."""
    from feeds.mock import MockFeed  # noqa: PLC0415

    origin_ms = _first_window(ledger, stream)
    if origin_ms is None:
        past = (options.iterations or 0) if options.is_fresh else 0
        origin_ms = window_at(now_ms, interval_ms) - past * interval_ms
    return MockFeed(options.feed.source, symbols, interval_ms=interval_ms, origin_ms=origin_ms)


def _first_window(ledger: Ledger, stream: StreamState) -> int | None:
    for record in ledger.records(stream.id):
        if isinstance(record.event, KpiObserved):
            return record.event.window
    return None
