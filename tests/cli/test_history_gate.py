"""
The gate over a history: shares over the last windows, and never a conclusion from what isn't there.

The history is a real one, of a ledger that a run over a KPI file made.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import live, row, write_jsonl

from domain.kpis import KPIS, Kpi
from ledger.application import Ledger
from ledger.location import LedgerLocation
from ledger.streams import StreamKey
from projections.gate import GateLimits
from projections.history import open_history
from projections.history_gate import (
    _BREACHED,
    _KEPT,
    _UNTOLD,
    HistoryLimits,
    _codes,
    judge_history,
)
from projections.history_manifest import manifest_path
from projections.history_writer import HistoryWriter

Made = Callable[..., Path]
WINDOWS = 20


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Return a function that decides rows, and makes the history of that."""

    def make(rows: list[dict[str, object]], *options: str | Path) -> Path:
        feed = write_jsonl(tmp_path / "kpis.jsonl", rows)
        ledger, folder = tmp_path / "desk.sqlite", tmp_path / "desk.history"
        args = ("--ledger", ledger, "--artifacts", tmp_path / "artifacts", "--ramp-profile", "C")
        run = live("run", "--feed", f"file:{feed}", *args, *options)
        assert run.code == 0, run.err
        return history_of(ledger, folder)

    return make


def history_of(ledger: Path, folder: Path) -> Path:
    """Make the history of a ledger."""
    with Ledger.open(LedgerLocation(ledger), read_only=True) as opened:
        HistoryWriter(folder, "dev:bybit", now_ms=lambda: 0).catch_up(opened)
    return folder


def gate(folder: Path, *options: str | Path, windows: int = WINDOWS) -> tuple[int, dict[str, Any]]:
    """Return the exit code, and what each check came to: by `symbol name`, its check."""
    args = ("--history", folder, "--max-age", "0", "--windows", str(windows), "--json")
    outcome = live("gate", *args, *options)
    assert outcome.out, outcome.err
    result = json.loads(outcome.out)
    assert result["exit_code"] == outcome.code
    checks = {
        " ".join(filter(None, (check["subject"], check["name"]))): check
        for check in result["checks"]
    }
    return outcome.code, checks


def healthy(windows: int = WINDOWS, **others: dict[str, Any] | None) -> list[dict[str, object]]:
    """Return rows that are OK; `at_3={...}` changes those of window 3, None leaves it out."""
    rows = []
    for index in range(windows):
        changes = others.get(f"at_{index}", {})
        if changes is not None:
            rows.append(row(index, **changes))
    return rows


def test_windows_that_kept_every_threshold_pass(made: Made) -> None:
    code, checks = gate(made(healthy()))
    assert code == 0
    assert {check["outcome"] for check in checks.values()} == {"PASS"}
    assert checks["coverage"]["value"] == checks["coverage"]["threshold"] == WINDOWS
    assert checks["ok_share"]["sentence"] == "20 of 20 windows kept every threshold"
    assert checks["BTCUSDT edge_bps"]["sentence"] == "20 of 20 windows kept edge_bps (worst 3.2)"


def test_one_window_below_a_threshold_fails_unless_a_share_allows_it(made: Made) -> None:
    folder = made(healthy(at_7={"maker_taker_ratio": 0.82}))
    code, checks = gate(folder)
    assert code == 1
    failed = [name for name, check in checks.items() if check["outcome"] == "FAIL"]
    assert failed == ["ok_share", "BTCUSDT maker_taker_ratio"]
    assert checks["ok_share"]["value"] == 0.95
    told = "19 of 20 windows kept maker_taker (worst 0.82), 1 didn't"
    assert checks["BTCUSDT maker_taker_ratio"]["sentence"] == told
    assert gate(folder, "--min-ok-share", "0.95")[0] == 0
    assert gate(folder, "--min-ok-share", "0.951")[0] == 1
    assert gate(folder, "--min_maker_taker", "0.82")[0] == 0


def test_a_value_equal_to_its_threshold_is_kept(made: Made) -> None:
    folder = made(healthy(at_2={"edge_bps": 2.5, "p95_latency_ms": 350}))
    assert gate(folder)[0] == 0


def test_only_the_last_windows_count(made: Made) -> None:
    folder = made(healthy(at_3={"p95_latency_ms": 351}))
    assert gate(folder, windows=17)[0] == 1
    assert gate(folder, windows=16)[0] == 0


def test_a_missing_window_cannot_be_told_and_a_share_that_it_could_not_change_can(
    made: Made,
) -> None:
    folder = made(healthy(at_5=None))
    code, checks = gate(folder)
    assert code == 3
    assert checks["coverage"]["outcome"] == "UNKNOWN"
    told = "19 of 20 windows (1200 s) were decided; 1 are missing"
    assert checks["coverage"]["sentence"] == told
    assert checks["ok_share"]["outcome"] == "UNKNOWN"
    code, checks = gate(folder, "--min-ok-share", "0.95")
    assert code == 3
    assert checks["ok_share"]["outcome"] == "PASS"


def test_fewer_windows_than_asked_for_cannot_be_told(made: Made) -> None:
    code, checks = gate(made(healthy()), windows=60)
    assert code == 3
    assert checks["coverage"]["outcome"] == "UNKNOWN"


def test_a_required_kpi_without_data_cannot_be_told_and_an_optional_one_can(made: Made) -> None:
    folder = made(healthy(at_4={"risk_ratio": None}, at_6={"anomaly_score": None}))
    code, checks = gate(folder)
    assert code == 3
    unknown = [name for name, check in checks.items() if check["outcome"] == "UNKNOWN"]
    assert unknown == ["ok_share", "BTCUSDT risk_ratio"]
    assert checks["BTCUSDT risk_ratio"]["sentence"].endswith(", 1 can't be told")


