"""The Redis hash feed reads what is there, in one bounded question, and never raises."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from raw_server import raw_server
from servers import RedisServer, TcpProxy

from domain.errors import BadInput
from domain.kpis import Defect
from domain.windows import SymbolReadings, WindowReadings, format_time
from feeds.base import LiveFeed
from feeds.redis_hash import RedisHashFeed
from redis_link.client import BoundedRedis, open_redis

MINUTE_MS = 60_000
START_MS = 1_767_621_600_000
END_MS = START_MS + MINUTE_MS
SYMBOLS = ("BTCUSDT", "ETH-USD")
GOOD = {
    "edge_bps": "3.5",
    "maker_taker_ratio": "0.9",
    "risk_ratio": "0.2",
    "p95_latency_ms": "180",
    "anomaly_score": "-0.5",
}
GOOD_KPIS = {name: float(text) for name, text in GOOD.items()}


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
        url: str, symbols: tuple[str, ...] = SYMBOLS, timeout_sec: float = 0.5, **options: Any
    ) -> RedisHashFeed:
        options.setdefault("env", "dev")
        options.setdefault("now_ms", lambda: 0)
        client = open_redis(url, env=options["env"], timeout_sec=timeout_sec)
        clients.append(client)
        return RedisHashFeed(client, symbols, exchange="bybit", interval_ms=MINUTE_MS, **options)

    yield make
    for client in clients:
        client.close()


def put(server: RedisServer, symbol: str = "BTCUSDT", env: str = "dev", **fields: Any) -> None:
    client = server.client()
    for name, value in fields.items():
        client.hset(f"{env}:bybit:shadow:latest:{symbol}", name, value)


def collect(feed: LiveFeed) -> WindowReadings:
    return feed.collect(START_MS, END_MS)


def test_every_symbols_hash_is_read(server: RedisServer, make: Any) -> None:
    feed = make(server.url)
    put(server, "BTCUSDT", ts=str(END_MS - 1000), notional="1250.5", fills="17", **GOOD)
    put(server, "ETH-USD", ts=str(END_MS / 1000 - 1), edge_bps="2.0")
    put(server, "SOLUSDT", ts=str(END_MS - 1000), edge_bps="1.0")
    assert collect(feed) == WindowReadings(
        start_ms=START_MS,
        symbols={
            "BTCUSDT": SymbolReadings(kpis=dict(GOOD_KPIS), notional=1250.5, fills=17),
            "ETH-USD": SymbolReadings(kpis={"edge_bps": 2.0}),
        },
    )
    assert feed.notices() == []


@pytest.mark.parametrize(
    "ts",
    [
        str(END_MS),
        str(END_MS // 1000),
        f"{END_MS / 1000:.3f}",
        format_time(END_MS),
        "2026-01-05T15:01:00+01:00",
    ],
)
def test_ts_is_seconds_milliseconds_or_iso_text(server: RedisServer, make: Any, ts: str) -> None:
    put(server, ts=ts, edge_bps="3")
    assert collect(make(server.url, kpi_max_age_ms=0)).symbols["BTCUSDT"].kpis == {"edge_bps": 3.0}


@pytest.mark.parametrize(
    ("age_ms", "expected"),
    [
        (0, 3.0),
        (2 * MINUTE_MS, 3.0),
        (2 * MINUTE_MS + 1, Defect.STALE),
        (-2_000, 3.0),
        (-2_001, Defect.MALFORMED),
    ],
)
def test_a_hash_counts_while_it_is_young_and_not_of_the_future(
    server: RedisServer, make: Any, age_ms: int, expected: float | Defect
) -> None:
    put(server, ts=str(END_MS - age_ms), edge_bps="3", notional="5", fills="1")
    got = collect(make(server.url)).symbols["BTCUSDT"]
    known = (5.0, 1) if expected == 3.0 else (None, None)
    assert got == SymbolReadings(kpis={"edge_bps": expected}, notional=known[0], fills=known[1])


@pytest.mark.parametrize(
    ("env", "allow", "expected"),
    [
        ("dev", False, 3.0),
        ("staging", False, 3.0),
        ("prod", True, 3.0),
        ("prod", False, Defect.UNTIMED),
    ],
)
def test_without_ts_it_depends_on_the_environment(
    server: RedisServer, make: Any, env: str, allow: bool, expected: float | Defect
) -> None:
    for symbol in SYMBOLS:
        put(server, symbol, env=env, edge_bps="3")
    feed = make(server.url, env=env, allow_untimed=allow)
    for _ in range(2):
        got = collect(feed)
        assert got.symbols == {
            symbol: SymbolReadings(kpis={"edge_bps": expected}) for symbol in SYMBOLS
        }
        assert got.feed_counts == {"untimed": 2}
    (notice,) = feed.notices()
    assert "no ts" in notice


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nan", Defect.NAN),
        ("-Infinity", Defect.INFINITE),
        ("1e999", Defect.INFINITE),
        ("abc", Defect.MALFORMED),
        ("1,5", Defect.MALFORMED),
        ("1_000", Defect.MALFORMED),
        ("null", Defect.MALFORMED),
        ("٣", Defect.MALFORMED),
        ("9" * 10_000, Defect.MALFORMED),
    ],
)
def test_what_is_no_number_is_a_defect_of_that_kpi_alone(
    server: RedisServer, make: Any, text: str, expected: Defect
) -> None:
    put(server, ts=str(END_MS), edge_bps=text, risk_ratio="0.1")
    feed = make(server.url)
    for _ in range(2):
        got = collect(feed)
        assert got.symbols["BTCUSDT"].kpis == {"edge_bps": expected, "risk_ratio": 0.1}
        assert got.feed_counts == {"malformed": 1}
    (notice,) = feed.notices()
    assert "edge_bps" in notice and len(notice) < 250


def test_bytes_that_are_no_text_are_a_defect(server: RedisServer, make: Any) -> None:
    put(server, ts=str(END_MS), edge_bps=b"\xff\xfe", risk_ratio="0.1")
    got = collect(make(server.url))
    assert got.symbols["BTCUSDT"].kpis == {"edge_bps": Defect.MALFORMED, "risk_ratio": 0.1}


def test_an_unreadable_ts_makes_the_kpis_malformed(server: RedisServer, make: Any) -> None:
    put(server, ts="yesterday", edge_bps="3", risk_ratio="0.1")
    feed = make(server.url)
    got = collect(feed)
    assert set(got.symbols["BTCUSDT"].kpis.values()) == {Defect.MALFORMED}
    assert got.feed_counts == {"malformed": 1}


def test_unusable_notional_and_fills_are_unknown(server: RedisServer, make: Any) -> None:
    put(server, ts=str(END_MS), edge_bps="3", notional="-1", fills="2.5")
    got = collect(make(server.url))
    assert got.symbols["BTCUSDT"] == SymbolReadings(kpis={"edge_bps": 3.0})
    assert got.feed_counts == {"malformed": 2}


def test_empty_fields_and_other_fields_are_nothing(server: RedisServer, make: Any) -> None:
    put(server, ts=str(END_MS), edge_bps="", comment="x" * 1_000_000)
    assert collect(make(server.url)) == WindowReadings(start_ms=START_MS)


def test_a_key_of_the_wrong_type_is_nothing_and_named_once(server: RedisServer, make: Any) -> None:
    server.client().set("dev:bybit:shadow:latest:BTCUSDT", "3.5")
    put(server, "ETH-USD", ts=str(END_MS), edge_bps="3")
    feed = make(server.url)
    for _ in range(2):
        got = collect(feed)
        assert got.symbols == {"ETH-USD": SymbolReadings(kpis={"edge_bps": 3.0})}
        assert got.feed_counts == {"malformed": 1}
    (notice,) = feed.notices()
    assert "BTCUSDT" in notice


def test_the_key_can_be_another(server: RedisServer, make: Any) -> None:
    server.client().hset("kpi/BTCUSDT", mapping={"ts": str(END_MS), "edge_bps": "3"})
    feed = make(server.url, kpi_key="kpi/{symbol}")
    assert collect(feed).symbols == {"BTCUSDT": SymbolReadings(kpis={"edge_bps": 3.0})}
    assert feed.description == f"redis:127.0.0.1:{server.port}/0 kpi/{{symbol}}"


@pytest.mark.parametrize("key", ["kpi", "{symbol", "{symbol.upper}", "{other}:{symbol}", "{}"])
def test_a_key_that_is_no_template_is_refused(make: Any, key: str) -> None:
    with pytest.raises(BadInput, match="--kpi-key"):
        make("redis://localhost", kpi_key=key)


def test_redis_killed_and_started_again_is_said_once_each(tmp_path: Path, make: Any) -> None:
    with RedisServer(tmp_path) as server:
        feed = make(server.url)
        put(server, ts=str(END_MS), edge_bps="3")
        assert collect(feed).symbols
        server.kill()
        for _ in range(3):
            got = collect(feed)
            assert got == WindowReadings(start_ms=START_MS, feed_counts={"unreachable": 1})
        assert len(feed.notices()) == 1
        server.start()
        put(server, ts=str(END_MS), edge_bps="4")
        assert collect(feed).symbols["BTCUSDT"].kpis == {"edge_bps": 4.0}
        (notice,) = feed.notices()
        assert notice.endswith("back")


def test_redis_may_be_missing_from_the_start(tmp_path: Path, make: Any) -> None:
    server = RedisServer(tmp_path)
    feed = make(server.url)
    assert collect(feed).symbols == {}
    with server:
        put(server, ts=str(END_MS), edge_bps="4")
        assert collect(feed).symbols["BTCUSDT"].kpis == {"edge_bps": 4.0}


@pytest.mark.parametrize("mode", ["stall", "slow", "reset", "refuse"])
def test_a_harmed_connection_is_nothing_within_one_timeout(
    server: RedisServer, make: Any, mode: Any
) -> None:
    put(server, ts=str(END_MS), edge_bps="3", risk_ratio="0.1")
    with TcpProxy(server.port) as proxy:
        feed = make(f"redis://127.0.0.1:{proxy.port}/0")
        assert collect(feed).symbols
        proxy.mode = mode
        if mode == "refuse":
            proxy.cut()
        began = time.monotonic()
        for _ in range(4):
            assert collect(feed).symbols == {}
        # The bound is the behaviour: 4 windows of 0.5 s each, and a machine's own slowness.
        assert time.monotonic() - began < 4 * 0.5 + 3
        assert len(feed.notices()) == 1
        proxy.mode = "pass"
        assert collect(feed).symbols
        assert len(feed.notices()) == 1


def test_nothing_is_asked_twice(server: RedisServer, make: Any) -> None:
    with TcpProxy(server.port, mode="reset") as proxy:
        feed = make(f"redis://127.0.0.1:{proxy.port}/0")
        for windows in range(1, 4):
            assert collect(feed).symbols == {}
            assert proxy.accepted == windows


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b":abc\r\n",
        b"*1\r\n" * 20_000,
        b"$-7\r\n",
        b"*3\r\n+\r\n",
        b"+OK\r\n",
        b"-ERR no\r\n",
        b"*2\r\n$3\r\nabc\r\n:1\r\n",
        b"\x00" * 100,
        b"$999999999999\r\n",
    ],
)
def test_a_server_that_isnt_redis_is_nothing(make: Any, answer: bytes) -> None:
    with raw_server(answer) as port:
        feed = make(f"redis://127.0.0.1:{port}/0", timeout_sec=0.2)
        for _ in range(2):
            assert collect(feed).symbols == {}
        assert feed.notices()


def test_an_answer_that_is_too_much_for_memory_is_nothing(server: RedisServer, make: Any) -> None:
    put(server, ts=str(END_MS), risk_ratio="0.1", edge_bps="9" * (80 << 20))
    feed = make(server.url, timeout_sec=60.0)
    assert collect(feed).symbols == {}
    (notice,) = feed.notices()
    assert "an answer of over 64 MiB" in notice
    put(server, edge_bps="3")
    assert collect(feed).symbols["BTCUSDT"].kpis == {"edge_bps": 3.0, "risk_ratio": 0.1}


def test_a_user_limited_to_its_keys_is_enough(server: RedisServer, make: Any) -> None:
    put(server, ts=str(END_MS), edge_bps="3")
    put(server, env="prod", ts=str(END_MS), edge_bps="3")
    server.client().acl_setuser(
        "bot", enabled=True, passwords=["+s3cret"], keys=["dev:*"], commands=["+hmget"]
    )
    url = f"redis://bot:s3cret@127.0.0.1:{server.port}/0"
    feed = make(url)
    collected = collect(feed)
    assert collected.symbols == {"BTCUSDT": SymbolReadings(kpis={"edge_bps": 3.0})}
    feed = make(url, env="prod")
    assert collect(feed).symbols == {}
    assert not any("s3cret" in notice for notice in feed.notices())


def test_a_wrong_password_shows_nothing_of_it(server: RedisServer, make: Any) -> None:
    feed = make(f"redis://someone:hunter2@127.0.0.1:{server.port}/3")
    assert collect(feed).symbols == {}
    (notice,) = feed.notices()
    said = notice + feed.description
    assert "hunter2" not in said and "someone" not in said
    assert feed.description.startswith(f"redis:127.0.0.1:{server.port}/3 ")


def test_a_hash_written_just_before_it_is_read_is_none_of_the_future(
    server: RedisServer, make: Any
) -> None:
    late_ms = END_MS + 9_000
    put(server, edge_bps="3", ts=str(late_ms))
    window = make(server.url, now_ms=lambda: late_ms).collect(START_MS, END_MS)
    assert window.symbols["BTCUSDT"].kpis == {"edge_bps": 3.0}


def test_the_newest_sample_is_the_latest_ts_that_was_read(server: RedisServer, make: Any) -> None:
    feed = make(server.url)
    assert feed.newest_ms is None
    put(server, "BTCUSDT", edge_bps="3")
    collect(feed)
    assert feed.newest_ms is None, "an untimed hash has no time"
    put(server, "BTCUSDT", ts=str(END_MS - 9_000), edge_bps="3")
    put(server, "ETH-USD", ts=str(END_MS - 4_000), edge_bps="3")
    put(server, "SOLUSDT", ts=str(END_MS - 1), edge_bps="3")
    collect(feed)
    assert feed.newest_ms == END_MS - 4_000
    # A pipeline whose clock was set back has written nothing newer.
    put(server, "ETH-USD", ts=str(END_MS - 8_000))
    collect(feed)
    assert feed.newest_ms == END_MS - 4_000


@pytest.mark.parametrize(
    "fields",
    [
        {"ts": str(END_MS + 2_001), "edge_bps": "3"},
        {"ts": "soon", "edge_bps": "3"},
        {"ts": str(END_MS), "edge_bps": "three", "risk_ratio": "nan"},
        {"ts": str(END_MS), "notional": "5"},
    ],
)
def test_what_is_of_the_future_or_malformed_is_no_newest_sample(
    server: RedisServer, make: Any, fields: dict[str, str]
) -> None:
    feed = make(server.url)
    put(server, "ETH-USD", ts=str(END_MS - 5_000), edge_bps="3")
    put(server, "BTCUSDT", **fields)
    collect(feed)
    assert feed.newest_ms == END_MS - 5_000


def test_a_stale_hash_still_says_how_old_it_is(server: RedisServer, make: Any) -> None:
    feed = make(server.url)
    put(server, ts=str(END_MS - 10 * MINUTE_MS), edge_bps="3")
    assert collect(feed).symbols["BTCUSDT"].kpis == {"edge_bps": Defect.STALE}
    assert feed.newest_ms == END_MS - 10 * MINUTE_MS


def test_an_outage_makes_no_sample_newer(server: RedisServer, make: Any) -> None:
    with TcpProxy(server.port) as proxy:
        feed = make(f"redis://127.0.0.1:{proxy.port}", timeout_sec=0.2)
        put(server, ts=str(END_MS - 1_000), edge_bps="3")
        collect(feed)
    assert feed.collect(END_MS, END_MS + MINUTE_MS).feed_counts == {"unreachable": 1}
    assert feed.newest_ms == END_MS - 1_000
