"""The Redis stream feed reads every entry once, restarts included, and knows what it missed."""

import json
import os
import random
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
import redis
from raw_server import raw_server
from servers import RedisServer, TcpProxy

import feeds.redis_entries
from domain.errors import BadInput
from domain.kpis import Defect
from domain.windows import SymbolReadings, WindowReadings
from feeds.aggregation import Aggregator
from feeds.base import LiveFeed
from feeds.redis_stream import RedisStreamFeed, resume_windows, stream_of
from feeds.samples import Fill, MalformedSample, parse_message
from redis_link.client import BoundedRedis, open_redis

INTERVAL_MS = 10_000
LATENESS_MS = 2_000
START_MS = 1_767_621_600_000
SYMBOLS = ("BTCUSDT", "ETH-USD", "SOL.P")
KEY = "fills"
REAL_DATA = os.environ.get("LIVE_REAL_DATA")

DELAYS_MS = (
    *(0, 0, 50, 900, LATENESS_MS - 1, LATENESS_MS + 1, INTERVAL_MS, 3 * INTERVAL_MS),
    *(-1, -500, -LATENESS_MS, -LATENESS_MS - 1, -2 * INTERVAL_MS, -10 * INTERVAL_MS),
)

Recorded = list[tuple[int, str]]


@pytest.fixture(scope="module")
def module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(module_server: RedisServer) -> RedisServer:
    module_server.client().flushall()
    return module_server


@pytest.fixture
def make() -> Iterator[Any]:
    """Return a function that makes a feed with a client of its own, closed when the test ends."""
    clients: list[BoundedRedis] = []

    def make(
        url: str,
        resume: Sequence[tuple[int, str]] = (),
        symbols: Sequence[str] = SYMBOLS,
        timeout_sec: float = 0.5,
        **options: Any,
    ) -> RedisStreamFeed:
        options.setdefault("interval_ms", INTERVAL_MS)
        client = open_redis(url, env="dev", timeout_sec=timeout_sec)
        clients.append(client)
        return RedisStreamFeed(client, KEY, symbols, resume=resume, **options)

    yield make
    for client in clients:
        client.close()


def fill(ts_ms: int, symbol: str = "BTCUSDT", price: float = 100.0, **more: str) -> dict[str, str]:
    fields = {"type": "fill", "ts": str(ts_ms), "symbol": symbol, "side": "buy", "quantity": "1"}
    return fields | {"price": str(price), "mid": "100.1", "maker": "true"} | more


def add(server: RedisServer, at_ms: int, fields: Mapping[str, str], sequence: int = 0) -> None:
    xadd(server.client(), at_ms, fields, sequence)


def xadd(client: redis.Redis, at_ms: int, fields: Mapping[str, str], sequence: int) -> None:
    entry: dict[Any, Any] = {**fields}
    client.xadd(KEY, entry, id=f"{at_ms}-{sequence}")


def window(index: int) -> int:
    return START_MS + index * INTERVAL_MS


def collect(feed: LiveFeed, index: int) -> WindowReadings:
    return feed.collect(window(index), window(index + 1))


def fills_of(readings: WindowReadings) -> dict[str, int | None]:
    return {symbol: got.fills for symbol, got in readings.symbols.items()}


def record(recorded: Recorded, readings: WindowReadings) -> None:
    assert readings.feed_position is not None
    recorded.append((readings.start_ms, readings.feed_position))


class Market:
    """Made-up entries in the order of their ids, some late, early, foreign or broken."""

    def __init__(self, seed: int, windows: int) -> None:
        self._dice = random.Random(seed)
        ids: set[tuple[int, int]] = set()
        while len(ids) < windows * 25:
            at_ms = START_MS - 2 * INTERVAL_MS + self._dice.randrange((windows + 3) * INTERVAL_MS)
            ids.add((at_ms, self._dice.randrange(3)))
        self.entries = [(at_ms, sequence, self._fields(at_ms)) for at_ms, sequence in sorted(ids)]

    def _fields(self, at_ms: int) -> dict[str, str]:
        dice = self._dice
        delay_ms = dice.choice(DELAYS_MS)
        ts = at_ms - delay_ms
        symbol = dice.choice([*SYMBOLS, *SYMBOLS, "DOGEUSDT"])
        fields: dict[str, Any]
        match dice.randrange(8):
            case 0 | 1 | 2:
                fields = fill(ts, symbol, price=round(dice.uniform(90, 110), 2))
            case 3 | 4:
                fields = {"type": "latency", "ts": ts, "symbol": symbol, "ms": dice.randrange(500)}
            case 5:
                fields = {"type": "position", "ts": ts, "symbol": symbol, "limit": 1000}
                fields["notional"] = dice.randrange(-900, 900)
            case 6:
                fields = {"ts": ts, "symbol": SYMBOLS[0], "anomaly_score": dice.random()}
            case _:
                return dice.choice(
                    [{"data": "{"}, {"type": "fill"}, {"payload": "[1, {}]"}, {"a": ""}]
                )
        if dice.random() < 0.3:
            return {"data": json.dumps([fields])}
        return {name: str(value) for name, value in fields.items()}