def test_breaches_that_missing_windows_could_not_make_good_fail_all_the_same(made: Made) -> None:
    folder = made(healthy(at_5=None, at_7={"edge_bps": 2.4}, at_8={"edge_bps": 2.4}))
    _, checks = gate(folder, "--min-ok-share", "0.95")
    assert checks["BTCUSDT edge_bps"]["outcome"] == "FAIL"
    assert checks["BTCUSDT risk_ratio"]["outcome"] == "PASS"


def test_a_state_that_is_frozen_now_fails(made: Made) -> None:
    folder = made(healthy(at_19={"risk_ratio": 0.5}))
    _, checks = gate(folder, "--min-ok-share", "0.5")
    assert checks["state"]["outcome"] == "FAIL"
    assert checks["coverage"]["sentence"].endswith("the state was FROZEN after 1")


def test_age_and_env_are_checked_as_on_the_artifacts(made: Made) -> None:
    folder = made(healthy())
    outcome = live("gate", "--history", folder, "--windows", "20")
    assert outcome.code == 3
    assert "stale" in outcome.out
    outcome = live("gate", "--history", folder, "--env", "prod")
    assert outcome.code == 3
    assert "no history of prod:bybit" in outcome.err


def test_windows_of_a_mock_feed_tell_nothing_about_prod(made: Made, tmp_path: Path) -> None:
    assert feed_check_of(made(healthy())) == "PASS"
    args = ("--interval-sec", "0.001", "--iterations", "3", "--artifacts", tmp_path / "a")
    run = live("run", "--ledger", tmp_path / "mock.sqlite", *args)
    assert run.code == 0, run.err
    assert feed_check_of(history_of(tmp_path / "mock.sqlite", tmp_path / "mock.history")) == (
        "UNKNOWN"
    )


def feed_check_of(folder: Path) -> str:
    """Return what the check of the feed comes to where a mock feed won't do."""
    limits = GateLimits({kpi.name: kpi.threshold for kpi in KPIS}, 0.0, refuses_mock=True)
    result = judge_history(open_history(folder), HistoryLimits(limits, 1, 1.0), now_ms=0)
    (check,) = (check for check in result.checks if check.name == "feed")
    return check.outcome.value


def test_artifacts_and_history_are_judged_together_where_both_are_named(
    made: Made, tmp_path: Path
) -> None:
    folder = made(healthy(at_7={"maker_taker_ratio": 0.82}))
    code, checks = gate(folder, "--path", tmp_path / "artifacts")
    assert code == 1
    assert checks["version"]["outcome"] == "PASS"
    assert checks["ok_share"]["outcome"] == "FAIL"


def test_junit_has_a_case_for_each_check(made: Made, tmp_path: Path) -> None:
    folder, file = made(healthy(at_7={"maker_taker_ratio": 0.82}, at_9=None)), tmp_path / "gate.xml"
    _, checks = gate(folder, "--junit", file)
    (suite,) = ET.parse(file).getroot()
    assert suite.get("name") == "live gate --history"
    assert (suite.get("tests"), suite.get("failures")) == (str(len(checks)), "2")
    assert int(suite.get("errors", "")) == sum(
        check["outcome"] == "UNKNOWN" for check in checks.values()
    )
    failed = [case.get("name") for case in suite if case.find("failure") is not None]
    assert failed == ["ok_share", "BTCUSDT maker_taker_ratio"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--windows", "0"), "--windows: expected 1 to 100000, was 0"),
        (("--min-ok-share", "0"), "--min-ok-share: expected more than 0 and at most 1, was 0"),
        (("--min-ok-share", "nan"), "--min-ok-share: expected more than 0 and at most 1, was nan"),
        (("--junit", "none/gate.xml"), "--junit: none/gate.xml can't be written"),
    ],
)
def test_bad_options_are_refused(made: Made, options: tuple[str, ...], told: str) -> None:
    outcome = live("gate", "--history", made(healthy()), *options)
    assert outcome.code == 2
    assert told in outcome.err


def test_a_history_that_is_not_there_cannot_be_told(tmp_path: Path) -> None:
    outcome = live("gate", "--history", tmp_path / "none")
    assert outcome.code == 3
    assert "there is no history at" in outcome.err


def test_a_damaged_history_is_named(made: Made) -> None:
    folder = made(healthy())
    path = manifest_path(folder, StreamKey("dev", "bybit"))
    path.write_bytes(path.read_bytes()[:-20])
    outcome = live("gate", "--history", folder)
    assert outcome.code == 5
    assert path.name in outcome.err


@given(kpi=st.sampled_from(KPIS), data=st.data())
def test_the_gate_compares_as_the_controller_does(kpi: Kpi, data: st.DataObject) -> None:
    values = st.none() | st.floats(-5, 400, allow_nan=False) | st.just(kpi.threshold)
    value = data.draw(values)
    verdict = data.draw(st.sampled_from([None, "WARN"])) if value is None else None
    excused = data.draw(st.booleans())
    rows = pa.table({"value": [value], "verdict": [verdict], "excused": [excused]}).cast(
        pa.schema([("value", pa.float64()), ("verdict", pa.string()), ("excused", pa.bool_())])
    )
    (code,) = _codes(rows, kpi, kpi.threshold).to_pylist()
    if value is not None:
        assert code == (_BREACHED if kpi.is_breached(value, kpi.threshold) else _KEPT)
    else:
        assert code == (_UNTOLD if verdict is not None or excused else _KEPT)
