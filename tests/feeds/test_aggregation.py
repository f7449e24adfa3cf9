"""Raw samples and ready KPIs become windows, by the rules of DESIGN.md section 5."""

import statistics
from typing import Any

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
    ready,
)
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import BadInput
from domain.kpis import Defect
from domain.windows import RiskFill, SymbolReadings
from feeds.aggregation import Aggregator
from feeds.bucket_store import Limits
from feeds.buckets import p95
from feeds.samples import (
    Fill,
    KpiSample,
    Position,
    Sample,
)

# Fills.


def test_edge_is_weighted_by_notional_and_signed_by_side() -> None:
    # Bought 2 at 100 with mid 100.5: 50 bps over 200. Sold 1 at 50 with mid 50.05: -10 bps over 50.
    window = aggregator(
        fill(1, price=100.0, quantity=2.0, mid=100.5),
        fill(2, side=-1, price=50.0, quantity=1.0, mid=50.05),
    ).close(0)
    assert kpis(window)["edge_bps"] == pytest.approx((50 * 200 - 10 * 50) / 250)


def test_maker_ratio_is_the_makers_share_of_notional() -> None:
    window = aggregator(
        fill(1, price=100.0, quantity=3.0), fill(2, price=50.0, quantity=2.0, maker=False)
    ).close(0)
    assert kpis(window)["maker_taker_ratio"] == 0.75


def test_a_windows_own_notional_and_fills_are_told_without_its_lookback() -> None:
    made = aggregator(fill(1, quantity=2.0), fill(MINUTE, quantity=3.0), fill(MINUTE, quantity=0.5))
    made.close(0, now_ms=MINUTE)
    got = made.close(MINUTE).symbols[BTC]
    assert (got.notional, got.fills) == (350.0, 2)
    got = made.close(2 * MINUTE).symbols[BTC]
    assert (got.notional, got.fills) == (None, None)


def test_edge_and_maker_ratio_look_back_over_five_windows_this_one_included() -> None:
    made = aggregator(fill(10, mid=101.0, maker=False), fill(MINUTE + 10), lateness_ms=MINUTE)
    ratios = [kpis(made.close(index * MINUTE)).get("maker_taker_ratio") for index in range(7)]
    assert ratios == [0.0, 0.5, 0.5, 0.5, 0.5, 1.0, None]


def test_without_fills_in_the_lookback_edge_and_maker_ratio_are_absent() -> None:
    made = aggregator(fill(10), lookback_windows=1)
    assert kpis(made.close(0)) == {"edge_bps": 0.0, "maker_taker_ratio": 1.0}
    assert made.close(MINUTE).symbols == {}


def test_sums_beyond_a_float_are_no_data_rather_than_a_number() -> None:
    huge = [fill(number, price=1e200, quantity=1e108) for number in range(3)]
    window = aggregator(*huge).close(0)
    assert kpis(window) == {"edge_bps": Defect.OVERFLOW, "maker_taker_ratio": Defect.OVERFLOW}
    assert window.symbols[BTC] == SymbolReadings(kpis=kpis(window), notional=None, fills=3)


# Positions.


def test_risk_is_the_largest_share_of_the_limit_in_the_window() -> None:
    window = aggregator(
        position(1, 10.0), position(2, -45.0), position(3, 60.0, limit=200.0), position(4, 0.0)
    ).close(0)
    assert kpis(window) == {"risk_ratio": 0.45}


def test_a_position_is_a_level_that_carries_into_the_next_window() -> None:
    made = aggregator(position(MINUTE - 1, -45.0), position(MINUTE + 1, 20.0))
    made.close(0)
    assert kpis(made.close(MINUTE)) == {"risk_ratio": 0.45}
    assert kpis(made.close(2 * MINUTE)) == {"risk_ratio": 0.2}


def test_a_position_carries_in_up_to_the_kpi_max_age_at_the_windows_start() -> None:
    made = aggregator(position(30_000, 50.0), kpi_max_age_ms=30_000)
    made.close(0)
    assert kpis(made.close(MINUTE)) == {"risk_ratio": 0.5}
    assert kpis(made.close(2 * MINUTE)) == {}
    made = aggregator(position(29_999, 50.0), kpi_max_age_ms=30_000)
    made.close(0)
    assert kpis(made.close(MINUTE)) == {}


