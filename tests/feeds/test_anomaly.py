"""The anomaly score is how far the most unusual KPI lies on its harmful side, in robust terms."""

import math
import statistics
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.kpis import Defect, Reading
from feeds.anomaly import AnomalyTracker, derive_anomaly

UNIT = 3 * 1.4826
"""The score of a KPI one MAD from its median is 1 / UNIT."""


def spread(name: str, low: float, middle: float, high: float) -> list[dict[str, Reading]]:
    """Return 20 windows whose median is `middle` and whose MAD is the distance of the others."""
    return [{name: value} for value in [low] * 8 + [middle] * 4 + [high] * 8]


LATENCIES = spread("p95_latency_ms", 190.0, 200.0, 210.0)


def test_a_kpi_above_its_median_scores_in_three_robust_sigmas() -> None:
    score = derive_anomaly({"p95_latency_ms": 260.0}, LATENCIES)
    assert score == pytest.approx(60 / (UNIT * 10))


def test_a_kpi_on_its_harmless_side_scores_below_zero() -> None:
    score = derive_anomaly({"p95_latency_ms": 140.0}, LATENCIES)
    assert score == pytest.approx(-60 / (UNIT * 10))


@pytest.mark.parametrize(
    ("name", "harm"),
    [("edge_bps", -1), ("maker_taker_ratio", -1), ("risk_ratio", 1), ("p95_latency_ms", 1)],
)
def test_each_kpi_has_its_harmful_direction(name: str, harm: int) -> None:
    trailing = spread(name, 0.4, 0.5, 0.6)
    assert derive_anomaly({name: 0.5 + harm * 0.3}, trailing) == pytest.approx(0.3 / (UNIT * 0.1))
    assert derive_anomaly({name: 0.5 - harm * 0.3}, trailing) == pytest.approx(-0.3 / (UNIT * 0.1))


def test_the_worst_kpi_counts() -> None:
    trailing = [
        {**latency, **edge}
        for latency, edge in zip(LATENCIES, spread("edge_bps", 2.0, 3.0, 4.0), strict=True)
    ]
    score = derive_anomaly({"p95_latency_ms": 200.0, "edge_bps": 1.0}, trailing)
    assert score == pytest.approx(2 / (UNIT * 1))
    score = derive_anomaly({"p95_latency_ms": 190.0, "edge_bps": 3.5}, trailing)
    assert score == pytest.approx(-0.5 / UNIT)


def test_of_an_odd_number_of_windows_the_median_is_the_middle_one() -> None:
    trailing: list[dict[str, Reading]] = [{"risk_ratio": float(number)} for number in range(21)]
    assert derive_anomaly({"risk_ratio": 20.0}, trailing) == pytest.approx(10 / (UNIT * 5))


def test_until_twenty_windows_are_there_it_is_absent() -> None:
    assert derive_anomaly({"p95_latency_ms": 260.0}, LATENCIES[:19]) is None
    assert derive_anomaly({"p95_latency_ms": 260.0}, [*LATENCIES[:19], {}]) is None


def test_a_kpi_that_never_differs_takes_no_part() -> None:
    same: list[dict[str, Reading]] = [{"p95_latency_ms": 200.0}] * 30
    assert derive_anomaly({"p95_latency_ms": 900.0}, same) is None
    both = [{**window, "edge_bps": 3.0} for window in LATENCIES]
    now: dict[str, Reading] = {"p95_latency_ms": 200.0, "edge_bps": -50.0}
    assert derive_anomaly(now, both) == 0.0


def test_a_difference_that_only_rounding_makes_is_none() -> None:
    assert derive_anomaly({"edge_bps": 0.0}, spread("edge_bps", 1 - 9e-10, 1.0, 1 + 9e-10)) is None
    score = derive_anomaly({"edge_bps": 0.0}, spread("edge_bps", 1 - 2e-9, 1.0, 1 + 2e-9))
    assert score == pytest.approx(1 / (UNIT * 2e-9), rel=1e-6)


