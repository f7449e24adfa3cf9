"""The WebSocket feed listens, comes back, and knows for how much of a window it was there."""

import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from certificates import self_signed
from raw_server import raw_server
from servers import TcpProxy, WebSocketServer, free_port, wait_until

from domain.errors import BadInput
from domain.kpis import Defect
from domain.windows import SymbolReadings, WindowReadings
from feeds.aggregation import Aggregator
from feeds.mailbox import Limits
from feeds.samples import Fill, MalformedSample, parse_message
from feeds.websocket import WebSocketFeed
from feeds.websocket_client import Timing, backoff_sec

INTERVAL_MS = 10_000
LATENESS_MS = 2_000
START_MS = 1_767_621_600_000
SYMBOLS = ("BTCUSDT", "ETH-USD")
QUICK = Timing(
    open_sec=0.5, ping_every_sec=60, ping_timeout_sec=60, backoff_sec=0.02, backoff_max_sec=0.1
)
REAL_DATA = os.environ.get("LIVE_REAL_DATA")


class Clock:
    """Both clocks, moved by the test: seconds since the first window's start."""

    def __init__(self) -> None:
        self.sec = 0.0

    def now_ms(self) -> int:
        return START_MS + round(self.sec * 1000)

    def monotonic(self) -> float:
        return self.sec


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(clock: Clock) -> Iterator[Any]:
    """Return a function that makes a feed, closed when the test ends."""
    made: list[WebSocketFeed] = []

    def make(url: str, symbols: tuple[str, ...] = SYMBOLS, **options: Any) -> WebSocketFeed:
        options.setdefault("interval_ms", INTERVAL_MS)
        options.setdefault("timing", QUICK)
        feed = WebSocketFeed(
            url, symbols, now_ms=clock.now_ms, monotonic=clock.monotonic, **options
        )
        made.append(feed)
        return feed

    yield make
    for feed in made:
        feed.close()


@pytest.fixture
def server() -> Iterator[WebSocketServer]:
    with WebSocketServer() as server:
        yield server


def fill(ts_ms: int, symbol: str = "BTCUSDT", **more: Any) -> dict[str, Any]:
    fields = {"type": "fill", "ts": ts_ms, "symbol": symbol, "side": "buy", "quantity": 1}
    return fields | {"price": 100.0, "mid": 100.1, "maker": True} | more


def window(index: int) -> int:
    return START_MS + index * INTERVAL_MS


def collect(feed: WebSocketFeed, clock: Clock, index: int) -> WindowReadings:
    """Collect a window when it is over and its lateness has passed."""
    clock.sec = (window(index + 1) - START_MS + LATENESS_MS) / 1000
    return feed.collect(window(index), window(index + 1))


class Told:
    """What a feed has said so far."""

    def __init__(self, feed: WebSocketFeed) -> None:
        self._feed = feed
        self.notices: list[str] = []

    def has(self, text: str, times: int = 1) -> bool:
        self._feed.poll(0)
        self.notices += self._feed.notices()
        return sum(text in notice for notice in self.notices) >= times


def send(feed: WebSocketFeed, server: WebSocketServer, *messages: str | bytes) -> None:
    """Send messages, and return when the feed has them."""
    wait_until(lambda: feed._mailbox.is_connected and server.connections, "a connection")
    before = feed._mailbox.received
    server.send(*messages)
    wait_until(lambda: feed._mailbox.received == before + len(messages), "the messages")


def edge(readings: WindowReadings, symbol: str = "BTCUSDT") -> object:
    return readings.symbols[symbol].kpis.get("edge_bps")


def test_a_frame_holds_one_message_or_many(
    server: WebSocketServer, make: Any, clock: Clock
) -> None:
    feed = make(server.url)
    server.wait_for_client()
    one = fill(window(0) + 5)
    many = [fill(window(0), "ETH-USD", side="sell"), {"ts": window(0), "symbol": "ETH-USD"}]
    many[1]["risk_ratio"] = 0.25
    send(feed, server, json.dumps(one), json.dumps(many).encode())
    got = collect(feed, clock, 0)
    assert {symbol: readings.fills for symbol, readings in got.symbols.items()} == dict.fromkeys(
        SYMBOLS, 1
    )
    assert got.symbols["ETH-USD"].kpis["risk_ratio"] == 0.25
    assert got.feed_counts == {}
    assert feed.notices() == []