@pytest.mark.parametrize("seed", range(12))
def test_a_restart_in_every_window_changes_nothing(
    server: RedisServer, make: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: unbroken, or made anew before every window and in the middle of some, all is equal."""
    monkeypatch.setattr(feeds.redis_entries, "PAGE_ENTRIES", random.Random(seed).choice([3, 50]))
    dice = random.Random(1000 + seed)
    market = Market(seed, windows=30)
    depth = resume_windows(
        interval_ms=INTERVAL_MS, lookback_windows=5, kpi_max_age_ms=None, lateness_ms=LATENESS_MS
    )
    unbroken: RedisStreamFeed = make(server.url)
    recorded: Recorded = []
    client, written = server.client(), 0
    totals: dict[str, int] = {}
    for index in range(30):
        if dice.random() < 0.15:
            continue  # The runner was down, or late, and left this window out.
        restarted: RedisStreamFeed = make(server.url, recorded[-depth:])
        end_ms = window(index + 1)
        moments = sorted(window(index) + dice.randrange(INTERVAL_MS) for _ in range(3))
        for now_ms in [*moments, end_ms + LATENESS_MS + dice.randrange(3_000)]:
            while written < len(market.entries) and market.entries[written][0] <= now_ms:
                at_ms, sequence, fields = market.entries[written]
                xadd(client, at_ms, fields, sequence)
                written += 1
            if now_ms < end_ms:
                unbroken.poll(now_ms)
                if dice.random() < 0.3:
                    restarted = make(server.url, recorded[-depth:])
                restarted.poll(now_ms)
        expected, got = collect(unbroken, index), collect(restarted, index)
        assert got == expected
        record(recorded, got)
        for name, count in got.feed_counts.items():
            totals[name] = totals.get(name, 0) + count
    assert {"late", "future", "malformed", "ignored", "skipped"} == set(totals)
    assert not [notice for notice in unbroken.notices() if not notice.startswith("malformed")]


def test_every_entry_is_counted_in_exactly_one_window(server: RedisServer, make: Any) -> None:
    feed, recorded = make(server.url), Recorded()
    seen: list[int | None] = []
    for index in range(6):
        for number in range(index + 1):
            add(server, window(index) + number, fill(window(index) + number))
        feed = make(server.url, recorded)
        got = collect(feed, index)
        record(recorded, got)
        seen.append(fills_of(got)["BTCUSDT"])
        assert got.feed_position == f"{window(index) + index}-0"
    assert seen == [1, 2, 3, 4, 5, 6]


def test_a_late_sample_is_counted_once_and_never_used(server: RedisServer, make: Any) -> None:
    feed, recorded = make(server.url), Recorded()
    add(server, window(0), fill(window(0)))
    record(recorded, collect(feed, 0))
    add(server, window(1), fill(window(0) + 5))
    add(server, window(1) + 1, fill(window(1)))
    feed = make(server.url, recorded)
    got = collect(feed, 1)
    assert fills_of(got) == {"BTCUSDT": 1} and got.feed_counts == {"late": 1}
    record(recorded, got)
    add(server, window(2), fill(window(2)))
    feed = make(server.url, recorded)
    got = collect(feed, 2)
    assert fills_of(got) == {"BTCUSDT": 1} and got.feed_counts == {}


def test_a_new_ledger_begins_one_interval_before_its_first_window(
    server: RedisServer, make: Any
) -> None:
    for back_ms in (3 * INTERVAL_MS, INTERVAL_MS + 1, INTERVAL_MS, 1, 0):
        add(server, window(0) - back_ms, fill(window(0) - back_ms))
    feed: RedisStreamFeed = make(server.url)
    feed.poll(window(0) + 5)
    got = collect(feed, 0)
    assert fills_of(got) == {"BTCUSDT": 1}
    assert got.feed_counts == {"skipped": 2}
    # The one before counts in the lookback.
    assert got.symbols["BTCUSDT"].kpis["maker_taker_ratio"] == 1.0


def test_the_last_complete_window_is_read_whole_if_it_is_the_first_collected(
    server: RedisServer, make: Any
) -> None:
    for index in range(-3, 2):
        add(server, window(index), fill(window(index)))
    feed: RedisStreamFeed = make(server.url)
    feed.poll(window(1) + 5)
    assert fills_of(collect(feed, 0)) == {"BTCUSDT": 1}
    assert fills_of(collect(feed, 1)) == {"BTCUSDT": 1}


def test_a_window_collected_late_takes_nothing_from_the_next(
    server: RedisServer, make: Any
) -> None:
    """What is in the stream by then isn't ahead of its time, though it is beyond the lateness."""
    for index, into_ms in ((0, 0), (1, LATENESS_MS), (1, LATENESS_MS + 1), (1, INTERVAL_MS - 1)):
        add(server, window(index) + into_ms, fill(window(index) + into_ms))
    feed, recorded = make(server.url), Recorded()
    got = collect(feed, 0)
    assert fills_of(got) == {"BTCUSDT": 1} and got.feed_counts == {}
    record(recorded, got)
    restarted = make(server.url, recorded)
    got = collect(feed, 1)
    assert fills_of(got) == {"BTCUSDT": 3} and got.feed_counts == {}
    assert collect(restarted, 1) == got


def test_what_is_stamped_ahead_of_its_id_is_counted_and_not_used(
    server: RedisServer, make: Any
) -> None:
    add(server, window(0), fill(window(1) + LATENESS_MS + 1))
    feed = make(server.url)
    assert collect(feed, 0).feed_counts == {"future": 1}
    assert collect(feed, 1).symbols == {}


def test_a_clock_that_was_ahead_for_a_while_loses_nothing(server: RedisServer, make: Any) -> None:
    steady: RedisStreamFeed = make(server.url)
    jumpy: RedisStreamFeed = make(server.url)
    for index in range(4):
        add(server, window(index), fill(window(index)))
        jumpy.poll(window(index + 100))
        assert collect(jumpy, index) == collect(steady, index)


def test_ready_kpis_long_gone_are_the_same_after_a_restart(server: RedisServer, make: Any) -> None:
    unbroken, recorded = make(server.url), Recorded()
    add(server, window(0), {"ts": str(window(0)), "symbol": "BTCUSDT", "anomaly_score": "1"})
    stale: dict[str, list[str]] = {}
    for index in range(15):
        add(server, window(index) + 1, fill(window(index), "ETH-USD"))
        expected = collect(unbroken, index)
        assert collect(make(server.url, recorded[-8:], stale=stale), index) == expected
        record(recorded, expected)
        stale = {
            symbol: [kpi for kpi, reading in got.kpis.items() if reading is Defect.STALE]
            for symbol, got in expected.symbols.items()
        }
    assert stale["BTCUSDT"] == ["anomaly_score"]


@pytest.mark.parametrize("name", ["data", "json", "payload"])
def test_an_entry_may_hold_json(server: RedisServer, make: Any, name: str) -> None:
    kpis = {"ts": window(0), "symbol": "ETH-USD", "edge_bps": 2.75}
    add(server, window(0), {name: json.dumps([kpis, fill(window(0))])})
    feed = make(server.url)
    got = collect(feed, 0)
    assert got.symbols["ETH-USD"] == SymbolReadings(kpis={"edge_bps": 2.75})
    # Numbers in quotes are a mistake in JSON.
    assert got.feed_counts == {"malformed": 1}


def test_malformed_entries_are_counted_named_once_and_no_data(
    server: RedisServer, make: Any
) -> None:
    for number, fields in enumerate(
        [
            {"data": "{"},
            {"data": "\x00"},
            fill(window(0), price=-1),
            {"x": "y"},
            fill(0, quantity=""),
        ]
    ):
        add(server, window(0) + number, fields)
        add(server, window(0) + number, fields, sequence=1)
    feed = make(server.url)
    got = collect(feed, 0)
    assert got.symbols == {} and got.feed_counts == {"malformed": 10}
    notices = feed.notices()
    assert len(notices) == len(set(notices)) < 10
    assert all(notice.startswith("malformed: ") for notice in notices)
    collect(feed, 1)
    assert feed.notices() == []


def test_foreign_symbols_are_ignored_and_counted(server: RedisServer, make: Any) -> None:
    add(server, window(0), fill(window(0), "DOGEUSDT"))
    got = collect(make(server.url), 0)
    assert got.symbols == {} and got.feed_counts == {"ignored": 1}


def test_a_stream_that_isnt_there_is_nothing_and_said_once(server: RedisServer, make: Any) -> None:
    feed = make(server.url)
    for index in range(2):
        got = collect(feed, index)
        assert got.symbols == {} and got.feed_counts == {"missing": 1}
    (notice,) = feed.notices()
    assert "no such stream" in notice
    add(server, window(2), fill(window(2)))
    assert fills_of(collect(feed, 2)) == {"BTCUSDT": 1}


def test_a_key_that_is_no_stream_is_nothing(server: RedisServer, make: Any) -> None:
    server.client().set(KEY, "x")
    feed = make(server.url)
    assert collect(feed, 0).symbols == {}
    (notice,) = feed.notices()
    assert "WRONGTYPE" in notice or "wrong kind" in notice


def test_trimmed_before_it_was_read_is_noticed(server: RedisServer, make: Any) -> None:
    feed, recorded = make(server.url), Recorded()
    add(server, window(0), fill(window(0)))
    record(recorded, collect(feed, 0))
    for number in range(10):
        add(server, window(1) + number, fill(window(1) + number))
    server.client().xtrim(KEY, maxlen=4, approximate=False)
    restarted = make(server.url, recorded)
    for number, (reader, counted) in enumerate(((feed, 6), (restarted, 1))):
        got = collect(reader, 1)
        assert got.feed_counts == {"trimmed": counted}
        # What was seen isn't the whole.
        assert got.symbols["BTCUSDT"].kpis["edge_bps"] is Defect.DISCONNECTED
        (notice,) = reader.notices()
        assert "stream was trimmed" in notice
        add(server, window(2) + number, fill(window(2)))
        got = collect(reader, 2)
        assert isinstance(got.symbols["BTCUSDT"].kpis["edge_bps"], float)
        assert "trimmed" not in got.feed_counts


def test_trimmed_behind_what_was_read_is_no_loss(server: RedisServer, make: Any) -> None:
    feed = make(server.url)
    for index in range(4):
        add(server, window(index), fill(window(index)))
        got = collect(feed, index)
        assert fills_of(got) == {"BTCUSDT": 1} and got.feed_counts == {}
        server.client().xtrim(KEY, maxlen=0, approximate=False)
    assert feed.notices() == []


def test_an_incomplete_lookback_after_trimming_is_said(server: RedisServer, make: Any) -> None:
    feed, recorded = make(server.url), Recorded()
    for index in range(4):
        add(server, window(index), fill(window(index)))
        record(recorded, collect(feed, index))
    server.client().xtrim(KEY, maxlen=1, approximate=False)
    add(server, window(4), fill(window(4)))
    restarted = make(server.url, recorded)
    got = collect(restarted, 4)
    assert got.feed_counts == {} and got.symbols["BTCUSDT"].kpis["maker_taker_ratio"] == 1.0
    (notice,) = restarted.notices()
    assert "lookback is incomplete" in notice


def test_killed_and_started_again_it_goes_on_where_it_was(tmp_path: Path, make: Any) -> None:
    with RedisServer(tmp_path, appendonly="yes", appendfsync="always") as server:
        feed: RedisStreamFeed = make(server.url)
        add(server, window(0), fill(window(0)))
        assert fills_of(collect(feed, 0)) == {"BTCUSDT": 1}
        add(server, window(1), fill(window(1)))
        server.kill()
        for index in (1, 2):
            feed.poll(window(index) + 5)
            got = collect(feed, index)
            assert got.symbols == {} and got.feed_counts == {"unreachable": 1}
            assert got.feed_position == f"{window(0)}-0"
        assert len(feed.notices()) == 1
        server.start()
        add(server, window(3), fill(window(3)))
        got = collect(feed, 3)
        assert fills_of(got) == {"BTCUSDT": 1} and got.feed_counts == {"late": 1}
        (notice,) = feed.notices()
        assert notice.endswith("back")


def test_a_restart_while_redis_is_down_goes_on_where_it_was(tmp_path: Path, make: Any) -> None:
    with RedisServer(tmp_path, appendonly="yes", appendfsync="always") as server:
        unbroken, recorded = make(server.url), Recorded()
        for index in range(3):
            for back in range(3):
                at_ms = window(index) + back
                add(server, at_ms, fill(at_ms, price=100 + index + back))
            record(recorded, collect(unbroken, index))
        server.kill()
        restarted = make(server.url, recorded)
        for index in (3, 4):
            got = collect(restarted, index)
            assert got == collect(unbroken, index)
            record(recorded, got)
        again = make(server.url, recorded)
        server.start()
        add(server, window(5), fill(window(5)))
        add(server, window(5) + 1, fill(window(4)))
        expected = collect(unbroken, 5)
        assert expected.feed_counts == {"late": 1}
        assert collect(restarted, 5) == expected == collect(again, 5)


def test_a_server_that_lost_the_stream_is_no_whole_window(tmp_path: Path, make: Any) -> None:
    with RedisServer(tmp_path) as server:
        feed = make(server.url)
        for number in range(5):
            add(server, window(0) + number, fill(window(0)))
        assert fills_of(collect(feed, 0)) == {"BTCUSDT": 5}
        server.kill()
        server.start()
        add(server, window(1), fill(window(1)))
        got = collect(feed, 1)
        assert got.symbols["BTCUSDT"].kpis["edge_bps"] is Defect.DISCONNECTED
        assert got.feed_counts == {"trimmed": 1}
        add(server, window(2), fill(window(2)))
        assert isinstance(collect(feed, 2).symbols["BTCUSDT"].kpis["edge_bps"], float)


@pytest.mark.parametrize("mode", ["stall", "slow", "reset", "refuse"])
def test_a_harmed_connection_costs_one_timeout_and_nothing_is_lost(
    server: RedisServer, make: Any, mode: Any
) -> None:
    with TcpProxy(server.port) as proxy:
        feed: RedisStreamFeed = make(f"redis://127.0.0.1:{proxy.port}/0")
        add(server, window(0), fill(window(0)))
        assert fills_of(collect(feed, 0)) == {"BTCUSDT": 1}
        proxy.mode = mode
        if mode == "refuse":
            proxy.cut()
        began = time.monotonic()
        for index in (1, 2, 3):
            add(server, window(index), fill(window(index)))
            assert collect(feed, index).symbols == {}
            for moment in range(10):
                feed.poll(window(index + 1) + moment)
        # The bound is the behaviour: one timeout a window, and none between windows.
        assert time.monotonic() - began < 3 * 0.5 + 3
        assert len(feed.notices()) == 1
        proxy.mode = "pass"
        add(server, window(4), fill(window(4)))
        got = collect(feed, 4)
        assert fills_of(got) == {"BTCUSDT": 1} and got.feed_counts == {"late": 3}


def test_a_server_that_isnt_redis_is_nothing(make: Any) -> None:
    for answer in (
        b"*1\r\n" * 20_000,
        b":abc\r\n",
        b"*2\r\n$3\r\nabc\r\n:1\r\n",
        b"*0\r\n",
        b"$-1\r\n",
    ):
        with raw_server(answer) as port:
            feed = make(f"redis://127.0.0.1:{port}/0", timeout_sec=0.2)
            assert collect(feed, 0).symbols == {}
            assert feed.notices()


def test_more_than_can_be_read_in_time_is_no_whole_window(
    server: RedisServer, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds.redis_entries, "PAGE_ENTRIES", 2)
    for number in range(20):
        add(server, window(0) + number, fill(window(0) + number))
    feed: RedisStreamFeed = make(server.url)
    monkeypatch.setattr("feeds.redis_stream.COLLECT_SEC", -1.0)
    got = collect(feed, 0)
    assert got.feed_counts == {"behind": 1} and got.symbols == {}
    monkeypatch.undo()
    assert collect(feed, 1).feed_counts == {"late": 20}


def test_a_limited_user_is_enough_and_isnt_shown(server: RedisServer, make: Any) -> None:
    add(server, window(0), fill(window(0)))
    server.client().acl_setuser(
        "reader", enabled=True, passwords=["+s3cret"], keys=[KEY], commands=["+xinfo", "+xrange"]
    )
    feed = make(f"redis://reader:s3cret@127.0.0.1:{server.port}/0")
    assert fills_of(collect(feed, 0)) == {"BTCUSDT": 1}
    assert feed.description == f"redis-stream:127.0.0.1:{server.port}/0 {KEY}"


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("redis-stream:127.0.0.1:6379/0 fills", ("0", "fills")),
        ("redis-stream:redis.example.com:7000/12 a b 0/1 c", ("12", "a b 0/1 c")),
        ("redis-stream:unix socket fills", (None, "fills")),
        ("redis:127.0.0.1:6379/0 fills", None),
        ("mock://healthy?seed=0", None),
    ],
)
def test_what_stream_a_description_means(
    description: str, expected: tuple[str | None, str] | None
) -> None:
    assert stream_of(description) == expected


