"""Windows follow the rules plainly written, however samples are delivered, in bounded memory."""

import json
import os
import statistics
from collections.abc import Iterable, Sequence
from math import fsum
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from aggregation_samples import (
    BTC,
    ETH,
    LATENESS,
    MINUTE,
    aggregator,
    fill,
    kpis,
    latency,
    position,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.kpis import Defect, Reading
from domain.windows import WindowReadings
from feeds.aggregation import Aggregator
from feeds.bucket_store import Limits
from feeds.samples import (
    Fill,
    KpiSample,
    Latency,
    MalformedSample,
    Position,
    Sample,
    parse_message,
)

# Laws.

LAST = 8

TIMES = st.one_of(
    st.integers(0, LAST * MINUTE - 1),
    st.sampled_from([MINUTE, 2 * MINUTE - 1, MINUTE + LATENESS, MINUTE + LATENESS + 1]),
)
SYMBOLS = st.sampled_from([BTC, ETH])
AMOUNTS = st.floats(0.001, 1000.0)
READINGS = st.one_of(st.floats(-5, 5), st.sampled_from([Defect.NAN, Defect.MALFORMED]))
SAMPLES: st.SearchStrategy[list[Sample]] = st.lists(
    st.one_of(
        st.builds(
            Fill, TIMES, SYMBOLS, st.sampled_from([1, -1]), AMOUNTS, AMOUNTS, st.booleans(), AMOUNTS
        ),
        st.builds(Latency, TIMES, SYMBOLS, AMOUNTS),
        st.builds(Position, TIMES, SYMBOLS, st.floats(-1000, 1000), AMOUNTS),
        st.builds(
            KpiSample, TIMES, SYMBOLS,
            st.dictionaries(st.sampled_from(["edge_bps", "risk_ratio", "anomaly_score"]), READINGS),
        ),
    ),
    max_size=60,
)  # fmt: skip
STARTS = st.sets(st.integers(0, LAST - 1), min_size=1).map(
    lambda indexes: [index * MINUTE for index in sorted(indexes)]
)


def reference(
    samples: Iterable[Sample], start_ms: int, interval_ms: int = MINUTE
) -> dict[str, Reading]:
    """Return a window's KPIs from all samples of one symbol, the rules written plainly."""
    end_ms, max_age_ms = start_ms + interval_ms, 2 * interval_ms
    mine = [sample for sample in samples if sample.ts_ms < end_ms]
    kpis: dict[str, Reading] = {}
    fills = [s for s in mine if isinstance(s, Fill) and s.ts_ms >= end_ms - 5 * interval_ms]
    if fills:
        notionals = [one.price * one.quantity for one in fills]
        edges = [one.side * (one.mid - one.price) / one.price * 10_000 for one in fills]
        total = fsum(notionals)
        kpis["edge_bps"] = fsum(n * e for n, e in zip(notionals, edges, strict=True)) / total
        kpis["maker_taker_ratio"] = (
            fsum(n for n, one in zip(notionals, fills, strict=True) if one.maker) / total
        )
    positions = [s for s in mine if isinstance(s, Position)]
    inside = [one for one in positions if one.ts_ms >= start_ms]
    before = sorted(
        (one for one in positions if one.ts_ms < start_ms), key=lambda one: one.ts_ms
    )  # Stable: of equal ones the later arrived is last.
    if before and start_ms - before[-1].ts_ms <= max_age_ms:
        inside.append(before[-1])
    if inside:
        kpis["risk_ratio"] = max(abs(one.notional) / one.limit for one in inside)
    latencies = [s.latency_ms for s in mine if isinstance(s, Latency) and s.ts_ms >= start_ms]
    if latencies:
        kpis["p95_latency_ms"] = (
            statistics.quantiles(latencies, n=20, method="inclusive")[-1]
            if len(latencies) > 1
            else latencies[0]
        )
    known = sorted((s for s in mine if isinstance(s, KpiSample)), key=lambda one: one.ts_ms)
    for name, reading in known[-1].kpis.items() if known else ():
        if end_ms - known[-1].ts_ms <= max_age_ms:
            kpis[name] = reading
        else:
            kpis.setdefault(name, Defect.STALE)
    return kpis


@settings(deadline=None)
@given(SAMPLES, STARTS)
def test_windows_agree_with_the_rules_written_plainly(
    samples: list[Sample], starts: list[int]
) -> None:
    made = aggregator(*samples, symbols=(BTC, ETH))
    for start_ms in starts:
        window = made.close(start_ms, now_ms=LAST * MINUTE)
        for symbol in (BTC, ETH):
            own = [sample for sample in samples if sample.symbol == symbol]
            expected = reference(own, start_ms)
            got = kpis(window, symbol)
            assert set(got) == set(expected)
            for name, reading in expected.items():
                if isinstance(reading, Defect):
                    assert got[name] is reading
                else:
                    assert got[name] == pytest.approx(reading, rel=1e-9, abs=1e-7)


def in_one_go(
    samples: Sequence[Sample], starts: Iterable[int], symbols: Sequence[str], interval_ms: int
) -> list[WindowReadings]:
    made = Aggregator(symbols, interval_ms=interval_ms)
    for sample in samples:
        made.add(sample)
    last_ms = max((sample.ts_ms for sample in samples), default=0)
    return [made.close(start_ms, now_ms=last_ms) for start_ms in starts]


def in_time(
    arrivals: Sequence[tuple[int, Sample]], starts: Iterable[int], symbols: Sequence[str],
    interval_ms: int,
) -> list[WindowReadings]:  # fmt: skip
    """Close each window when it is due, between samples that arrive in time."""
    made = Aggregator(symbols, interval_ms=interval_ms)
    windows = []
    waiting = list(reversed(arrivals))
    for start_ms in starts:
        due_ms = start_ms + interval_ms + LATENESS
        while waiting and waiting[-1][0] <= due_ms:
            made.add(waiting.pop()[1])
        windows.append(made.close(start_ms))
    return windows


@settings(deadline=None)
@given(SAMPLES, STARTS, st.randoms(use_true_random=False))
def test_in_one_go_and_in_time_give_the_same_windows(
    samples: list[Sample], starts: list[int], random: Any
) -> None:
    arrivals = sorted(
        ((sample.ts_ms + random.randint(0, LATENESS), sample) for sample in samples),
        key=lambda arrival: arrival[0],
    )
    in_order = [sample for _, sample in arrivals]
    together = in_one_go(in_order, starts, (BTC, ETH), MINUTE)
    one_by_one = in_time(arrivals, starts, (BTC, ETH), MINUTE)
    for got, expected in zip(one_by_one, together, strict=True):
        assert got.symbols == expected.symbols
        assert {"late", "future", "overflow"}.isdisjoint(got.feed_counts)


# Memory.


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 10**14 - 1), min_size=50, max_size=400), st.randoms())
def test_no_more_is_held_than_the_limits_whatever_arrives(times: list[int], random: Any) -> None:
    limits = Limits(buckets=20, latencies=30, latencies_per_window=8)
    made = aggregator(symbols=(BTC, ETH), limits=limits, lookback_windows=2)
    start_ms = 0
    added = 0
    for ts_ms in times:
        near_ms = start_ms + ts_ms % (5 * MINUTE)
        for at_ms in (ts_ms, near_ms):
            symbol = random.choice([BTC, ETH])
            made.add(latency(at_ms, 1.0, symbol))
            made.add(fill(at_ms, symbol=symbol))
            made.add(position(at_ms, 1.0, symbol=symbol))
            added += 3
        past_sums = 2 * 2 * 2
        assert made.held_items <= limits.buckets + limits.latencies + past_sums
        if random.random() < 0.1:
            made.close(start_ms)
            start_ms += MINUTE
    made.close(start_ms)
    # What was ahead of the last close is gone, but for the first part of one window.
    assert made.held_items <= 2 + 2 * 8 + 8