def test_of_positions_with_one_ts_the_later_arrived_is_the_level() -> None:
    made = aggregator(position(10, 50.0), position(10, 20.0), position(5, 90.0))
    assert kpis(made.close(0)) == {"risk_ratio": 0.9}
    assert kpis(made.close(MINUTE)) == {"risk_ratio": 0.2}


def test_a_share_beyond_a_float_is_no_data() -> None:
    window = aggregator(position(1, 1e300, limit=1e-300), position(2, 1.0)).close(0)
    assert kpis(window) == {"risk_ratio": Defect.OVERFLOW}


# Latencies.


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # As numpy.percentile(values, 95) gave them, to the last bit.
        ([7.0], 7.0),
        ([2.5, 1.5], 2.45),
        ([400.0] + [100.0] * 19, 115.00000000000021),
        ([float(number) ** 1.5 for number in range(1, 38)], 208.8502339267892),
    ],
)
def test_p95_is_exact_with_linear_interpolation(values: list[float], expected: float) -> None:
    samples = [latency(1 + number * 1000, value) for number, value in enumerate(values)]
    assert kpis(aggregator(*samples).close(0)) == {"p95_latency_ms": expected}


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=200))
def test_p95_agrees_with_the_standard_library(values: list[float]) -> None:
    expected = statistics.quantiles(values, n=20, method="inclusive")[-1]
    assert p95(sorted(values)) == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert min(values) <= p95(sorted(values)) <= max(values)


def test_latencies_are_of_their_own_window_only() -> None:
    made = aggregator(latency(1, 5.0), latency(MINUTE, 9.0))
    assert kpis(made.close(0)) == {"p95_latency_ms": 5.0}
    assert kpis(made.close(MINUTE)) == {"p95_latency_ms": 9.0}
    assert kpis(made.close(2 * MINUTE)) == {}


def test_more_latencies_than_may_be_held_are_no_data_rather_than_the_p95_of_some() -> None:
    limits = Limits(latencies_per_window=3)
    made = aggregator(*[latency(number, 5.0) for number in range(5)], limits=limits)
    window = made.close(0)
    assert kpis(window) == {"p95_latency_ms": Defect.OVERFLOW}
    assert window.feed_counts == {"overflow": 2}
    # As many, spread over both parts of a window.
    made = aggregator(
        latency(0, 5.0), latency(1, 5.0), latency(5_000, 5.0), latency(6_000, 5.0), limits=limits
    )
    assert kpis(made.close(0)) == {"p95_latency_ms": Defect.OVERFLOW}


# Ready KPIs.


def test_the_last_ready_kpis_by_ts_count_and_of_equal_ones_the_later_arrived() -> None:
    made = aggregator(
        ready(10, edge_bps=1.0, risk_ratio=0.1), ready(30, edge_bps=3.0), ready(30, edge_bps=4.0),
        ready(20, edge_bps=2.0),
    )  # fmt: skip
    assert kpis(made.close(0)) == {"edge_bps": 4.0}


def test_ready_kpis_hold_until_they_are_older_than_the_max_age_at_a_windows_end() -> None:
    made = aggregator(ready(MINUTE, edge_bps=3.0, risk_ratio=Defect.NAN), ready(0, edge_bps=9.0))
    assert kpis(made.close(0)) == {"edge_bps": 9.0}
    assert kpis(made.close(MINUTE)) == {"edge_bps": 3.0, "risk_ratio": Defect.NAN}
    assert kpis(made.close(2 * MINUTE)) == {"edge_bps": 3.0, "risk_ratio": Defect.NAN}
    stale = {"edge_bps": Defect.STALE, "risk_ratio": Defect.STALE}
    assert kpis(made.close(3 * MINUTE)) == stale
    assert kpis(made.close(9 * MINUTE)) == stale


def test_ready_kpis_are_the_last_message_and_not_a_patchwork_of_several() -> None:
    made = aggregator(ready(1, edge_bps=3.0, risk_ratio=0.1), ready(2, risk_ratio=0.2))
    assert kpis(made.close(0)) == {"risk_ratio": 0.2}


def test_a_fresh_ready_kpi_goes_before_the_one_derived_from_raw_samples() -> None:
    made = aggregator(
        fill(1, mid=101.0), latency(1, 7.0), ready(2, edge_bps=3.0, anomaly_score=0.5)
    )
    assert kpis(made.close(0)) == {
        "edge_bps": 3.0, "maker_taker_ratio": 1.0, "p95_latency_ms": 7.0, "anomaly_score": 0.5,
    }  # fmt: skip