@pytest.mark.parametrize("reading", [Defect.NAN, Defect.STALE, math.nan, math.inf, -1.0])
def test_a_reading_that_isnt_valid_takes_no_part(reading: Reading) -> None:
    assert derive_anomaly({"p95_latency_ms": reading}, LATENCIES) is None
    assert derive_anomaly({}, LATENCIES) is None
    spoilt = [*LATENCIES, *[{"p95_latency_ms": reading}] * 20]
    now: dict[str, Reading] = {"p95_latency_ms": 260.0}
    assert derive_anomaly(now, spoilt) == derive_anomaly(now, LATENCIES)


def test_a_score_of_its_own_isnt_looked_at() -> None:
    trailing = spread("anomaly_score", 0.1, 0.2, 0.3)
    assert derive_anomaly({"anomaly_score": 5.0}, trailing) is None


def test_the_score_stays_a_finite_number() -> None:
    score = derive_anomaly({"edge_bps": -1.7e308}, spread("edge_bps", 1e-3, 2e-3, 3e-3))
    assert score is not None and math.isfinite(score)
    assert derive_anomaly({"edge_bps": 1.0}, spread("edge_bps", -1.7e308, 0.0, 1.7e308)) == 0.0
    assert derive_anomaly({"edge_bps": 1.0}, spread("edge_bps", 5e-324, 1e-323, 5e-324)) is None


def test_the_tracker_compares_with_the_last_sixty_windows() -> None:
    tracker = AnomalyTracker(["BTCUSDT", "ETHUSDT"])
    for number in range(100):
        tracker.remember("BTCUSDT", {"risk_ratio": number / 100})
        assert tracker.derive("ETHUSDT", {"risk_ratio": 0.5}) is None
    # The last sixty are 0.40 to 0.99: their median is 0.695 and their MAD 0.15.
    score = tracker.derive("BTCUSDT", {"risk_ratio": 0.995})
    assert score == pytest.approx(0.3 / (UNIT * 0.15))


def test_a_window_without_readings_takes_a_place_among_the_sixty() -> None:
    tracker = AnomalyTracker(["BTCUSDT"])
    for window in LATENCIES:
        tracker.remember("BTCUSDT", window)
    for _ in range(40):
        tracker.remember("BTCUSDT", {"p95_latency_ms": Defect.DISCONNECTED})
    assert tracker.derive("BTCUSDT", {"p95_latency_ms": 260.0}) is not None
    tracker.remember("BTCUSDT", {})
    assert tracker.derive("BTCUSDT", {"p95_latency_ms": 260.0}) is None


def test_the_tracker_passes_over_symbols_it_wasnt_made_for() -> None:
    tracker = AnomalyTracker(["BTCUSDT"])
    for window in LATENCIES:
        tracker.remember("XRPUSDT", window)
    assert tracker.derive("XRPUSDT", {"p95_latency_ms": 260.0}) is None


READINGS: st.SearchStrategy[Mapping[str, Reading]] = st.fixed_dictionaries(
    {},
    optional={
        "edge_bps": st.floats(-50, 50),
        "maker_taker_ratio": st.floats(0, 1),
        "risk_ratio": st.floats(0, 2),
        "p95_latency_ms": st.one_of(st.floats(0, 5000), st.just(Defect.NAN)),
    },
)


@given(READINGS, st.lists(READINGS, max_size=60))
def test_it_agrees_with_the_rule_written_plainly(
    now: Mapping[str, Reading], trailing: list[Mapping[str, Reading]]
) -> None:
    expected = []
    harmful = {"edge_bps": -1, "maker_taker_ratio": -1, "risk_ratio": 1, "p95_latency_ms": 1}
    for name, direction in harmful.items():
        values = [
            value for window in trailing if isinstance(value := window.get(name), float)
        ]  # A defect is text.
        reading = now.get(name)
        if len(values) < 20 or not isinstance(reading, float):
            continue
        median = statistics.median(values)
        mad = statistics.median(abs(value - median) for value in values)
        if mad > 1e-300 and mad >= 1e-9 * abs(median):
            expected.append(direction * (reading - median) / (3 * 1.4826 * mad))
    score = derive_anomaly(now, trailing)
    if expected:
        assert score == pytest.approx(min(max(expected), 1.7976931348623157e308), rel=1e-9)
    else:
        assert score is None
