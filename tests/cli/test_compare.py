"""`live replay` with several policies, beside what was recorded and against labels."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support import live, replay_rows, row, write_jsonl

LOOSE = '{"thresholds": {"min_edge_bps": -9}}'
LABELS = "start,end,name\n2026-01-05T22:05:00Z,2026-01-05T22:15:00Z,thin book\n"
REAL_DATA = os.environ.get("LIVE_REAL_DATA")


@pytest.fixture
def incident(folder: Path) -> Path:
    """Forty windows, of which five from the sixth on have an edge of -4 bps; each trades 1,000."""
    rows = [
        row(index, edge_bps=-4.0 if 5 <= index < 10 else 3.0, notional=1_000.0)
        for index in range(40)
    ]
    Path("loose.json").write_text(LOOSE)
    Path("default.json").write_text("{}")
    Path("labels.csv").write_text(LABELS)
    return write_jsonl(folder / "incident.jsonl", rows)


def compared(*args: str | Path) -> dict[str, Any]:
    outcome = live("replay", *args, "--json")
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    found["by_name"] = {result["name"]: result for result in found["results"]}
    return found


def test_a_kpi_file_under_two_policies(incident: Path) -> None:
    found = compared(incident, "--policy", "default.json", "--policy", "loose.json")
    assert found["baseline"] == "always on"
    default, loose = found["by_name"]["default.json"], found["by_name"]["loose.json"]
    # -4 bps x 1,000 is 0.40: the first of five is lost, four are kept away, and so are the gains
    # of the 24 OK windows until the freeze ends.
    assert default["money"]["always_on"] == pytest.approx(35 * 0.3 - 5 * 0.4)
    assert default["money"]["loss_avoided"] == pytest.approx(4 * 0.4)
    assert default["money"]["edge_forgone"] == pytest.approx(24 * 0.3)
    assert loose["money"]["earned"] == default["money"]["always_on"]
    assert default["divergence"]["first"] == "2026-01-05T22:05:00Z"
    assert default["divergence"]["exact_share"] == pytest.approx(6 / 40)


def test_a_ledger_beside_what_was_recorded(incident: Path) -> None:
    assert live("run", "--feed", f"file:{incident}", "--ledger", "l.sqlite").code == 0
    found = compared("l.sqlite", "--policy", "loose.json", "--compare")
    recorded, loose = found["by_name"]["recorded"], found["by_name"]["loose.json"]
    assert found["baseline"] == "recorded"
    assert recorded["divergence"] is None
    assert (recorded["freezes"], loose["freezes"]) == (1, 0)
    assert loose["divergence"]["first"] == "2026-01-05T22:05:00Z"
    # What was recorded while the ledger's controller had halted trading says nothing.
    assert found["censored_by"] == {"halted": 28}
    assert found["censored_share"] == 28 / 40
    assert loose["money"]["always_on"] == pytest.approx(11 * 0.3 - 0.4)
    again = compared("l.sqlite", "--compare")["by_name"]["decided again"]
    assert again["divergence"]["windows"] == 0


def test_the_limits_that_were_recorded_hold_when_comparing(folder: Path) -> None:
    rows = [row(index, symbol) for index in range(3) for symbol in ("BTCUSDT", "ETHUSDT")]
    path = write_jsonl(folder / "two.jsonl", rows)
    run = live("run", "--feed", f"file:{path}", "--ledger", "l.sqlite", "--ramp-profile", "A")
    assert run.code == 0
    assert compared("l.sqlite", "--compare")["results"][1]["divergence"]["windows"] == 0
    wider = compared("l.sqlite", "--compare", "--ramp-profile", "B")
    assert wider["by_name"]["default policy"]["divergence"]["windows"] == 3


def test_labels_say_how_late_a_freeze_came_and_which_was_needless(incident: Path) -> None:
    found = compared(
        incident, "--policy", "default.json", "--policy", "loose.json", "--labels", "labels.csv"
    )
    default, loose = (found["by_name"][name]["labels"] for name in ("default.json", "loose.json"))
    assert (default["caught"], default["missed"], default["needless_freezes"]) == (1, 0, 0)
    assert default["detections"][0]["frozen_after_sec"] == 60.0
    assert default["detections"][0]["name"] == "thin book"
    assert (loose["caught"], loose["missed"]) == (0, 1)


def test_the_edge_itself_can_be_the_label(incident: Path) -> None:
    found = compared(
        incident, "--policy", "default.json", "--edge-below", "-3", "--edge-windows", "4"
    )
    judged = found["by_name"]["default.json"]["labels"]
    assert [(one["start"], one["end"]) for one in judged["detections"]] == [
        ("2026-01-05T22:05:00Z", "2026-01-05T22:10:00Z")
    ]
    assert judged["caught"] == 1


def test_the_table_says_what_is_exact_and_what_is_censored(incident: Path) -> None:
    live("run", "--feed", f"file:{incident}", "--ledger", "l.sqlite")
    outcome = live("replay", "l.sqlite", "--policy", "loose.json", "--compare")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[2].split() == ["recorded", "loose.json", "always", "on", "always", "off"]
    assert (
        "freezes                                   1               0               0" in outcome.out
    )
    assert (
        "loose.json: exact up to window 2026-01-05T22:05:00Z, a model after it: other decisions "
        "would have changed what was traded"
    ) in lines
    assert (
        "money over 12 windows of symbols; 28 (70.0%) are censored, not counted as zero: halted 28"
    ) in lines
    assert lines[-1] == "a throttle decided at a window's end earns from the next window on"


def test_one_policy_without_compare_keeps_to_one_object_a_window(incident: Path) -> None:
    rows = replay_rows(incident, "--policy", "loose.json")
    assert len(rows) == 40
    assert set(rows[0]) == {
        "window", "gap", "state", "throttle", "reasons", "triggered_by", "per_symbol_throttle",
        "effective_throttle",
    }  # fmt: skip


def test_a_history_folder_is_a_source_like_its_ledger(incident: Path) -> None:
    live("run", "--feed", f"file:{incident}", "--ledger", "l.sqlite", "--history", "h")
    assert replay_rows("h") == replay_rows("l.sqlite")
    of_history = compared("h", "--policy", "loose.json", "--compare")
    of_ledger = compared("l.sqlite", "--policy", "loose.json", "--compare")
    assert of_history.pop("source") == "h"
    assert of_ledger.pop("source") == "l.sqlite"
    assert of_history == of_ledger
    outcome = live("replay", "h", "--exchange", "okx")
    assert (outcome.code, "the history h has no dev:okx; it holds dev:bybit" in outcome.err) == (
        3,
        True,
    )
    Path("empty").mkdir()
    assert live("replay", "empty").code == 3
    assert live("replay", "h", "--shadow").code == 2
    assert live("replay", "h", "--interval-sec", "5").code == 2


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--labels", "none.csv"], 2, "--labels: none.csv can't be read: No such file"),
        (["--labels", "labels.txt"], 2, "--labels: expected a file ending in .csv or .json"),
        (
            ["--labels", "outside.csv"],
            2,
            "outside.csv line 2: expected an incident within the data",
        ),
        (["--labels", "stranger.csv"], 2, "stranger.csv line 2: expected one of BTCUSDT, was SOL"),
        (["--labels", "latin.csv"], 2, "--labels: latin.csv: expected UTF-8"),
        (["--labels", "labels.csv", "--edge-below", "1"], 2, "expected one of them, was both"),
        (["--edge-windows", "3"], 2, "--edge-windows: expected --edge-below with it"),
        (["--flap-windows", "0"], 2, "'--flap-windows'"),
        (["--policy", "none.json", "--compare"], 2, "--policy: none.json can't be read"),
        (["--symbols", "SOLUSDT", "--compare"], 2, "expected one of SOLUSDT, was BTCUSDT"),
        (
            ["--symbols", "BTCUSDT,SOLUSDT", "--compare"],
            2,
            "SOLUSDT never has a valid value; leave it out with --symbols (BTCUSDT have some)",
        ),
        (["--policy", "anomaly.json", "--compare"], 2, "anomaly.json requires anomaly_score"),
        (["--policy", "two.json", "--compare"], 2, "global_freeze_symbols: expected at most"),
    ],
)
def test_bad_input_is_refused_with_its_place(
    incident: Path, options: list[str], code: int, message: str
) -> None:
    write_jsonl(incident, [row(index, anomaly_score=None) for index in range(5)])
    Path("outside.csv").write_text("start,end\n2027-01-05,2027-01-06\n")
    Path("stranger.csv").write_text(
        "start,end,symbol\n2026-01-05T22:00:00Z,2026-01-05T22:02:00Z,SOLUSDT\n"
    )
    Path("labels.txt").write_text(LABELS)
    Path("latin.csv").write_bytes(b"start,end,name\n\xe4")
    Path("anomaly.json").write_text('{"required_kpis": ["risk_ratio", "anomaly_score"]}')
    Path("two.json").write_text('{"global_freeze_symbols": 2}')
    outcome = live("replay", incident, *options)
    assert outcome.code == code
    assert message in outcome.err
    assert outcome.out == ""


def test_labels_partly_outside_the_data_are_warned_of(incident: Path) -> None:
    Path("early.csv").write_text("start,end\n2026-01-05T21:00:00Z,2026-01-05T22:06:00Z\n")
    outcome = live("replay", incident, "--labels", "early.csv")
    assert outcome.code == 0
    assert (
        "WARNING: early.csv line 2: 2026-01-05T21:00:00Z to 2026-01-05T22:06:00Z lies"
        in outcome.err
    )


@pytest.mark.skipif(REAL_DATA is None, reason="LIVE_REAL_DATA isn't set")
def test_with_the_guides_thresholds_a_real_market_is_frozen_for_good() -> None:
    assert REAL_DATA is not None
    data = Path(REAL_DATA) / "kpi" / "standx_btc_sim.parquet"
    found = compared(data, "--compare", "--edge-below", "-1")
    default = found["by_name"]["default policy"]
    assert default["windows_in"]["FROZEN"] / found["windows"] > 0.99
    assert default["freezes"] == 1
    assert (
        default["money"]["loss_avoided"]
        > 0.99 * found["by_name"]["always off"]["money"]["loss_avoided"]
    )
    assert found["censored_by"] == {"no edge": 918}