def test_when_there_is_no_room_the_furthest_ahead_goes_first() -> None:
    limits = Limits(buckets=2)
    made = aggregator(limits=limits)
    for minute in (900, 800, 1, 0, 700):
        made.add(latency(minute * MINUTE, float(minute)))
    window = made.close(0, now_ms=10**6 * MINUTE)
    assert kpis(window) == {"p95_latency_ms": 0.0}
    assert window.feed_counts == {"overflow": 3}
    assert kpis(made.close(MINUTE)) == {"p95_latency_ms": 1.0}


def test_a_skewed_clock_cant_crowd_out_the_window_that_is_collected() -> None:
    limits = Limits(buckets=10)
    made = aggregator(limits=limits)
    for minute in range(1000, 2000):
        made.add(fill(minute * MINUTE))
    made.add(fill(5))
    window = made.close(0)
    assert window.symbols[BTC].fills == 1
    assert window.feed_counts == {"future": 9, "overflow": 991}


def test_latencies_of_all_windows_together_are_limited() -> None:
    limits = Limits(latencies=3)
    made = aggregator(
        *[latency(1, 1.0)] * 3, latency(MINUTE, 1.0), latency(1, 1.0, ETH), symbols=(BTC, ETH),
        limits=limits,
    )  # fmt: skip
    window = made.close(0)
    assert kpis(window) == {"p95_latency_ms": 1.0}
    assert kpis(window, ETH) == {"p95_latency_ms": Defect.OVERFLOW}
    assert window.feed_counts == {"overflow": 2}
    made.add(latency(MINUTE + 1, 1.0, ETH))
    window = made.close(MINUTE)
    assert kpis(window) == {"p95_latency_ms": Defect.OVERFLOW}
    assert kpis(window, ETH) == {"p95_latency_ms": 1.0}