def test_a_sample_belongs_to_the_window_of_its_own_time(
    server: WebSocketServer, make: Any, clock: Clock
) -> None:
    feed = make(server.url)
    server.wait_for_client()
    times = [window(1), window(0), window(1) + 1, window(0) - 1, window(1) + 60_000]
    send(feed, server, json.dumps([fill(ts_ms) for ts_ms in times]))
    got = collect(feed, clock, 0)
    assert got.symbols["BTCUSDT"].fills == 1 and got.feed_counts == {"future": 1, "skipped": 1}
    send(feed, server, json.dumps([fill(window(0) + 7), fill(window(1) + 7)]))
    got = collect(feed, clock, 1)
    assert got.symbols["BTCUSDT"].fills == 3 and got.feed_counts == {"late": 1}


def test_what_is_malformed_is_counted_named_once_and_no_data(
    server: WebSocketServer, make: Any, clock: Clock
) -> None:
    feed = make(server.url)
    server.wait_for_client()
    bad: list[str | bytes] = [
        "{",
        b"\xff\xfe",
        "[1, null]",
        "{}",
        json.dumps(fill(window(0), price=0)),
    ]
    send(feed, server, *bad, *bad)
    got = collect(feed, clock, 0)
    assert got.symbols == {} and got.feed_counts == {"malformed": 12}
    notices = feed.notices()
    assert notices and len(notices) == len(set(notices)) < 12
    send(feed, server, *bad)
    assert collect(feed, clock, 1).feed_counts == {"malformed": 6}
    assert feed.notices() == []


def test_foreign_symbols_are_ignored_and_counted(
    server: WebSocketServer, make: Any, clock: Clock
) -> None:
    feed = make(server.url)
    server.wait_for_client()
    send(feed, server, json.dumps([fill(window(0), "DOGEUSDT"), fill(window(0))]))
    got = collect(feed, clock, 0)
    assert set(got.symbols) == {"BTCUSDT"} and got.feed_counts == {"ignored": 1}


def test_a_server_stopped_and_started_again_is_said_once_each(
    server: WebSocketServer, make: Any, clock: Clock
) -> None:
    feed = make(server.url)
    told = Told(feed)
    server.wait_for_client()
    send(feed, server, json.dumps(fill(window(0))))
    assert isinstance(edge(collect(feed, clock, 0)), float)
    server.stop()
    wait_until(lambda: told.has("not connected"))
    clock.sec = 15.0
    server.start()
    server.wait_for_client()
    wait_until(lambda: told.has(": connected"))
    send(feed, server, json.dumps(fill(window(1) + 5_000)))
    # Away from 12 s to 15 s of the window from 10 s to 20 s.
    assert edge(collect(feed, clock, 1)) is Defect.DISCONNECTED
    send(feed, server, json.dumps(fill(window(2))))
    assert isinstance(edge(collect(feed, clock, 2)), float)
    assert len(told.notices) == 2 and feed.notices() == []


def test_under_a_tenth_away_is_whole_enough(
    server: WebSocketServer, make: Any, clock: Clock
) -> None:
    feed = make(server.url)
    told = Told(feed)
    server.wait_for_client()
    send(feed, server, json.dumps(fill(window(0))))
    clock.sec = 5.0
    feed._listener.confirm(5)
    server.stop()
    wait_until(lambda: told.has("not connected"))
    clock.sec = 5.9
    server.start()
    wait_until(lambda: told.has(": connected"))
    assert isinstance(edge(collect(feed, clock, 0)), float)


@pytest.mark.parametrize("code", [1000, 1008, 4000])
def test_closed_by_the_server_with_whatever_code_it_comes_back(
    server: WebSocketServer, make: Any, code: int
) -> None:
    feed = make(server.url)
    told = Told(feed)
    for times in (1, 2):
        server.wait_for_client()
        server.close_clients(code)
        wait_until(partial(told.has, f"code {code}", times))
        wait_until(partial(told.has, ": connected", times))


def test_a_reset_connection_comes_back(server: WebSocketServer, make: Any, clock: Clock) -> None:
    with TcpProxy(server.port) as proxy:
        feed = make(f"ws://127.0.0.1:{proxy.port}")
        told = Told(feed)
        server.wait_for_client()
        proxy.cut()
        wait_until(lambda: told.has("not connected (cut off)"))
        wait_until(lambda: told.has(": connected"))
        server.wait_for_client()
        send(feed, server, json.dumps(fill(window(0))))
        assert isinstance(edge(collect(feed, clock, 0)), float)


