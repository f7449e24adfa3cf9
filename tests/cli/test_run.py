"""`live run`, end to end: windows in, decisions and artifacts out, restarts that change nothing."""

import json
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support import decisions, live, records, replay_rows, row, spawn, wait_for_version, write_jsonl

from domain.events import (
    ClockFault,
    GapObserved,
    KpiObserved,
    LateWindowObserved,
    RunStarted,
    RunStopped,
    StateTransitioned,
)

BAD: dict[str, Any] = {"edge_bps": 2.0, "risk_ratio": 0.45}


@pytest.fixture
def incident(folder: Path) -> Path:
    """A file: 5 good windows, a bad one, 30 good ones."""
    rows = [row(index, **(BAD if index == 5 else {})) for index in range(36)]
    return write_jsonl(folder / "incident.jsonl", rows)


def run_file(path: Path, *options: str) -> str:
    outcome = live("run", "--feed", f"file:{path}", "--ledger", "l.sqlite", *options)
    assert outcome.code == 0, outcome.err
    return outcome.out


def test_the_guides_dry_run_writes_its_three_files(folder: Path) -> None:
    outcome = live("run", "--dry-run")
    assert outcome.code == 0
    written = {path.name for path in (folder / "artifacts/live/latest").iterdir()}
    assert written == {"LIVE_SUMMARY.json", "LIVE_REPORT.md", "LIVE_DECISION.json"}
    summary = json.loads((folder / "artifacts/live/latest/LIVE_SUMMARY.json").read_text())
    assert summary["state"] == "ACTIVE"
    assert summary["feed"] == "mock://healthy?seed=0"
    assert summary["ledger"]["stream"] == "dev:bybit:dry-run"
    assert summary["effective_notional"] == {"BTCUSDT": 100.0}


def test_the_mock_feed_without_a_ledger_starts_anew_each_time(folder: Path) -> None:
    for _ in range(2):
        assert live("run", "--dry-run", "--iterations", "3").code == 0
        found = records(folder / "artifacts/live/mock.sqlite", "dev:bybit:dry-run")
        assert sum(isinstance(record.event, KpiObserved) for record in found) == 3


def test_a_file_is_decided_to_its_end_and_the_freeze_is_told(incident: Path) -> None:
    told = run_file(incident)
    freeze = "ACTIVE -> FROZEN (throttle 0): BTCUSDT edge_bps=2.0 < 2.5, risk=0.45 > 0.40"
    assert f"2026-01-05T22:06:00Z  {freeze}" in told
    assert "2026-01-05T22:30:00Z  FROZEN -> ACTIVE (throttle 1): recovered after 24 OK" in told


def test_the_guides_jq_lines_find_reasons_and_trigger_in_the_decision(folder: Path) -> None:
    path = write_jsonl(folder / "bad.jsonl", [row(0), row(1, **BAD)])
    run_file(path)
    decision = json.loads((folder / "artifacts/live/latest/LIVE_DECISION.json").read_text())
    assert decision["reasons"] == ["edge_bps=2.0 < 2.5", "risk=0.45 > 0.40"]
    assert decision["triggered_by"] == "BTCUSDT"
    summary = json.loads((folder / "artifacts/live/latest/LIVE_SUMMARY.json").read_text())
    assert summary["per_symbol_throttle"] == {"BTCUSDT": 0.0}


def test_running_the_same_file_again_changes_nothing(folder: Path, incident: Path) -> None:
    run_file(incident)
    before = records(folder / "l.sqlite")
    files = {p.name: p.read_bytes() for p in (folder / "artifacts/live/latest").iterdir()}
    run_file(incident)
    assert records(folder / "l.sqlite") == before
    assert files == {p.name: p.read_bytes() for p in (folder / "artifacts/live/latest").iterdir()}


def test_a_restart_in_the_middle_decides_as_one_unbroken_run(folder: Path, incident: Path) -> None:
    run_file(incident, "--iterations", "10")
    assert len([r for r in records(folder / "l.sqlite") if isinstance(r.event, KpiObserved)]) == 10
    run_file(incident)
    broken = decisions(records(folder / "l.sqlite"))
    live("run", "--feed", f"file:{incident}", "--ledger", "unbroken.sqlite")
    assert broken == decisions(records(folder / "unbroken.sqlite"))
    kinds = [type(r.event) for r in records(folder / "l.sqlite")]
    assert kinds.count(RunStarted) == kinds.count(RunStopped) == 2


