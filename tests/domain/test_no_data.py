"""No data is never OK: what it is, how it escalates, memory of breaches, counts; not waivers."""

import math

import msgspec
import pytest
from decider_spec import (
    NOTHING,
    OK,
    SHORT,
    Ledger,
    frozen,
    last_observed,
    readings,
)
from msgspec.structs import replace

from domain.events import KpiObserved
from domain.kpis import KPI_BY_NAME, KPIS, Defect, Reading
from domain.policy import Policy
from domain.windows import SymbolReadings

REQUIRED = ("edge_bps", "maker_taker_ratio", "risk_ratio", "p95_latency_ms")
EDGE_1, EDGE_2, EDGE_3 = (f"edge_bps=no data ({n} windows)" for n in (1, 2, 3))
ANOMALY_OUT = readings(anomaly_score=3.0)
NO_ANOMALY = readings(anomaly_score=None)


# Rule 1: what NO_DATA is.


@pytest.mark.parametrize("kpi", [kpi.name for kpi in KPIS])
@pytest.mark.parametrize("reading", [math.nan, math.inf, -math.inf, *Defect])
def test_nan_infinite_stale_and_malformed_are_no_data_for_every_kpi(
    kpi: str, reading: Reading
) -> None:
    ledger = Ledger()
    ledger.windows(1, readings(**{kpi: reading}))
    assert ledger.verdict == "WARN"
    assert ledger.reasons_of() == [f"{KPI_BY_NAME[kpi].label}=no data (1 windows)"]


@pytest.mark.parametrize(
    ("kpi", "value", "is_data"),
    [
        ("maker_taker_ratio", -0.01, False),
        ("maker_taker_ratio", 1.01, False),
        ("maker_taker_ratio", 1.0, True),
        ("maker_taker_ratio", 0.0, True),
        ("risk_ratio", -0.01, False),
        ("risk_ratio", 0.0, True),
        ("risk_ratio", 7.0, True),
        ("p95_latency_ms", -1.0, False),
        ("p95_latency_ms", 0.0, True),
        ("edge_bps", -50.0, True),
        ("anomaly_score", -50.0, True),
    ],
)
def test_a_value_out_of_its_kpis_domain_is_no_data(kpi: str, value: float, is_data: bool) -> None:
    ledger = Ledger()
    ledger.windows(1, readings(**{kpi: value}))
    assert any("no data" in reason for reason in ledger.reasons_of()) is not is_data


@pytest.mark.parametrize(
    ("value", "defect"),
    [(math.nan, Defect.NAN), (math.inf, Defect.INFINITE), (-math.inf, Defect.INFINITE)],
)
def test_what_is_no_number_is_recorded_as_a_defect_so_that_it_can_be_stored_and_read(
    value: float, defect: Defect
) -> None:
    ledger = Ledger()
    observed = last_observed(ledger.windows(1, readings(edge_bps=value)))
    assert observed.symbols[0].readings.kpis["edge_bps"] == defect
    assert msgspec.json.decode(msgspec.json.encode(observed), type=KpiObserved) == observed


# Rule 2: required KPIs.


@pytest.mark.parametrize("kpi", REQUIRED)
def test_a_required_kpi_that_is_absent_is_warn_and_crit_from_the_third_window_on(
    kpi: str,
) -> None:
    ledger = Ledger()
    told = []
    for _ in range(4):
        ledger.windows(1, readings(**{kpi: None}))
        told.append((ledger.verdict, ledger.reasons_of()))
    label = KPI_BY_NAME[kpi].label
    assert told[:3] == [
        ("WARN", [f"{label}=no data (1 windows)"]),
        ("WARN", [f"{label}=no data (2 windows)"]),
        ("CRIT", [f"{label}=no data (3 windows)"]),
    ]
    # From then on the symbol is halted, which waives the two KPIs that only fills bring.
    waived = kpi in Policy().waived_when_halted
    assert told[3] == (("OK", []) if waived else ("CRIT", [f"{label}=no data (4 windows)"]))


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_no_data_freezes_from_its_nth_consecutive_window_on(limit: int) -> None:
    ledger = Ledger(Policy(no_data_freeze_windows=limit, waived_when_halted=()))
    verdicts = []
    for _ in range(limit + 2):
        ledger.windows(1, readings(risk_ratio=Defect.STALE))
        verdicts.append(ledger.verdict)
    assert verdicts == ["WARN"] * (limit - 1) + ["CRIT"] * 3


def test_a_window_in_which_nothing_arrived_is_decided_like_any_other() -> None:
    ledger = Ledger()
    observed = last_observed(ledger.windows(1, NOTHING))
    assert observed.verdict == "WARN"
    assert ledger.reasons_of() == [
        f"{KPI_BY_NAME[kpi].label}=no data (1 windows)" for kpi in REQUIRED
    ]
    assert ledger.state.window == observed.window


# Rule 3: KPIs that aren't required.


def test_a_kpi_that_is_not_required_may_be_absent_for_ever() -> None:
    ledger = Ledger()
    ledger.windows(5, NO_ANOMALY)
    assert (ledger.verdict, ledger.reasons_of(), ledger.mode) == ("OK", [], ("ACTIVE", 1.0))


def test_a_kpi_that_is_not_required_is_judged_when_present() -> None:
    ledger = Ledger()
    ledger.windows(1, ANOMALY_OUT)
    assert (ledger.verdict, ledger.mode) == ("CRIT", ("FROZEN", 0.0))


