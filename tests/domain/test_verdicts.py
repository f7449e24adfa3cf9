"""The guide's KPI table, one window at a time: breach, strictness, verdict, reason text, record."""

import math

import pytest
from decider_spec import BTC, ETH, HEALTHY, MINUTE_MS, OK, START_MS, Ledger, last_observed, readings

from domain.commands import ObserveWindow
from domain.kpis import KPI_BY_NAME, KPIS, Defect, Reading, Verdict
from domain.policy import Policy
from domain.verdicts import Violation, format_reading, format_threshold, format_value, worst_verdict
from domain.windows import SymbolReadings, WindowReadings

BREACHES = [
    # KPI, value, threshold, verdict, reason, margin
    ("edge_bps", 2.0, "CRIT", "edge_bps=2.0 < 2.5", 0.5),
    ("maker_taker_ratio", 0.8, "WARN", "maker_taker=0.80 < 0.83", 0.03),
    ("risk_ratio", 0.45, "CRIT", "risk=0.45 > 0.40", 0.05),
    ("p95_latency_ms", 360.0, "WARN", "p95_latency=360 > 350", 10.0),
    ("anomaly_score", 3.0, "CRIT", "anomaly=3.0 > 2.0", 1.0),
]


@pytest.mark.parametrize(("kpi", "value", "verdict", "reason", "margin"), BREACHES)
def test_a_breach_has_the_tables_verdict_and_the_tables_text(
    kpi: str, value: float, verdict: str, reason: str, margin: float
) -> None:
    ledger = Ledger()
    ledger.windows(1, readings(**{kpi: value}))
    assert ledger.verdict == verdict
    assert ledger.reasons_of() == [reason]


@pytest.mark.parametrize(("kpi", "value", "verdict", "reason", "margin"), BREACHES)
def test_a_violation_is_kept_as_a_record_of_symbol_kpi_value_comparator_threshold_and_margin(
    kpi: str, value: float, verdict: str, reason: str, margin: float
) -> None:
    ledger = Ledger(None, ETH, BTC)
    observed = last_observed(ledger.windows(1, BTCUSDT=readings(**{kpi: value})))
    of_eth, of_btc = observed.symbols
    assert of_eth.violations == ()
    assert of_btc.memory.symbol == BTC
    assert of_btc.verdict == verdict
    (violation,) = of_btc.violations
    row = KPI_BY_NAME[kpi]
    assert (violation.kpi, violation.verdict, violation.value) == (kpi, verdict, value)
    assert (violation.comparator, violation.threshold) == (row.breached_when, row.threshold)
    assert violation.margin == pytest.approx(margin)


@pytest.mark.parametrize("kpi", [kpi.name for kpi in KPIS])
def test_a_value_equal_to_its_threshold_is_ok_and_the_next_float_beyond_is_a_breach(
    kpi: str,
) -> None:
    row = KPI_BY_NAME[kpi]
    beyond = math.nextafter(row.threshold, -math.inf if row.breached_when == "<" else math.inf)
    ledger = Ledger()
    ledger.windows(1, readings(**{kpi: row.threshold}))
    assert (ledger.verdict, ledger.reasons_of()) == ("OK", [])
    ledger.windows(1, readings(**{kpi: beyond}))
    assert ledger.verdict == row.verdict
    value, _, threshold = ledger.reasons_of()[0].partition("=")[2].split(" ")
    assert float(threshold) == row.threshold
    assert row.is_breached(float(value), float(threshold))


@pytest.mark.parametrize(
    ("kpi", "value", "threshold", "text"),
    [
        # A threshold exactly, with at least the table's decimals.
        ("edge_bps", 1.0, 2.0, "edge_bps=1.0 < 2.0"),
        ("edge_bps", 1.0, 2.125, "edge_bps=1.0 < 2.125"),
        ("edge_bps", -1.0, 1e-7, "edge_bps=-1.0 < 0.0000001"),
        ("maker_taker_ratio", 0.5, 1.0, "maker_taker=0.50 < 1.00"),
        ("risk_ratio", 0.5, 0.4005, "risk=0.50 > 0.4005"),
        ("p95_latency_ms", 400.0, 350.5, "p95_latency=400 > 350.5"),
        ("p95_latency_ms", 1e22, 1e21, f"p95_latency=1{'0' * 22} > 1{'0' * 21}"),
        # A value with the fewest decimals that keep it on its side, at least the table's.
        ("edge_bps", 2.4999, 2.5, "edge_bps=2.4999 < 2.5"),
        ("edge_bps", 2.4321, 2.5, "edge_bps=2.4 < 2.5"),
        ("edge_bps", 2.46, 2.5, "edge_bps=2.46 < 2.5"),
        ("edge_bps", -12.34, 2.5, "edge_bps=-12.3 < 2.5"),
        ("edge_bps", 1e-7, 2.5, "edge_bps=0.0 < 2.5"),
        ("edge_bps", -0.04, 2.5, "edge_bps=0.0 < 2.5"),
        ("edge_bps", -1e-7, 0.0, "edge_bps=-0.0000001 < 0.0"),
        ("edge_bps", 1e-7, 2e-7, "edge_bps=0.0 < 0.0000002"),
        ("edge_bps", -1e22, 2.5, f"edge_bps=-1{'0' * 22}.0 < 2.5"),
        ("maker_taker_ratio", 0.8299, 0.83, "maker_taker=0.8299 < 0.83"),
        ("maker_taker_ratio", 0.0, 0.83, "maker_taker=0.00 < 0.83"),
        ("risk_ratio", 0.404, 0.4, "risk=0.404 > 0.40"),
        ("risk_ratio", 1e-7, 0.0, "risk=0.0000001 > 0.00"),
        ("p95_latency_ms", 350.2, 350.0, "p95_latency=350.2 > 350"),
        ("p95_latency_ms", 359.6, 350.0, "p95_latency=360 > 350"),
        ("anomaly_score", 2.0001, 2.0, "anomaly=2.0001 > 2.0"),
        ("anomaly_score", 2.06, 2.0, "anomaly=2.1 > 2.0"),
    ],
)
def test_a_reason_shows_threshold_and_value_in_full_but_no_longer_and_never_as_an_exponent(
    kpi: str, value: float, threshold: float, text: str
) -> None:
    row = KPI_BY_NAME[kpi]
    policy = Policy(thresholds={**Policy().thresholds, row.policy_key: threshold})
    ledger = Ledger(policy)
    ledger.windows(1, readings(**{kpi: value}))
    assert ledger.reasons_of() == [text]