def test_a_changed_window_is_recorded_as_late_once_and_decides_nothing(
    folder: Path, incident: Path
) -> None:
    run_file(incident)
    before = replay_rows("l.sqlite")
    lines = incident.read_text().splitlines()
    lines[3] = json.dumps(row(3, risk_ratio=0.9))
    incident.write_text("\n".join(lines) + "\n")
    assert "late window" in run_file(incident)
    events = [record.event for record in records(folder / "l.sqlite")]
    late = [event for event in events if isinstance(event, LateWindowObserved)]
    assert [event.window for event in late] == [1_767_650_580_000]
    assert "late window" not in run_file(incident)
    assert replay_rows("l.sqlite") == before


def test_replay_of_the_ledger_equals_replay_of_the_file(incident: Path) -> None:
    run_file(incident)
    assert replay_rows("l.sqlite") == replay_rows(incident)


def test_missing_windows_become_one_gap_that_freezes(folder: Path) -> None:
    path = write_jsonl(folder / "gap.jsonl", [row(0), row(1), row(8), row(9)])
    rows = replay_rows(path)
    assert [(r["window"][11:16], r["gap"], r["state"]) for r in rows] == [
        ("22:00", False, "ACTIVE"),
        ("22:01", False, "ACTIVE"),
        ("22:02", True, "FROZEN"),
        ("22:08", False, "FROZEN"),
        ("22:09", False, "FROZEN"),
    ]
    assert rows[2]["windows"] == 6
    assert rows[2]["reasons"] == ["runner down 2026-01-05T22:02Z to 2026-01-05T22:08Z (6 windows)"]


def test_report_makes_the_same_bytes_again(folder: Path, incident: Path) -> None:
    run_file(incident)
    latest = folder / "artifacts/live/latest"
    before = {path.name: path.read_bytes() for path in latest.iterdir()}
    for path in latest.iterdir():
        path.unlink()
    assert live("report", "--ledger", "l.sqlite").code == 0
    assert before == {path.name: path.read_bytes() for path in latest.iterdir()}


def test_a_policy_continues_until_another_one_is_given(folder: Path, incident: Path) -> None:
    (folder / "policy.json").write_text(json.dumps({"thresholds": {"min_edge_bps": 1.0}}))
    run_file(incident, "--iterations", "2", "--policy", "policy.json")
    run_file(incident, "--iterations", "4")
    decision = json.loads((folder / "artifacts/live/latest/LIVE_DECISION.json").read_text())
    assert decision["thresholds"]["min_edge_bps"] == 1.0


