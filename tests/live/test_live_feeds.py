"""Live feeds through `live run`: what is stale or untimed, and no sample lost or counted twice."""

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_support import (
    LiveRedis,
    Market,
    Run,
    assert_outputs_agree,
    command,
    events,
    hash_run,
    let_windows_pass,
    running_redis,
    steady_policy,
    wait_for,
    windows,
)
from support import GOOD
from websocket_market import WebSocketMarket

from domain.events import KpiObserved, TradedWhileFrozen
from domain.kpis import Defect, Reading
from domain.windows import NOTHING
from feeds.aggregation import Aggregator
from feeds.samples import MalformedSample, parse_fields

BTC, ETH = "BTCUSDT", "ETHUSDT"
STATE = "dev:bybit:live:state"
STREAM = "dev:bybit:fills"
INTERVAL_MS = 250


@pytest.fixture(scope="module")
def one_server() -> Iterator[LiveRedis]:
    with running_redis() as server:
        yield server


@pytest.fixture
def server(one_server: LiveRedis) -> LiveRedis:
    one_server.client.flushall()
    return one_server


def kpis(observed: KpiObserved, symbol: str) -> dict[str, Reading]:
    """Return what was recorded for one symbol."""
    for seen in observed.symbols:
        if seen.memory.symbol == symbol:
            return dict(seen.readings.kpis)
    raise AssertionError(f"no {symbol}")


def test_a_stale_hash_is_no_data(server: LiveRedis, tmp_path: Path) -> None:
    with Market(server, "dev", [BTC, ETH]) as market:
        market.kpis[ETH] = {"ts": time.time() - 60}
        with Run(tmp_path, *hash_run(server.url, *steady_policy(tmp_path))) as run:
            wait_for(lambda: len(windows(tmp_path)) >= 2, "two windows")
            assert run.stop() == 0
    # What is written between a window's end and the look at the hash is ahead of it.
    edges = {kpis(observed, BTC)["edge_bps"] for observed in windows(tmp_path)}
    assert GOOD["edge_bps"] in edges
    assert edges <= {GOOD["edge_bps"], Defect.MALFORMED}
    for observed in windows(tmp_path):
        assert {*kpis(observed, ETH).values()} == {Defect.STALE}
    assert_outputs_agree(tmp_path, server)


def test_a_hash_without_ts_is_believed_in_dev_with_one_warning(
    server: LiveRedis, tmp_path: Path
) -> None:
    with Market(server, "dev", [BTC]) as market:
        market.kpis[BTC] = {"ts": None}
        market.write()
        with Run(tmp_path, *hash_run(server.url, symbols=BTC)) as run:
            wait_for(lambda: len(windows(tmp_path)) >= 3, "three windows")
            assert run.stop() == 0
    assert {kpis(observed, BTC).get("edge_bps") for observed in windows(tmp_path)[1:]} == {3.2}
    told = [line for line in run.output.splitlines() if " ts" in line]
    assert len(told) == 1, run.output


@pytest.mark.parametrize("believed", [False, True])
def test_a_hash_without_ts_is_no_data_in_prod_unless_allowed(
    server: LiveRedis, tmp_path: Path, believed: bool
) -> None:
    more = ["--allow-untimed"] if believed else []
    with Market(server, "prod", [BTC]) as market:
        market.kpis[BTC] = {"ts": None}
        options = hash_run(server.url, "--env", "prod", *more, symbols=BTC)
        with Run(tmp_path, *options) as run:
            wait_for(lambda: len(windows(tmp_path, "prod:bybit")) >= 2, "two windows")
            assert run.stop() == 0
    last = kpis(windows(tmp_path, "prod:bybit")[-1], BTC)
    if believed:
        assert last == GOOD
    else:
        assert not [value for value in last.values() if isinstance(value, float)]
    assert_outputs_agree(tmp_path, server, "prod:bybit")