def test_a_reset_after_the_request_is_tried_again(server: WebSocketServer, make: Any) -> None:
    with TcpProxy(server.port, mode="reset") as proxy:
        told = Told(make(f"ws://127.0.0.1:{proxy.port}"))
        wait_until(lambda: proxy.accepted >= 3)
        assert told.has("not connected")
        proxy.mode = "pass"
        wait_until(lambda: told.has(": connected"))
        assert len(told.notices) == 2


@pytest.mark.parametrize("mode", ["stall", "slow"])
def test_a_server_that_accepts_and_never_answers_is_given_up(
    server: WebSocketServer, make: Any, clock: Clock, mode: Any
) -> None:
    with TcpProxy(server.port, mode=mode) as proxy:
        feed = make(f"ws://127.0.0.1:{proxy.port}")
        told = Told(feed)
        wait_until(lambda: told.has("no answer in time"))
        wait_until(lambda: proxy.accepted >= 2)
        assert collect(feed, clock, 0).symbols == {}
        proxy.mode = "pass"
        wait_until(lambda: told.has(": connected"))
        assert len(told.notices) == 2


def test_silence_after_a_ping_ends_the_connection(server: WebSocketServer, make: Any) -> None:
    timing = msgspec.structs.replace(QUICK, ping_every_sec=0.05, ping_timeout_sec=0.2)
    with TcpProxy(server.port) as proxy:
        told = Told(make(f"ws://127.0.0.1:{proxy.port}", timing=timing))
        server.wait_for_client()
        assert not told.has("not connected")
        proxy.mode = "stall"
        wait_until(lambda: told.has("nothing heard for 0.2 s after a ping"))
        proxy.mode = "pass"
        wait_until(lambda: told.has(": connected"))


def test_a_connection_fallen_silent_is_no_quiet_market(
    server: WebSocketServer, make: Any, clock: Clock
) -> None:
    with TcpProxy(server.port) as proxy:
        feed = make(f"ws://127.0.0.1:{proxy.port}")
        server.wait_for_client()
        send(feed, server, json.dumps(fill(window(0))))
        assert isinstance(edge(collect(feed, clock, 0)), float)
        proxy.mode = "stall"
        began = time.monotonic()
        # Nobody knows yet that it is dead: no ping is due for a minute.
        assert edge(collect(feed, clock, 1)) is Defect.DISCONNECTED
        # The bound is the behaviour: one question of half a second.
        assert time.monotonic() - began < 0.5 + 3
        assert feed.notices() == []


def test_a_quiet_market_is_whole(server: WebSocketServer, make: Any, clock: Clock) -> None:
    feed = make(server.url)
    server.wait_for_client()
    send(feed, server, json.dumps(fill(window(0))))
    for index in range(3):
        assert isinstance(edge(collect(feed, clock, index)), float)


def test_too_large_a_message_is_counted_and_ends_only_the_connection(
    server: WebSocketServer, make: Any, clock: Clock
) -> None:
    feed = make(server.url)
    told = Told(feed)
    server.wait_for_client()
    server.send("x" * ((1 << 20) + 1))
    wait_until(lambda: told.has("too large a message"))
    wait_until(lambda: told.has(": connected"))
    server.wait_for_client()
    send(feed, server, json.dumps(fill(window(0))))
    got = collect(feed, clock, 0)
    assert got.feed_counts == {"malformed": 1} and isinstance(edge(got), float)


def test_a_broken_frame_is_counted_and_ends_only_the_connection(
    server: WebSocketServer, make: Any, clock: Clock
) -> None:
    feed = make(server.url)
    told = Told(feed)
    server.wait_for_client()
    (connection,) = server.connections
    server.loop.call_soon_threadsafe(connection.transport.write, b"\xff" * 50)
    wait_until(lambda: told.has("broken frame"))
    wait_until(lambda: told.has(": connected"))
    assert collect(feed, clock, 0).feed_counts == {"malformed": 1}


def test_text_that_isnt_utf8_ends_nothing(server: WebSocketServer, make: Any, clock: Clock) -> None:
    feed = make(server.url)
    server.wait_for_client()
    (connection,) = server.connections
    before = feed._mailbox.received
    server.run(connection.send(b"\xff", text=True))
    wait_until(lambda: feed._mailbox.received == before + 1)
    send(feed, server, json.dumps(fill(window(0))))
    got = collect(feed, clock, 0)
    assert got.feed_counts == {"malformed": 1} and isinstance(edge(got), float)
    assert server.accepted == 1