def test_a_malformed_ready_kpi_isnt_mended_with_raw_samples() -> None:
    made = aggregator(fill(1), ready(2, edge_bps=Defect.MALFORMED))
    assert kpis(made.close(0))["edge_bps"] is Defect.MALFORMED


def test_raw_samples_go_before_stale_ready_kpis() -> None:
    made = aggregator(
        ready(1, edge_bps=3.0, anomaly_score=0.5), fill(MINUTE, mid=101.0), kpi_max_age_ms=MINUTE
    )
    made.close(0)
    assert kpis(made.close(MINUTE)) == {
        "edge_bps": 100.0, "maker_taker_ratio": 1.0, "anomaly_score": Defect.STALE,
    }  # fmt: skip


def test_notional_and_fills_come_with_ready_kpis_in_their_own_window_only() -> None:
    made = aggregator(KpiSample(1, BTC, {"edge_bps": 3.0}, notional=50.0, fills=2))
    assert made.close(0).symbols[BTC] == SymbolReadings(
        kpis={"edge_bps": 3.0}, notional=50.0, fills=2
    )
    assert made.close(MINUTE).symbols[BTC] == SymbolReadings(kpis={"edge_bps": 3.0})


# Connections.


def test_under_nine_tenths_connected_what_is_derived_from_raw_samples_is_no_data() -> None:
    samples: list[Sample] = [fill(1), latency(1, 5.0), position(1, 5.0)]
    window = aggregator(*samples).close(0, connected_share=0.89)
    names = ("edge_bps", "maker_taker_ratio", "p95_latency_ms", "risk_ratio")
    assert kpis(window) == dict.fromkeys(names, Defect.DISCONNECTED)
    assert (window.symbols[BTC].notional, window.symbols[BTC].fills) == (100.0, 1)
    connected = kpis(aggregator(*samples).close(0, connected_share=0.9))
    assert not any(isinstance(reading, Defect) for reading in connected.values())
    assert set(connected) == set(names)


def test_a_bad_connection_leaves_ready_kpis_alone() -> None:
    made = aggregator(latency(1, 5.0), ready(1, edge_bps=3.0))
    assert kpis(made.close(0, connected_share=0.0)) == {
        "edge_bps": 3.0, "p95_latency_ms": Defect.DISCONNECTED,
    }  # fmt: skip


def test_a_share_that_is_no_number_is_a_bad_connection() -> None:
    made = aggregator(latency(1, 5.0))
    assert kpis(made.close(0, connected_share=float("nan"))) == {
        "p95_latency_ms": Defect.DISCONNECTED
    }


def test_a_bad_connection_shows_in_windows_that_nothing_arrived_for() -> None:
    made = aggregator(fill(1), symbols=(BTC, ETH))
    made.close(0)
    window = made.close(MINUTE, connected_share=0.5)
    assert kpis(window)["edge_bps"] is Defect.DISCONNECTED
    assert ETH not in window.symbols


def test_a_symbol_has_raw_samples_for_as_long_as_a_lookback_reaches() -> None:
    made = aggregator(fill(1), ready(1, ETH, edge_bps=1.0), symbols=(BTC, ETH), lookback_windows=3)
    assert not made.has_raw(BTC)
    seen = []
    for index in range(5):
        made.close(index * MINUTE)
        seen.append(made.has_raw(BTC))
    assert seen == [True, True, True, False, False]
    assert not made.has_raw(ETH)
    assert not made.has_raw("XRPUSDT")


# What is counted.


def test_symbols_that_nobody_asked_for_are_ignored_and_counted() -> None:
    window = aggregator(fill(1, symbol="XRPUSDT"), ready(2, "btcusdt", edge_bps=1.0)).close(0)
    assert (window.symbols, window.feed_counts) == ({}, {"ignored": 2})


def test_what_is_malformed_is_counted_until_the_next_close() -> None:
    made = aggregator()
    made.count_malformed("not JSON")
    made.count_malformed("bad ts")
    assert made.close(0).feed_counts == {"malformed": 2}
    assert made.close(MINUTE).feed_counts == {}


def test_late_fills_and_latencies_are_counted_and_not_used() -> None:
    made = aggregator(fill(1))
    made.close(0)
    made.add(fill(2, maker=False))
    made.add(latency(3, 5.0))
    window = made.close(MINUTE)
    assert kpis(window) == {"edge_bps": 0.0, "maker_taker_ratio": 1.0}
    assert window.feed_counts == {"late": 2}