class Fills:
    """Fills as a bot writes them into a stream, with what the recorder has to make of them."""

    def __init__(self, server: LiveRedis, key: str = STREAM) -> None:
        self.all: list[dict[str, str]] = []
        self._key = key
        self._client: Any = server.client
        self._chance = random.Random(7)

    def write(self, count: int = 20, **changes: str) -> None:
        for number in range(count):
            price = 100.0 + self._chance.random()
            fields = {
                "type": "fill",
                "ts": str(time.time_ns() // 1_000_000),
                "symbol": self._chance.choice([BTC, ETH]),
                "side": self._chance.choice(["buy", "sell"]),
                "price": repr(price),
                "quantity": repr(self._chance.random() + 0.1),
                "mid": repr(price + self._chance.gauss(0.03, 0.01)),
                "maker": str(number % 10 != 0).lower(),
                "latency_ms": repr(100 + 100 * self._chance.random()),
                "position_notional": repr(self._chance.gauss(0, 500)),
                "limit_notional": "5000",
                **changes,
            }
            self._client.xadd(self._key, fields)
            self.all.append(fields)

    def compare(self, seen: list[KpiObserved], *, lateness_ms: int) -> None:
        """Check that what was recorded is what one aggregator makes of all fills in one go."""
        aggregator = Aggregator([BTC, ETH], interval_ms=INTERVAL_MS, lateness_ms=lateness_ms)
        rest = [sample for fields in self.all for sample in parse_fields(fields)]
        for observed in seen:
            aggregator.advance(observed.window)
            for sample in [s for s in rest if ts_of(s) < observed.end_ms]:
                assert not isinstance(sample, MalformedSample)
                aggregator.add(sample)
            rest = [s for s in rest if ts_of(s) >= observed.end_ms]
            expected = aggregator.close(observed.window)
            for got in observed.symbols:
                assert got.readings == expected.symbols.get(got.memory.symbol, NOTHING)


def ts_of(sample: object) -> int:
    ts_ms: int = sample.ts_ms  # type: ignore[attr-defined]
    return ts_ms


def test_a_stream_is_read_once_over_kills_and_restarts(server: LiveRedis, tmp_path: Path) -> None:
    fills = Fills(server)
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(0.02):
            fills.write(3)

    writer = threading.Thread(target=write, daemon=True)
    options = [
        *hash_run(server.url, "--feed", f"redis-stream:{STREAM}"),
        *steady_policy(tmp_path),
    ]
    try:
        for turn in range(3):
            with Run(tmp_path, *options) as run:
                if turn == 0:
                    wait_for(lambda: server.client.exists("dev:bybit:live:lease"), "the runner")
                    writer.start()
                let_windows_pass(tmp_path, 3)
                if turn == 1:
                    assert run.stop() == 0
                else:
                    run.kill()
        with Run(tmp_path, *options, "--iterations", "1") as run:
            assert run.ended() == 0
    finally:
        ended.set()
        writer.join()
    recorded = windows(tmp_path)
    fills.compare(recorded, lateness_ms=INTERVAL_MS // 2)
    counted = sum(got.readings.fills or 0 for observed in recorded for got in observed.symbols)
    inside = {observed.window for observed in recorded}
    written = [int(fields["ts"]) for fields in fills.all]
    assert counted == sum(ts - ts % INTERVAL_MS in inside for ts in written) > 100
    assert not [observed for observed in recorded if observed.feed_counts.get("late")]
    assert_outputs_agree(tmp_path, server)


def test_another_key_is_not_read_from_where_the_old_one_was_left(
    server: LiveRedis, tmp_path: Path
) -> None:
    """There and back again: neither key's positions mean anything in the other."""
    steady = steady_policy(tmp_path)
    for turn, key in enumerate(("fills:a", "fills:b", "fills:a")):
        fills, seen = Fills(server, key), len(windows(tmp_path))
        options = hash_run(server.url, "--feed", f"redis-stream:{key}", *steady)
        with Run(tmp_path, *options) as run:

            def has_fills(seen: int = seen, fills: Fills = fills) -> list[KpiObserved]:
                fills.write(1)
                return [window for window in windows(tmp_path)[seen:] if has_edge(window)]

            wait_for(has_fills, "a window with an edge")
            assert run.stop() == 0
        assert "trimmed" not in run.output, f"run {turn}: {run.output}"
        for window in windows(tmp_path)[seen:]:
            assert "trimmed" not in window.feed_counts
            assert Defect.DISCONNECTED not in kpis(window, BTC).values()
    # With the same key it goes on; an entry that is gone is then missed.
    server.client.xtrim("fills:a", maxlen=0, approximate=False)
    Fills(server, "fills:a").write(1)
    with Run(tmp_path, *options) as run:
        run.says("trimmed")
        assert run.stop() == 0


def has_edge(window: KpiObserved) -> bool:
    return isinstance(kpis(window, BTC).get("edge_bps"), float)


def test_fills_that_go_on_after_a_freeze_are_reported_and_counted(
    server: LiveRedis, tmp_path: Path
) -> None:
    """The bot doesn't look at the keys: the ledger, the summary and the output say so."""
    options = hash_run(server.url, "--feed", f"redis-stream:{STREAM}", symbols=BTC)
    ended = threading.Event()

    def trade() -> None:
        fills = Fills(server)
        while not ended.wait(0.05):
            fills.write(1, symbol=BTC, side="buy", position_notional="", limit_notional="")

    bot = threading.Thread(target=trade, daemon=True)
    with Run(tmp_path, *options, *steady_policy(tmp_path)) as run:
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        bot.start()
        try:
            wait_for(lambda: has_edge(windows(tmp_path)[-1]), "a window with fills")
            assert not events(tmp_path, TradedWhileFrozen)
            words = ("--ledger", "l.sqlite", "--reason", "a test", "--by", "ann")
            frozen = command(tmp_path, "override", "freeze", *words)
            assert frozen.code == 0, frozen.err
            frozen_ms = time.time_ns() // 1_000_000
            reports = wait_for(lambda: events(tmp_path, TradedWhileFrozen), "a report")
            run.says("the bot doesn't obey")
            wait_for(lambda: server.summary()["count:fills_while_frozen"] != "0", "the count")
        finally:
            ended.set()
            bot.join()
        assert run.stop() == 0
    first = reports[0]
    assert first.symbol == BTC
    assert first.frozen_since_ms <= frozen_ms
    # Orders that were under way when 0.0 was published are no disobedience.
    assert first.filled_at_ms > first.frozen_since_ms + 5_000
    assert first.notional > 0
    count = str(len(events(tmp_path, TradedWhileFrozen)))
    assert server.summary()["count:fills_while_frozen"] == count
    assert_outputs_agree(tmp_path, server)


def test_a_websocket_feed_is_decided_and_comes_back_after_a_hang_up(
    server: LiveRedis, tmp_path: Path
) -> None:
    with WebSocketMarket() as market:
        options = hash_run(server.url, "--feed", market.url, *steady_policy(tmp_path))
        with Run(tmp_path, *options) as run:
            wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
            wait_for(lambda: good(tmp_path), "a good window")
            market.hang_up()
            wait_for(lambda: market.accepted >= 2, "another connection")
            seen = len(windows(tmp_path))
            wait_for(lambda: len(good(tmp_path)) and len(windows(tmp_path)) > seen + 1, "more")
            assert good(tmp_path)[-1].window > windows(tmp_path)[seen - 1].window
            assert run.stop() == 0
    assert kpis(good(tmp_path)[-1], BTC) == GOOD
    totals = [observed.feed_counts for observed in windows(tmp_path)]
    assert sum(counts.get("malformed", 0) for counts in totals) == market.accepted
    assert sum(counts.get("ignored", 0) for counts in totals) > 0
    assert run.output.count("not JSON") == 1, run.output
    assert_outputs_agree(tmp_path, server)


def good(folder: Path) -> list[KpiObserved]:
    return [seen for seen in windows(folder) if kpis(seen, ETH).get("edge_bps") == 2.875]


def test_anomaly_scores_are_derived_once_twenty_windows_are_there(
    server: LiveRedis, tmp_path: Path
) -> None:
    chance = random.Random(3)
    options = hash_run(server.url, "--derive-anomaly", symbols=BTC)
    with Market(server, "dev", [BTC]) as market:

        def enough() -> bool:
            edge, risk = 3.2 + chance.gauss(0, 0.05), 0.2 + chance.gauss(0, 0.01)
            market.kpis[BTC] = {"edge_bps": edge, "risk_ratio": risk, "anomaly_score": None}
            return any("anomaly_score" in kpis(seen, BTC) for seen in windows(tmp_path))

        enough()
        market.write()
        # A restart in the middle: the past is in the ledger.
        with Run(tmp_path, *options, *steady_policy(tmp_path)) as run:
            wait_for(lambda: not enough() and len(windows(tmp_path)) >= 12, "twelve windows")
            run.kill()
        with Run(tmp_path, *options) as run:
            wait_for(enough, "a score")
            assert run.stop() == 0
    valid = [
        "anomaly_score" in kpis(seen, BTC)
        for seen in windows(tmp_path)
        if isinstance(kpis(seen, BTC).get("edge_bps"), float)
    ]
    assert valid[:20] == [False] * 20
    assert any(valid[20:])
    assert_outputs_agree(tmp_path, server)