@pytest.mark.parametrize(
    "limits", [Limits(messages=4), Limits(bytes=4 * len(json.dumps(fill(window(0)))))]
)
def test_more_than_can_be_held_is_dropped_counted_and_no_whole_window(
    server: WebSocketServer, make: Any, clock: Clock, limits: Limits
) -> None:
    feed = make(server.url, limits=limits)
    server.wait_for_client()
    send(feed, server, *[json.dumps(fill(window(0)))] * 10)
    assert feed._mailbox.received == 10
    got = collect(feed, clock, 0)
    assert got.feed_counts == {"overflow": 6}
    assert got.symbols["BTCUSDT"].fills == 4 and edge(got) is Defect.DISCONNECTED
    send(feed, server, json.dumps(fill(window(1))))
    got = collect(feed, clock, 1)
    assert got.feed_counts == {} and isinstance(edge(got), float)


def test_what_is_dropped_while_a_window_waits_may_be_of_the_next(
    server: WebSocketServer, make: Any, clock: Clock
) -> None:
    feed = make(server.url, limits=Limits(messages=1))
    server.wait_for_client()
    clock.sec = 11.0
    send(feed, server, *[json.dumps(fill(window(1)))] * 3)
    assert feed._mailbox.received == 3
    collect(feed, clock, 0)
    assert edge(collect(feed, clock, 1)) is Defect.DISCONNECTED
    send(feed, server, json.dumps(fill(window(2))))
    assert isinstance(edge(collect(feed, clock, 2)), float)


def test_secrets_of_the_url_are_used_and_never_shown(server: WebSocketServer, make: Any) -> None:
    url = f"ws://alice:hunter2@127.0.0.1:{server.port}/s3cret-path?token=t0ken"
    feed = make(url)
    server.wait_for_client()
    (connection,) = server.connections
    assert server.paths == ["/s3cret-path?token=t0ken"]
    assert connection.request is not None and "Authorization" in connection.request.headers
    told = Told(feed)
    server.stop()
    wait_until(lambda: told.has("not connected"))
    said = " ".join([feed.description, *told.notices])
    assert feed.description == f"websocket:ws://127.0.0.1:{server.port}"
    assert not any(secret in said for secret in ("alice", "hunter2", "s3cret", "t0ken"))


@pytest.mark.parametrize(
    "url",
    [
        "http://host/t0ken",
        "ws://",
        "ws:///t0ken",
        "ws://host:t0ken/",
        "ws://t0ken@host/",
        "ws://u:t0ken@host/#t0ken",
        "ws://" + "a" * 70 + "/t0ken",
        "t0ken",
    ],
)
def test_a_malformed_url_is_refused_without_showing_it(make: Any, url: str) -> None:
    with pytest.raises(BadInput) as refused:
        make(url)
    assert "t0ken" not in str(refused.value) and refused.value.__suppress_context__


def test_a_refusal_shows_the_status_and_nothing_else(make: Any) -> None:
    answer = b"HTTP/1.1 401 t0ken\r\nContent-Length: 5\r\n\r\nt0ken"
    with raw_server(answer) as port:
        told = Told(make(f"ws://127.0.0.1:{port}/?t0ken"))
        wait_until(lambda: told.has("HTTP 401"))
        assert len(told.notices) == 1 and not told.has("t0ken")


@pytest.mark.parametrize("answer", [b"\x00" * 100, b"-ERR no\r\n", b"HTTP/1.1 101 Ok\r\n\r\n"])
def test_a_server_that_speaks_something_else_is_tried_again(make: Any, answer: bytes) -> None:
    with raw_server(answer) as port:
        told = Told(make(f"ws://127.0.0.1:{port}"))
        wait_until(lambda: told.has("not connected"))
        assert len(told.notices) == 1


def test_certificates_are_checked(tmp_path: Path, make: Any, clock: Clock) -> None:
    theirs, ours = self_signed(tmp_path)
    with WebSocketServer(context=theirs) as server:
        told = Told(make(server.url))
        wait_until(lambda: told.has("certificate"))
        assert server.accepted == 0
        feed = make(server.url, ssl_context=ours)
        server.wait_for_client()
        send(feed, server, json.dumps(fill(window(0))))
        assert isinstance(edge(collect(feed, clock, 0)), float)
        assert feed.description == f"websocket:wss://127.0.0.1:{server.port}"