def test_options_come_from_variables_too(
    folder: Path, incident: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVE_LEDGER", "from-variable.sqlite")
    monkeypatch.setenv("LIVE_FEED", f"file:{incident}")
    monkeypatch.setenv("LIVE_EXCHANGE", "okx")
    assert live("run").code == 0
    assert records(folder / "from-variable.sqlite", "dev:okx")


def test_symbols_beyond_the_limit_are_watched_with_throttle_zero_and_a_warning(
    folder: Path,
) -> None:
    rows = [row(0), row(0, "ETHUSDT"), row(1), row(1, "ETHUSDT", **BAD)]
    path = write_jsonl(folder / "two.jsonl", rows)
    outcome = live("run", "--feed", f"file:{path}", "--ledger", "l.sqlite")
    assert outcome.code == 0
    assert "profile A lets 1 of 2 symbols trade (profiles that would do: B, C)" in outcome.err
    summary = json.loads((folder / "artifacts/live/latest/LIVE_SUMMARY.json").read_text())
    assert summary["effective_throttle"] == {"BTCUSDT": 1.0, "ETHUSDT": 0.0}
    assert summary["per_symbol_throttle"] == {"BTCUSDT": 1.0, "ETHUSDT": 0.0}
    assert summary["state"] == "ACTIVE"


def test_a_run_along_the_clock_decides_each_window_after_its_end(folder: Path) -> None:
    outcome = live(
        "run", "--feed", "mock://", "--ledger", "l.sqlite",
        "--interval-sec", "0.05", "--iterations", "4",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    observed = [r for r in records(folder / "l.sqlite") if isinstance(r.event, KpiObserved)]
    assert len(observed) == 4
    for record in observed:
        assert isinstance(record.event, KpiObserved)
        assert record.decided_at_ms is not None
        assert record.event.window % 50 == 0
        assert record.event.end_ms <= record.decided_at_ms < record.event.end_ms + 50


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_its_end_recorded(folder: Path, number: signal.Signals) -> None:
    process = spawn(
        "run", "--feed", "mock://", "--ledger", "l.sqlite",
        "--interval-sec", "0.1", "--iterations", "0", cwd=folder,
    )  # fmt: skip
    assert wait_for_version(folder / "l.sqlite", 3, process) >= 3
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    last = records(folder / "l.sqlite")[-1].event
    assert isinstance(last, RunStopped)
    assert last.reason == "stopped by a signal"


def test_a_second_runner_ends_at_once_with_code_4_and_says_who_holds_the_stream(
    folder: Path, incident: Path
) -> None:
    process = spawn(
        "run", "--feed", f"file:{incident}", "--ledger", "l.sqlite", "--speed", "600", cwd=folder
    )
    wait_for_version(folder / "l.sqlite", 3, process)
    other = live("run", "--feed", f"file:{incident}", "--ledger", "l.sqlite")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert other.code == 4
    assert f"dev:bybit is held by process {process.pid} on " in other.err


def test_a_stopped_process_leaves_a_gap_and_freezes(folder: Path) -> None:
    process = spawn(
        "run", "--feed", "mock://", "--ledger", "l.sqlite",
        "--interval-sec", "0.1", "--iterations", "0", cwd=folder,
    )  # fmt: skip
    version = wait_for_version(folder / "l.sqlite", 4, process)
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.0)
    process.send_signal(signal.SIGCONT)
    wait_for_version(folder / "l.sqlite", version + 3, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    events = [record.event for record in records(folder / "l.sqlite")]
    gaps = [event for event in events if isinstance(event, GapObserved)]
    assert max(gap.windows for gap in gaps) >= 3
    frozen = [event for event in events if isinstance(event, StateTransitioned)]
    assert frozen[0].state == "FROZEN"
    assert frozen[0].reasons[0].startswith("runner down ")


def test_a_clock_behind_the_ledger_freezes_until_it_has_passed(folder: Path) -> None:
    ahead = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(hours=1)
    rows = [{**row(0), "window_start": (ahead + timedelta(minutes=m)).isoformat()} for m in (0, 1)]
    path = write_jsonl(folder / "ahead.jsonl", rows)
    assert live("run", "--feed", f"file:{path}", "--ledger", "l.sqlite").code == 0
    process = spawn(
        "run", "--feed", "mock://", "--ledger", "l.sqlite", "--iterations", "0", cwd=folder
    )
    wait_for_version(folder / "l.sqlite", 8, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    events = [record.event for record in records(folder / "l.sqlite")]
    faults = [event for event in events if isinstance(event, ClockFault)]
    assert len(faults) == 1
    assert 3_600_000 - 60_000 <= faults[0].behind_ms <= 3_660_000
    cause = f"clock is {faults[0].behind_ms // 1000} s behind the ledger"
    assert f"ACTIVE -> FROZEN (throttle 0): {cause}" in out


def test_a_run_goes_on_while_its_artifacts_cannot_be_written(folder: Path) -> None:
    process = spawn(
        "run", "--feed", "mock://", "--ledger", "l.sqlite",
        "--interval-sec", "0.1", "--iterations", "0", cwd=folder,
    )  # fmt: skip
    version = wait_for_version(folder / "l.sqlite", 4, process)
    latest = folder / "artifacts/live/latest"
    latest.rename(folder / "aside")
    latest.write_text("in the way")
    version = wait_for_version(folder / "l.sqlite", version + 3, process)
    latest.unlink()
    (folder / "aside").rename(latest)
    wait_for_version(folder / "l.sqlite", version + 3, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out.count("decisions go on without the artifacts") == 1
    assert out.count("the artifacts are written again") == 1
    summary = json.loads((latest / "LIVE_SUMMARY.json").read_text())
    assert summary["ledger"]["version"] == records(folder / "l.sqlite")[-1].version
