"""`live policy lint` in a terminal and for programs: findings are exit code 1."""

import json
import os
from pathlib import Path

import pytest
from support import live, row, write_jsonl

REAL_DATA = os.environ.get("LIVE_REAL_DATA")


def test_a_clean_policy_ends_with_0_and_shows_what_recovery_takes(folder: Path) -> None:
    Path("p.json").write_text("{}")
    outcome = live("policy", "lint", "p.json")
    assert outcome.code == 0
    assert outcome.out.splitlines()[0] == "no findings"
    assert (
        "  5 symbols, 2.0%: out of FROZEN 107 windows (107 min), out of COOLDOWN 25 windows"
        in outcome.out.splitlines()
    )


def test_findings_in_data_end_with_1(folder: Path) -> None:
    Path("p.json").write_text('{"thresholds": {"max_risk": 0.1}}')
    data = write_jsonl(folder / "k.jsonl", [row(index) for index in range(30)])
    outcome = live("policy", "lint", "p.json", data)
    assert outcome.code == 1
    assert (
        "always-breached   thresholds.max_risk: every risk_ratio of BTCUSDT is above 0.1 "
        "(30 values from 0.22 to 0.22)" in outcome.out.splitlines()
    )
    assert "windows decided again: ACTIVE 0, COOLDOWN 0, FROZEN 30" in outcome.out
    found = json.loads(live("policy", "lint", "p.json", data, "--json").out)
    assert found["findings"][0]["code"] == "never-breached"
    assert found["data"]["runs"][0] == {
        "key": "unfreeze_after_ok_windows", "wanted": 24, "held": 0, "longest": 0,
        "longest_end": None,
    }  # fmt: skip
    assert [line["is_measured"] for line in found["recovery"]] == [False, False, False, True]
    assert found["recovery"][-1]["unfreeze_windows"] is None


def test_a_ledger_is_data_too(folder: Path) -> None:
    Path("p.json").write_text("{}")
    data = write_jsonl(folder / "k.jsonl", [row(index) for index in range(30)])
    assert live("run", "--feed", f"file:{data}", "--ledger", "l.sqlite").code == 0
    of_file = json.loads(live("policy", "lint", "p.json", data, "--json").out)
    of_ledger = json.loads(live("policy", "lint", "p.json", "l.sqlite", "--json").out)
    assert of_ledger["data"].pop("source") == "l.sqlite"
    assert of_file["data"].pop("source") == str(data)
    assert of_ledger == of_file


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none.json"], 2, "live policy lint: none.json can't be read: No such file"),
        (["bad.json"], 2, "bad.json: unknown key 'x'"),
        (["p.json", "none.csv"], 2, "none.csv"),
        (["p.json", "none.sqlite"], 3, "none.sqlite"),
    ],
)
def test_bad_input_keeps_its_code(
    folder: Path, arguments: list[str], code: int, message: str
) -> None:
    Path("p.json").write_text("{}")
    Path("bad.json").write_text('{"x": 1}')
    outcome = live("policy", "lint", *arguments)
    assert outcome.code == code
    assert message in outcome.err


@pytest.mark.skipif(REAL_DATA is None, reason="LIVE_REAL_DATA isn't set")
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("standx_btc_sim", "thresholds.max_latency_ms"),
        ("hummingbot_btc_livefills", "thresholds.min_edge_bps"),
    ],
)
def test_the_guides_thresholds_are_found_to_be_always_breached(
    folder: Path, name: str, key: str
) -> None:
    assert REAL_DATA is not None
    Path("p.json").write_text("{}")
    data = Path(REAL_DATA) / "kpi" / f"{name}.parquet"
    outcome = live("policy", "lint", "p.json", data, "--json")
    assert outcome.code == 1
    findings = {(one["code"], one["key"]) for one in json.loads(outcome.out)["findings"]}
    assert ("always-breached", key) in findings
    assert ("never-unfreezes", "unfreeze_after_ok_windows") in findings