@pytest.mark.parametrize("state", ["listening", "stalled", "opening", "refused", "unresolved"])
def test_closing_ends_the_thread_promptly(server: WebSocketServer, make: Any, state: str) -> None:
    patient = Timing(open_sec=600, backoff_sec=600, backoff_max_sec=600)
    with TcpProxy(server.port, mode="stall" if state == "opening" else "pass") as proxy:
        port = free_port() if state == "refused" else proxy.port
        host = "unresolved.invalid" if state == "unresolved" else "127.0.0.1"
        feed = make(f"ws://{host}:{port}", timing=patient)
        told = Told(feed)
        match state:
            case "listening" | "stalled":
                server.wait_for_client()
                proxy.mode = "stall" if state == "stalled" else "pass"
            case "opening":
                wait_until(lambda: proxy.accepted)
            case _:
                wait_until(lambda: told.has("not connected"))
        began = time.monotonic()
        feed.close()
        # The bound is the behaviour: a polite goodbye takes half a second at most, twice.
        assert time.monotonic() - began < 4
        assert not [thread for thread in threading.enumerate() if thread.name == "websocket-feed"]


def test_waits_double_up_to_a_bound() -> None:
    timing = Timing()
    waits = [backoff_sec(timing, failures) for failures in range(8)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff_sec(timing, 10**9) == 30


@pytest.mark.skipif(REAL_DATA is None, reason="LIVE_REAL_DATA isn't set")
@pytest.mark.parametrize("name", ["binance_6sym_sim_fills", "extendedbot_btc_fills"])
def test_real_fills_give_the_windows_of_one_aggregation(
    server: WebSocketServer, make: Any, clock: Clock, name: str
) -> None:
    table = pq.read_table(Path(REAL_DATA or "") / "raw" / f"{name}.parquet")
    rows = [
        {key: value for key, value in row.items() if value is not None}
        | {"type": "fill", "ts": int(row["ts"].timestamp() * 1000)}
        for row in table.to_pylist()
    ]
    rows.sort(key=lambda row: row["ts"])
    minute_ms = 60_000
    symbols = tuple(sorted({row["symbol"] for row in rows}))
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

    clock.sec = (starts[0] - START_MS) / 1000
    feed = make(server.url, symbols, interval_ms=minute_ms)
    server.wait_for_client()
    wait_until(lambda: feed._mailbox.is_connected)
    waiting, got = deque(rows), []
    for start_ms in starts:
        end_ms = start_ms + minute_ms
        clock.sec = (end_ms + LATENESS_MS - START_MS) / 1000
        batch = []
        while waiting and waiting[0]["ts"] <= end_ms + LATENESS_MS:
            batch.append(waiting.popleft())
        send(
            feed,
            server,
            *(msgspec.json.encode(batch[at : at + 7]) for at in range(0, len(batch), 7)),
        )
        got.append(feed.collect(start_ms, end_ms))
    assert [readings.symbols for readings in got] == [readings.symbols for readings in expected]
    assert sum(each.fills or 0 for one in got for each in one.symbols.values()) == fills
    assert sum(one.feed_counts.get("malformed", 0) for one in got) == len(rows) - fills


def test_ready_kpis_need_no_whole_window(server: WebSocketServer, make: Any, clock: Clock) -> None:
    clock.sec = 5.0
    feed = make(server.url)
    server.wait_for_client()
    send(feed, server, json.dumps({"ts": window(0) + 6_000, "symbol": "BTCUSDT", "edge_bps": 3.5}))
    got = collect(feed, clock, 0)
    assert got.symbols == {"BTCUSDT": SymbolReadings(kpis={"edge_bps": 3.5})}


def test_the_newest_sample_is_the_latest_ts_that_was_heard(
    server: WebSocketServer, clock: Clock, make: Any
) -> None:
    feed = make(server.url)
    messages = [fill(START_MS + 7), fill(START_MS + 5), fill(START_MS + 9, "DOGEUSDT")]
    send(feed, server, *map(json.dumps, messages), "{", json.dumps(fill(window(9))))
    assert feed.newest_ms is None
    collect(feed, clock, 0)
    assert feed.newest_ms == START_MS + 7