@pytest.mark.parametrize("position", ["", "5", "a-b", "1-2-3", "-1-0", "1" * 50 + "-0"])
def test_a_malformed_position_is_refused(make: Any, position: str) -> None:
    with pytest.raises(BadInput, match="expected an id"):
        make("redis://localhost", [(window(0), position)])


def test_recorded_windows_must_be_in_order(make: Any) -> None:
    with pytest.raises(BadInput, match="in order"):
        make("redis://localhost", [(window(1), "1-0"), (window(0), "2-0")])


@pytest.mark.skipif(REAL_DATA is None, reason="LIVE_REAL_DATA isn't set")
@pytest.mark.parametrize("name", ["binance_6sym_sim_fills", "extendedbot_btc_fills"])
@pytest.mark.parametrize("restarts", [False, True])
def test_real_fills_give_the_windows_of_one_aggregation(
    server: RedisServer, make: Any, name: str, restarts: bool
) -> None:
    rows = real_rows(name)
    symbols = sorted({row["symbol"] for row in rows})
    minute_ms = 60_000
    starts = sorted({row["ts"] - row["ts"] % minute_ms for row in rows})
    once = Aggregator(symbols, interval_ms=minute_ms)
    fills = 0
    for row in rows:
        for sample in parse_message(msgspec.json.encode(row)):
            # Some of the fills have no mid.
            if not isinstance(sample, MalformedSample):
                once.add(sample)
                fills += isinstance(sample, Fill)
    expected = [once.close(start_ms, now_ms=starts[-1] + minute_ms) for start_ms in starts]

    recorded: Recorded = []
    feed: RedisStreamFeed = make(server.url, symbols=symbols, interval_ms=minute_ms)
    client, waiting, got = server.client(), deque(rows), []
    for start_ms in starts:
        end_ms = start_ms + minute_ms
        with client.pipeline(transaction=False) as pipeline:
            while waiting and waiting[0]["ts"] <= end_ms + feed.lateness_ms:
                row = waiting.popleft()
                fields: dict[Any, Any] = {name: _text(value) for name, value in row.items()}
                pipeline.xadd(KEY, fields, id=f"{row['ts']}-*")
            pipeline.execute()
        if restarts:
            feed = make(server.url, recorded[-8:], symbols=symbols, interval_ms=minute_ms)
        got.append(feed.collect(start_ms, end_ms))
        record(recorded, got[-1])
    assert [readings.symbols for readings in got] == [readings.symbols for readings in expected]
    assert sum(count or 0 for readings in got for count in fills_of(readings).values()) == fills
    assert sum(readings.feed_counts.get("malformed", 0) for readings in got) == len(rows) - fills


def real_rows(name: str) -> list[dict[str, Any]]:
    """Return real fills as messages, in order of time."""
    table = pq.read_table(Path(REAL_DATA or "") / "raw" / f"{name}.parquet")
    rows = []
    for row in table.to_pylist():
        ts_ms = int(row["ts"].timestamp() * 1000)
        rows.append({name: value for name, value in row.items() if value is not None})
        rows[-1] |= {"type": "fill", "ts": ts_ms}
    return sorted(rows, key=lambda row: row["ts"])


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_the_newest_sample_is_known_again_after_a_restart(server: RedisServer, make: Any) -> None:
    add(server, START_MS + 3, fill(START_MS + 1))
    add(server, START_MS + 4, {"data": "{"})
    add(server, START_MS + 5, fill(START_MS + 5, "DOGEUSDT"))
    add(server, START_MS + 6, fill(window(5)))
    feed = make(server.url)
    assert feed.newest_ms is None
    readings = collect(feed, 0)
    assert feed.newest_ms == START_MS + 1
    recorded: Recorded = []
    record(recorded, readings)
    again = make(server.url, recorded)
    collect(again, 1)
    assert again.newest_ms == START_MS + 1