def test_a_value_on_its_threshold_can_still_be_written() -> None:
    edge = KPI_BY_NAME["edge_bps"]
    assert format_value(edge, 2.5, 2.5) == "2.5"
    assert format_threshold(edge, 2.5) == "2.5"


def test_every_rule_is_evaluated_and_the_reasons_stand_in_table_order() -> None:
    ledger = Ledger()
    everything = readings(
        anomaly_score=3.0,
        p95_latency_ms=360.0,
        risk_ratio=0.45,
        maker_taker_ratio=None,
        edge_bps=2.0,
    )
    ledger.windows(1, everything)
    assert ledger.reasons_of() == [
        "edge_bps=2.0 < 2.5",
        "maker_taker=no data (1 windows)",
        "risk=0.45 > 0.40",
        "p95_latency=360 > 350",
        "anomaly=3.0 > 2.0",
    ]


def test_a_risk_above_one_is_a_breach_and_an_anomaly_score_may_have_either_sign() -> None:
    ledger = Ledger()
    ledger.windows(1, readings(risk_ratio=1.5, anomaly_score=-4.0))
    assert ledger.reasons_of() == ["risk=1.50 > 0.40"]
    ledger.windows(1, readings(anomaly_score=-4.0))
    assert ledger.verdict == "OK"


def test_a_symbol_may_have_thresholds_of_its_own_and_keeps_the_others() -> None:
    policy = Policy(symbols={ETH: {"max_risk": 0.3}})
    ledger = Ledger(policy, BTC, ETH)
    both = readings(risk_ratio=0.35, p95_latency_ms=351.0)
    ledger.windows(1, both)
    assert ledger.reasons_of(BTC) == ["p95_latency=351 > 350"]
    assert ledger.reasons_of(ETH) == ["risk=0.35 > 0.30", "p95_latency=351 > 350"]


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "OK"),
        ({"p95_latency_ms": 360.0}, "WARN"),
        ({"risk_ratio": 0.45}, "CRIT"),
        ({"p95_latency_ms": 360.0, "risk_ratio": 0.45}, "CRIT"),
        ({"p95_latency_ms": 360.0, "maker_taker_ratio": 0.5}, "WARN"),
    ],
)
def test_a_symbols_verdict_is_the_worst_of_its_kpis(
    changes: dict[str, Reading], verdict: str
) -> None:
    ledger = Ledger()
    observed = last_observed(ledger.windows(1, readings(**changes)))
    assert observed.symbols[0].verdict == verdict


def test_the_worst_of_no_verdicts_is_ok() -> None:
    assert worst_verdict([]) is Verdict.OK
    assert worst_verdict([Verdict.WARN, Verdict.CRIT, Verdict.OK]) is Verdict.CRIT


def test_a_window_keeps_what_arrived_with_notional_and_fills_and_drops_strangers() -> None:
    ledger = Ledger()
    arrived = SymbolReadings(kpis={**HEALTHY, "edge_bps": Defect.STALE}, notional=80.0, fills=7)
    window = WindowReadings(start_ms=START_MS, symbols={ETH: OK, BTC: arrived}, feed_position="1-7")
    observed = last_observed(ledger.when(ObserveWindow(readings=window)))
    (one,) = observed.symbols
    assert one.readings == arrived
    assert one.violations == (
        Violation(kpi="edge_bps", verdict=Verdict.WARN, no_data_windows=1, arrived=Defect.STALE),
    )
    assert observed.feed_position == "1-7"
    assert observed.end_ms == START_MS + MINUTE_MS


@pytest.mark.parametrize(
    ("kpi", "values", "worst"),
    [
        ("edge_bps", [3.0, 1.0, 2.0], 1.0),
        ("maker_taker_ratio", [0.9, 0.7], 0.7),
        ("risk_ratio", [0.1, 0.3], 0.3),
    ],
)
def test_the_worst_of_several_values_is_the_most_harmful(
    kpi: str, values: list[float], worst: float
) -> None:
    assert KPI_BY_NAME[kpi].worst(values) == worst


@pytest.mark.parametrize(
    ("reading", "text"),
    [(None, "-"), (2.0, "2"), (Defect.STALE, "stale"), (0.83, "0.83")],
)
def test_a_reading_is_shown_as_a_number_a_defects_name_or_a_dash(
    reading: Reading | None, text: str
) -> None:
    assert format_reading(reading) == text


def test_a_healthy_window_is_ok_without_a_violation() -> None:
    ledger = Ledger(None, BTC, ETH)
    observed = last_observed(ledger.windows(1, OK))
    assert observed.verdict is Verdict.OK
    assert observed.triggered_by is None
    assert [one.violations for one in observed.symbols] == [(), ()]