def test_a_hundred_thousand_fills_of_a_window_are_held_as_two_sums() -> None:
    made = aggregator()
    for number in range(100_000):
        made.add(fill(number % MINUTE))
    assert made.held_items == 2
    assert made.close(0).symbols[BTC].fills == 100_000
    assert made.held_items == 2


# Real fills.


def real_fills() -> list[Path]:
    folder = os.environ.get("LIVE_REAL_DATA")
    return sorted(Path(folder, "raw").glob("*.parquet")) if folder else []


def messages(path: Path) -> list[tuple[int, bytes]]:
    """Return the fills as messages, by their time of arrival, in the file's order."""
    rows = pyarrow.parquet.read_table(path).to_pylist()
    found = []
    for row in rows:
        ts_ms = round(row["ts"].timestamp() * 1000)
        if "position_ratio" in row:
            row |= {"position_notional": row.pop("position_ratio"), "limit_notional": 1.0}
        text = json.dumps({"type": "fill", **row, "ts": ts_ms})
        found.append((ts_ms, text.encode()))
    return sorted(found, key=lambda message: message[0])


@pytest.mark.skipif(not real_fills(), reason="LIVE_REAL_DATA names no folder with raw/*.parquet")
@pytest.mark.parametrize("path", real_fills(), ids=lambda path: path.stem)
@pytest.mark.parametrize("interval_ms", [10_000, 60_000])
def test_real_fills_in_one_go_and_in_time_give_the_same_windows(
    path: Path, interval_ms: int
) -> None:
    arrivals: list[tuple[int, Sample]] = []
    for ts_ms, message in messages(path):
        for sample in parse_message(message):
            if isinstance(sample, MalformedSample):
                # At the end of a session there is no later price to compare a fill with.
                assert sample.detail == "expected mid, was nothing"
            else:
                arrivals.append((ts_ms, sample))
    symbols = sorted({sample.symbol for _, sample in arrivals})
    indexes = {
        index + ahead for ts_ms, _ in arrivals for index in [ts_ms // interval_ms]
        for ahead in range(7)
    }  # fmt: skip
    starts = [index * interval_ms for index in sorted(indexes)]
    together = in_one_go([sample for _, sample in arrivals], starts, symbols, interval_ms)
    one_by_one = in_time(arrivals, starts, symbols, interval_ms)
    assert one_by_one == together
    assert all(window.feed_counts == {} for window in together)
    counted = sum(got.fills or 0 for window in together for got in window.symbols.values())
    assert counted == sum(isinstance(sample, Fill) for _, sample in arrivals) > 1700
    own = [sample for _, sample in arrivals if sample.symbol == symbols[0]]
    for window in together[:: max(1, len(together) // 50)]:
        expected = reference(own, window.start_ms, interval_ms)
        assert kpis(window, symbols[0]) == pytest.approx(expected, rel=1e-9, abs=1e-7)