def test_late_levels_are_counted_and_tell_only_the_windows_after() -> None:
    made = aggregator(ready(30, edge_bps=5.0))
    made.close(0)
    made.add(position(50, 70.0))
    made.add(ready(40, edge_bps=3.0))
    made.add(ready(20, edge_bps=1.0))
    window = made.close(MINUTE)
    assert kpis(window) == {"edge_bps": 3.0, "risk_ratio": 0.7}
    assert window.feed_counts == {"late": 3}


def test_what_is_stamped_beyond_end_and_lateness_is_dropped_at_the_close() -> None:
    made = aggregator(
        latency(MINUTE + LATENESS, 1.0), latency(MINUTE + LATENESS + 1, 9.0),
        latency(2 * MINUTE, 9.0), latency(10**14 - 1, 9.0),
    )  # fmt: skip
    assert made.close(0).feed_counts == {"future": 3}
    assert kpis(made.close(MINUTE)) == {"p95_latency_ms": 1.0}
    assert kpis(made.close(2 * MINUTE)) == {}


def test_a_lateness_above_the_interval_keeps_whole_windows_ahead() -> None:
    lateness = 2 * MINUTE + 500
    made = aggregator(
        *[latency(MINUTE + ahead, 1.0) for ahead in (0, MINUTE, lateness, lateness + 1)],
        lateness_ms=lateness,
    )
    assert made.close(0).feed_counts == {"future": 1}
    assert [kpis(made.close(index * MINUTE)) for index in (1, 2, 3)] == [
        {"p95_latency_ms": 1.0}
    ] * 3


def test_a_late_close_keeps_what_was_stamped_up_to_then() -> None:
    made = aggregator(latency(MINUTE + 30_000, 1.0), latency(2 * MINUTE + 1, 9.0))
    assert made.close(0, now_ms=MINUTE + 30_000).feed_counts == {"future": 1}
    assert kpis(made.close(MINUTE)) == {"p95_latency_ms": 1.0}


def test_skipped_windows_leave_their_fills_and_levels_and_are_counted() -> None:
    samples: list[Sample] = [
        fill(1, maker=False), fill(MINUTE, maker=False), latency(MINUTE, 999.0),
        position(2 * MINUTE, 80.0), ready(2 * MINUTE, anomaly_score=1.0), fill(3 * MINUTE + 1),
    ]  # fmt: skip
    made = aggregator(*samples, lookback_windows=3)
    window = made.close(3 * MINUTE)
    assert kpis(window) == {
        "edge_bps": 0.0, "maker_taker_ratio": 0.5, "risk_ratio": 0.8, "anomaly_score": 1.0,
    }  # fmt: skip
    assert window.feed_counts == {"skipped": 5}
    assert (window.symbols[BTC].notional, window.symbols[BTC].fills) == (100.0, 1)


def test_what_arrives_for_a_window_already_skipped_is_used_alike() -> None:
    samples: list[Sample] = [
        fill(1, maker=False), fill(MINUTE, maker=False), latency(MINUTE, 999.0),
        position(2 * MINUTE, 80.0), ready(2 * MINUTE, anomaly_score=1.0), fill(3 * MINUTE + 1),
        fill(MINUTE + 30_000, quantity=0.1), fill(MINUTE + 40_000, quantity=0.7, maker=False),
    ]  # fmt: skip
    before = aggregator(*samples, lookback_windows=3).close(3 * MINUTE)
    made = aggregator(lookback_windows=3)
    made.advance(3 * MINUTE)
    for sample in samples:
        made.add(sample)
    assert made.close(3 * MINUTE) == before


def test_a_skipped_window_is_late_once_a_later_one_is_closed() -> None:
    made = aggregator()
    made.close(3 * MINUTE)
    made.add(fill(2 * MINUTE))
    assert made.close(4 * MINUTE).feed_counts == {"late": 1}


# Order.


def test_windows_never_come_twice_or_go_backwards() -> None:
    made = aggregator()
    made.close(5 * MINUTE)
    for start_ms in (5 * MINUTE, 0):
        with pytest.raises(ValueError, match="expected a window from 1970-01-01T00:06:00Z on"):
            made.close(start_ms)
    made.advance(8 * MINUTE)
    made.advance(7 * MINUTE)
    with pytest.raises(ValueError, match="expected a window from"):
        made.close(7 * MINUTE)
    made.close(8 * MINUTE)


