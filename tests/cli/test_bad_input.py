"""Bad input: a clear message, the documented exit code, nothing half-written."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, live, row, spawn, write_jsonl

CSV_HEAD = (
    "window_start,symbol,edge_bps,maker_taker_ratio,risk_ratio,p95_latency_ms,anomaly_score\n"
)
CSV_ROW = "2026-01-05T22:00:00Z,BTCUSDT,3.2,0.91,0.22,180,0.4\n"


def nothing_was_written(folder: Path) -> bool:
    """Whether no ledger came to hold an event, and no artifact was made."""
    ledgers = [path for path in folder.rglob("*.sqlite") if path.stat().st_size]
    for path in ledgers:
        with sqlite3.connect(path) as connection:
            if connection.execute("SELECT count(*) FROM stored_events").fetchone()[0]:
                return False
        connection.close()
    return not list(folder.rglob("LIVE_*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ramp-profile", "Z"], "unknown profile 'Z'; live_profiles.json has A, B, C"),
        (["--symbols", "btcusdt"], "malformed symbol 'btcusdt'"),
        (["--symbols", "BTC:USDT"], "malformed symbol 'BTC:USDT'"),
        (["--symbols", "BTCUSDT,BTCUSDT"], "symbol BTCUSDT is there twice"),
        (["--symbols", ""], "malformed symbol ''"),
        (["--env", "prod"], "--env prod refuses a mock feed"),
        (["--env", "prod", "--feed", "file:x.csv"], "--env prod refuses a file feed"),
        (["--env", "PROD"], "--env: expected 1 to 32 of a-z 0-9 _ -"),
        (["--exchange", "by:bit"], "--exchange: expected 1 to 32 of a-z 0-9 _ -"),
        (["--feed", "mock://nothing"], "healthy"),
        (
            [
                *("--env", "prod", "--dry-run", "--feed", "ws://127.0.0.1:1/x"),
                *("--redis-url", "rediss://redis.example.com?ssl_cert_reqs=none"),
            ],
            "the URL switches certificate checks off",
        ),
        (
            ["--feed", "ftp://x"],
            "--feed: expected mock://SCENARIO?seed=N, file:PATH, redis",
        ),
        (
            ["--feed", "nonsense"],
            "--feed: expected mock://SCENARIO?seed=N, file:PATH, redis",
        ),
        (["--feed", "file:none.csv"], "none.csv"),
        (["--feed", "file:folder.csv"], "folder.csv"),
        (["--interval-sec", "0"], "--interval-sec: expected an interval from 0.001"),
        (["--interval-sec", "-60"], "--interval-sec: expected an interval from 0.001"),
        (["--interval-sec", "nan"], "--interval-sec: expected whole milliseconds"),
        (["--interval-sec", "inf"], "--interval-sec"),
        (["--interval-sec", "0.0001"], "--interval-sec: expected whole milliseconds"),
        (["--iterations", "-1"], "'--iterations'"),
        (["--ttl", "0"], "'--ttl'"),
        (["--speed", "0"], "--speed: expected more than 0"),
        (["--speed", "2"], "--speed: only a file feed"),
        (["--ledger", "mysql://x/y"], "--ledger: expected a path or sqlite:///PATH"),
        (["--ledger", "sqlite:///"], "--ledger: expected a path or sqlite:///PATH"),
        (["--ledger", "."], "--ledger"),
        (["--policy", "none.json"], "none.json can't be read"),
        (["--artifacts", "/proc/nowhere"], "--artifacts: /proc/nowhere can't be written"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_a_bad_option_is_named_and_ends_with_code_2(
    folder: Path, options: list[str], message: str
) -> None:
    (folder / "folder.csv").mkdir()
    outcome = live("run", *options)
    assert outcome.code == 2, outcome
    assert message in outcome.err
    assert nothing_was_written(folder)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ('{"thresholds": {"min_edge": 1}}', "thresholds: unknown key 'min_edge'"),
        ('{"min_warn": 1}', "unknown key 'min_warn'"),
        ('{"thresholds": {"max_risk": NaN}}', "a number is never NaN"),
        (
            '{"thresholds": {"max_risk": "0.3"}}',
            "thresholds.max_risk: expected a number, was '0.3'",
        ),
        ('{"thresholds": {"max_risk": true}}', "thresholds.max_risk: expected a number, was True"),
        ('{"thresholds": {"max_risk": null}}', "thresholds.max_risk: expected a number, was None"),
        ('{"thresholds": {"max_risk": -0.1}}', "thresholds.max_risk: expected a finite number"),
        ('{"thresholds": {"min_maker_taker": 1.5}}', "thresholds.min_maker_taker"),
        ('{"thresholds": []}', "thresholds: expected a JSON object, was list"),
        ('{"symbols": {"ETHUSDT": {"max_rsk": 1}}}', "symbols.ETHUSDT: unknown key 'max_rsk'"),
        ('{"symbols": {"eth": {"max_risk": 1}}}', "symbols: 'eth' is not a well-formed symbol"),
        ('{"cooldown_throttle": 0.7}', "cooldown_throttle: expected 0.3 to 0.6, was 0.7"),
        ('{"cooldown_throttle": 0.2}', "cooldown_throttle: expected 0.3 to 0.6, was 0.2"),
        ('{"min_ok_windows": 0}', "min_ok_windows: expected 1 to"),
        ('{"min_warn_windows": 2.5}', "min_warn_windows"),
        ('{"unfreeze_after_ok_windows": 5}', "unfreeze_after_ok_windows: expected at least"),
        ('{"global_freeze_symbols": 2}', "global_freeze_symbols: expected at most"),
        ('{"required_kpis": []}', "required_kpis: expected at least one KPI"),
        ('{"required_kpis": ["edge_bps"]}', "required_kpis: expected at least one KPI"),
        ('{"required_kpis": ["edge"]}', "required_kpis: unknown KPI 'edge'"),
        ('{"required_kpis": ["risk_ratio", "risk_ratio"]}', "required_kpis: a KPI is there twice"),
        ('{"thresholds": ', "expected a policy as JSON"),
        ("[]", "expected a JSON object, was list"),
        ("", "expected a policy as JSON"),
    ],
)
def test_a_bad_policy_is_refused_with_file_and_key(folder: Path, policy: str, message: str) -> None:
    (folder / "policy.json").write_text(policy)
    for command in (["run", "--dry-run"], ["replay", "good.jsonl"]):
        write_jsonl(folder / "good.jsonl", [row(0)])
        outcome = live(*command, "--policy", "policy.json")
        assert outcome.code == 2, outcome
        assert message in outcome.err
        if "global_freeze_symbols" not in policy:
            assert "policy.json: " in outcome.err
        assert nothing_was_written(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "", "x.csv"),
        ("x.csv", CSV_HEAD, "x.csv"),
        ("x.csv", CSV_HEAD.replace(",risk_ratio", "") + CSV_ROW, "risk_ratio"),
        ("x.csv", CSV_HEAD + CSV_ROW.replace("0.91", "abc"), "x.csv line 2"),
        ("x.csv", CSV_HEAD + CSV_ROW + CSV_ROW, "x.csv line 3"),
        ("x.csv", CSV_HEAD + CSV_ROW.replace(":00Z", ":07Z"), "x.csv line 2"),
        (
            "x.csv",
            CSV_HEAD + CSV_ROW.replace("22:00", "22:01") + CSV_ROW,
            "x.csv line 3",
        ),
        ("x.jsonl", json.dumps(row(0)) + '\n{"window_start": ', "x.jsonl line 2"),
        ("x.jsonl", "[]", "x.jsonl line 1"),
        ("x.parquet", "", "x.parquet"),
        ("x.parquet", "PAR1 truncated", "x.parquet"),
        ("x.txt", "text", "x.txt"),
    ],
)
def test_a_bad_kpi_file_is_refused_with_its_line_before_anything_is_decided(
    folder: Path, name: str, content: str, message: str
) -> None:
    (folder / name).write_text(content)
    outcome = live("run", "--feed", f"file:{name}", "--ledger", "l.sqlite")
    assert outcome.code == 2, outcome
    assert message in outcome.err
    assert nothing_was_written(folder)


def test_too_many_symbols_for_the_profile_are_refused_in_prod_naming_those_that_would_do(
    folder: Path,
) -> None:
    from cli.setup import resolve_limits
    from domain.errors import BadInput
    from domain.state import State

    with pytest.raises(BadInput, match=r"profile A lets 1 of 2 symbols trade \(.*: B, C\)"):
        resolve_limits(State(), ("A1", "B1"), env="prod", profile_name="A", policy_file=None)


def test_another_interval_than_the_streams_is_refused(folder: Path) -> None:
    path = write_jsonl(folder / "x.jsonl", [row(0), row(1)])
    assert live("run", "--feed", f"file:{path}", "--ledger", "l.sqlite").code == 0
    before = (folder / "l.sqlite").read_bytes()
    outcome = live("run", "--feed", f"file:{path}", "--ledger", "l.sqlite", "--interval-sec", "30")
    assert outcome.code == 2
    assert "this stream's interval is 60 s and can't be changed to 30 s" in outcome.err
    assert (folder / "l.sqlite").read_bytes() == before


@pytest.mark.parametrize("command", ["status", "report", "replay", "run"])
def test_a_file_that_is_no_ledger_ends_with_code_5(folder: Path, command: str) -> None:
    (folder / "bad.sqlite").write_bytes(
        b"no database at all, but long enough to be read as one" * 50
    )
    arguments = ["bad.sqlite"] if command == "replay" else ["--ledger", "bad.sqlite"]
    outcome = live(command, *arguments)
    assert outcome.code == 5, outcome
    assert "bad.sqlite" in outcome.err
    assert (folder / "bad.sqlite").read_bytes().startswith(b"no database")


@pytest.mark.parametrize("command", ["status", "report", "replay", "run"])
def test_a_ledger_of_a_newer_format_ends_with_code_5(folder: Path, command: str) -> None:
    assert live("run", "--dry-run", "--ledger", "l.sqlite", "--interval-sec", "0.01").code == 0
    with sqlite3.connect(folder / "l.sqlite") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    arguments = ["l.sqlite"] if command == "replay" else ["--ledger", "l.sqlite"]
    outcome = live(command, *arguments)
    assert outcome.code == 5, outcome
    assert "format version 99" in outcome.err


def test_another_programs_database_is_left_alone_and_ends_with_code_5(folder: Path) -> None:
    with sqlite3.connect(folder / "other.sqlite") as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    outcome = live("run", "--ledger", "other.sqlite")
    assert outcome.code == 5
    with sqlite3.connect(folder / "other.sqlite") as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    connection.close()


@pytest.mark.parametrize("command", ["status", "report"])
def test_a_ledger_that_is_not_there_can_not_tell(folder: Path, command: str) -> None:
    outcome = live(command, "--ledger", "none.sqlite")
    assert outcome.code == 3
    assert "no ledger at none.sqlite" in outcome.err
    assert not (folder / "none.sqlite").exists()


def test_two_streams_need_a_choice(folder: Path) -> None:
    path = write_jsonl(folder / "x.jsonl", [row(0)])
    for exchange in ("bybit", "okx"):
        outcome = live(
            "run", "--feed", f"file:{path}", "--ledger", "l.sqlite", "--exchange", exchange
        )
        assert outcome.code == 0
    assert live("report", "--ledger", "l.sqlite").code == 2
    assert live("report", "--ledger", "l.sqlite", "--exchange", "okx").code == 0
    assert live("report", "--ledger", "l.sqlite", "--exchange", "none").code == 3


def test_an_export_without_a_server_is_refused(folder: Path) -> None:
    outcome = live("export")
    assert outcome.code == 2
    assert "live export needs a Redis: --redis-url" in outcome.err


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("accuracy",), "--min-agreement"),
        (("audit", "sql", "SELECT 1"), "--timeout-sec"),
        (("notify", "test", "--notify", "json://127.0.0.1:1"), "--wait-sec"),
        (("replay", "series.jsonl"), "--edge-below"),
    ],
)
def test_a_bound_that_is_no_number_is_refused(
    folder: Path, command: tuple[str, ...], option: str
) -> None:
    write_jsonl(folder / "series.jsonl", [row(0)])
    outcome = live(*command, option, "nan")
    assert (outcome.code, outcome.out) == (2, "")
    assert option in outcome.err
    assert "was nan" in outcome.err


def test_an_answer_that_nobody_reads_is_never_a_fail(folder: Path) -> None:
    series = write_jsonl(folder / "series.jsonl", [row(index) for index in range(20)])
    process = spawn("replay", series, "--json", cwd=folder)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    assert process.wait(timeout=60) == 3
    process.stderr.close()


def ended_unread(folder: Path, *args: str) -> int:
    """Return the exit code of a command whose stderr nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "cli.main", *args],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.DEVNULL,
        stderr=writing,
        timeout=60,
        check=False,
    )
    os.close(writing)
    return ended.returncode


def test_a_warning_that_nobody_reads_is_no_reason_not_to_watch_the_bot(folder: Path) -> None:
    two = ("--symbols", "BTCUSDT,ETHUSDT", "--ramp-profile", "A")
    assert ended_unread(folder, "run", *two, "--ledger", "l.sqlite") == 0
    assert live("audit", "show", "v3", "--ledger", "l.sqlite").code == 0


def test_an_error_that_nobody_reads_keeps_its_exit_code(folder: Path) -> None:
    assert ended_unread(folder, "status", "--ledger", "none.sqlite") == 3
    assert ended_unread(folder, "run", "--iterations", "x") == 2
    (folder / "damaged.sqlite").write_text("no database" * 100)
    assert ended_unread(folder, "status", "--ledger", "damaged.sqlite") == 5