def test_a_kpi_that_is_not_required_and_malformed_is_no_data_and_escalates() -> None:
    ledger = Ledger()
    verdicts = []
    for _ in range(3):
        ledger.windows(1, readings(anomaly_score=Defect.NAN))
        verdicts.append(ledger.verdict)
    assert verdicts == ["WARN", "WARN", "CRIT"]
    assert ledger.reasons_of() == ["anomaly=no data (3 windows)"]


def test_a_breach_that_goes_silent_is_no_data_until_a_valid_value_is_ok() -> None:
    ledger = Ledger()
    ledger.windows(1, ANOMALY_OUT)
    told = []
    for arrived in (NO_ANOMALY, NO_ANOMALY, NO_ANOMALY, ANOMALY_OUT, NO_ANOMALY, OK, NO_ANOMALY):
        ledger.windows(1, arrived)
        told.append((ledger.verdict, *ledger.reasons_of()))
    assert told == [
        ("WARN", "anomaly=no data (1 windows)"),
        ("WARN", "anomaly=no data (2 windows)"),
        ("CRIT", "anomaly=no data (3 windows)"),
        ("CRIT", "anomaly=3.0 > 2.0"),
        ("WARN", "anomaly=no data (1 windows)"),
        ("OK",),
        ("OK",),
    ]


def test_a_malformed_value_neither_sets_nor_clears_the_memory_of_a_breach() -> None:
    ledger = Ledger()
    ledger.windows(1, ANOMALY_OUT)
    ledger.windows(1, readings(anomaly_score=Defect.NAN))
    ledger.windows(1, NO_ANOMALY)
    assert ledger.reasons_of() == ["anomaly=no data (2 windows)"]
    ledger.windows(1, OK)
    ledger.windows(1, readings(anomaly_score=Defect.NAN))
    ledger.windows(1, NO_ANOMALY)
    assert ledger.reasons_of() == []


def test_a_kpi_that_is_not_required_and_waived_is_excused_after_a_breach_while_halted() -> None:
    policy = Policy(waived_when_halted=("anomaly_score",))
    ledger = frozen(policy)
    ledger.windows(1, ANOMALY_OUT)
    observed = last_observed(ledger.windows(1, NO_ANOMALY))
    assert (ledger.verdict, observed.symbols[0].excused_kpis) == ("OK", ("anomaly_score",))


# Rule 5: never OK without a valid KPI.


def test_a_symbol_without_a_valid_kpi_is_never_ok_however_long_it_is_halted() -> None:
    ledger = frozen(SHORT)
    for _ in range(10):
        ledger.windows(1, NOTHING)
        assert ledger.verdict != "OK"
    ledger.skip(10)
    assert ledger.counters[0] == 0
    assert ledger.mode == ("FROZEN", 0.0)


# Rule 6: counts.


@pytest.mark.parametrize("between", [OK, readings(edge_bps=1.0)])
def test_a_count_starts_again_with_a_valid_value_even_a_breach(between: SymbolReadings) -> None:
    ledger = Ledger(Policy(waived_when_halted=()))
    ledger.windows(2, readings(edge_bps=None))
    assert ledger.reasons_of() == [EDGE_2]
    ledger.windows(1, between)
    ledger.windows(1, readings(edge_bps=None))
    assert ledger.reasons_of() == [EDGE_1]


def test_a_count_starts_again_with_a_window_that_is_absent_without_a_verdict() -> None:
    ledger = Ledger()
    ledger.windows(2, readings(anomaly_score=Defect.NAN))
    ledger.windows(1, NO_ANOMALY)
    ledger.windows(1, readings(anomaly_score=Defect.NAN))
    assert ledger.reasons_of() == ["anomaly=no data (1 windows)"]


def test_a_count_starts_again_with_a_waived_window() -> None:
    ledger = frozen()
    ledger.windows(2, readings(edge_bps=Defect.STALE))
    assert ledger.reasons_of() == [EDGE_2]
    ledger.windows(1, readings(edge_bps=None))
    assert ledger.reasons_of() == []
    ledger.windows(1, readings(edge_bps=Defect.STALE))
    assert ledger.reasons_of() == [EDGE_1]


def test_absent_and_malformed_windows_count_together_and_through_a_gap() -> None:
    ledger = Ledger()
    ledger.windows(1, readings(edge_bps=None))
    ledger.skip(1)
    ledger.windows(1, readings(edge_bps=Defect.STALE))
    assert (ledger.verdict, ledger.reasons_of()) == ("CRIT", [EDGE_3])


def test_each_kpi_has_its_own_count() -> None:
    ledger = Ledger()
    ledger.windows(1, readings(edge_bps=None))
    ledger.windows(1, readings(edge_bps=None, risk_ratio=None))
    assert ledger.reasons_of() == [EDGE_2, "risk=no data (1 windows)"]


def test_no_data_and_breaches_stand_together_in_table_order() -> None:
    ledger = Ledger(replace(SHORT, min_warn_windows=9))
    ledger.windows(2, readings(maker_taker_ratio=None))
    ledger.windows(1, readings(maker_taker_ratio=Defect.STALE, p95_latency_ms=360.0))
    assert ledger.reasons_of() == ["maker_taker=no data (3 windows)", "p95_latency=360 > 350"]