def test_a_start_that_isnt_aligned_is_refused() -> None:
    for start_ms in (1, MINUTE + 1, -MINUTE):
        with pytest.raises(ValueError, match="expected a multiple of 60000 ms"):
            aggregator().close(start_ms)
        with pytest.raises(ValueError, match="expected a multiple of 60000 ms"):
            aggregator().advance(start_ms)


def test_options_out_of_range_are_refused() -> None:
    bad: list[dict[str, Any]] = [
        {"lookback_windows": 0},
        {"lookback_windows": 1001},
        {"lateness_ms": -1},
    ]
    for options in bad:
        with pytest.raises(ValueError, match="expected"):
            aggregator(**options)
    with pytest.raises(BadInput, match="there twice"):
        aggregator(symbols=(BTC, BTC))
    with pytest.raises(BadInput, match="interval"):
        Aggregator((BTC,), interval_ms=0)


def test_only_a_fill_against_a_known_position_does_not_add_risk() -> None:
    aggregator = Aggregator(["BTCUSDT", "ETHUSDT"], interval_ms=60_000)

    def filled(ts_ms: int, symbol: str, side: int) -> Fill:
        return Fill(ts_ms, symbol, side, price=10.0, quantity=2.0, maker=True, mid=10.0)

    for sample in (
        filled(1_000, "BTCUSDT", 1),
        Position(2_000, "BTCUSDT", notional=500.0, limit=1_000.0),
        filled(3_000, "BTCUSDT", -1),
        Position(4_000, "ETHUSDT", notional=-500.0, limit=1_000.0),
        filled(5_000, "ETHUSDT", 1),
    ):
        aggregator.add(sample)
    assert aggregator.close(0).risk_fills == {"BTCUSDT": RiskFill(1_000, 20.0)}
    aggregator.add(filled(61_000, "BTCUSDT", -1))
    aggregator.add(filled(62_000, "ETHUSDT", -1))
    assert aggregator.close(60_000).risk_fills == {"ETHUSDT": RiskFill(62_000, 20.0)}


# The newest sample.


def test_the_newest_sample_is_the_latest_ts_of_any_kind_and_symbol() -> None:
    made = aggregator(
        fill(5), latency(900, 10.0, ETH), position(700, 1.0), ready(30, edge_bps=3.0),
        symbols=(BTC, ETH),
    )  # fmt: skip
    assert made.newest_ms is None, "no window is closed yet"
    made.close(0)
    assert made.newest_ms == 900
    made.add(fill(MINUTE + 3, symbol="DOGEUSDT"))
    made.close(MINUTE)
    assert made.newest_ms == 900, "another symbol's is none"


def test_samples_of_the_next_window_are_newest_already_and_those_of_the_future_not_yet() -> None:
    made = aggregator(fill(10), fill(MINUTE + LATENESS), fill(MINUTE + LATENESS + 1))
    assert made.close(0).feed_counts == {"future": 1}
    assert made.newest_ms == MINUTE + LATENESS


def test_a_sample_ahead_of_the_clock_within_its_part_counts_as_of_now() -> None:
    made = aggregator(fill(10), fill(2 * MINUTE - 1))
    now_ms = MINUTE + LATENESS + 500
    assert made.close(0, now_ms=now_ms).feed_counts == {}
    assert made.newest_ms == now_ms
    made.close(MINUTE)
    assert made.newest_ms == 2 * MINUTE - 1


def test_late_and_skipped_samples_are_samples_too() -> None:
    made = aggregator(fill(10))
    made.close(0)
    made.add(fill(50))
    assert made.newest_ms == 50
    made.add(fill(MINUTE + 20))
    made.close(2 * MINUTE)
    assert made.newest_ms == MINUTE + 20
    made.add(ready(3 * MINUTE + 1, edge_bps=1.0))
    made.advance(4 * MINUTE)
    made.close(4 * MINUTE)
    assert made.newest_ms == 3 * MINUTE + 1


def test_what_there_was_no_room_for_is_no_newest_sample() -> None:
    made = aggregator(fill(5), limits=Limits(buckets=1), symbols=(BTC, ETH))
    made.add(fill(9, symbol=ETH))
    made.close(0)
    assert made.newest_ms == 5


def test_stale_kpis_of_a_run_before_have_no_time() -> None:
    made = aggregator(stale={BTC: ["edge_bps"]})
    assert kpis(made.close(0)) == {"edge_bps": Defect.STALE}
    assert made.newest_ms is None
