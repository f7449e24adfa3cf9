"""The history beside a run: off its path, made again by command, never in a run's way."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from history_reference import assert_equal, records_of
from support import FIRST_MS, ROOT, live, row, spawn, wait_for_version, write_jsonl

from cli.history import HistoryFollower
from ledger.application import Ledger
from ledger.location import LedgerLocation
from ledger.streams import parse_stream_id
from projections.history import open_history
from projections.history_files import writing
from projections.history_manifest import load_manifest

STREAM = "dev:bybit"
WAIT_SEC = 30.0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change into an empty folder, with no `LIVE_*` variable set."""
    for name in [name for name in os.environ if name.startswith("LIVE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def series(folder: Path) -> Path:
    rows = [row(i, risk_ratio=0.45 if i == 9 else 0.2) for i in range(110) if i not in {40, 41}]
    return write_jsonl(folder / "series.jsonl", rows)


def run_file(series: Path, *options: str) -> str:
    told = live("run", "--feed", f"file:{series}", "--ledger", "l.sqlite", "--quiet", *options)
    assert told.code == 0, told.err
    return told.err


def wait_for(look: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + WAIT_SEC
    while not look():
        assert time.monotonic() < ends, f"waited {WAIT_SEC:g} s for {what}"
        time.sleep(0.01)


def last_version(folder: Path) -> int:
    return len(records_of(folder / "l.sqlite"))


def following(folder: Path, said: list[str], kept: list[int]) -> HistoryFollower:
    """Return what follows the ledger, telling what it says."""
    location = LedgerLocation(folder / "l.sqlite")
    return HistoryFollower(
        folder / "l.history",
        location,
        STREAM,
        interval_ms=0,
        now_ms=lambda: FIRST_MS,
        say=said.append,
        kept=kept.append,
    )


def assert_current(folder: Path) -> None:
    assert_equal(open_history(folder / "l.history"), records_of(folder / "l.sqlite"))


def test_a_run_leaves_its_history_beside_the_ledger(folder: Path, series: Path) -> None:
    told = run_file(series)
    assert f"history {folder / 'l.history'}" in told
    assert_current(folder)
    assert open_history(folder / "l.history").table("transitions")["to_state"].to_pylist() == [
        "FROZEN", "ACTIVE"
    ]  # fmt: skip


def test_a_run_that_brings_nothing_new_leaves_the_history_as_it_is(
    folder: Path, series: Path
) -> None:
    run_file(series)
    before = {path: path.stat() for path in (folder / "l.history").rglob("*") if path.is_file()}
    run_file(series)
    after = {path: path.stat() for path in (folder / "l.history").rglob("*") if path.is_file()}
    assert [(p, s.st_mtime_ns, s.st_ino) for p, s in sorted(before.items())] == [
        (p, s.st_mtime_ns, s.st_ino) for p, s in sorted(after.items())
    ]


def test_no_history_is_kept_where_none_is_wanted(folder: Path, series: Path) -> None:
    assert "history" not in run_file(series, "--no-history")
    assert not (folder / "l.history").exists()
    assert live("run").code == 0
    assert not list(folder.rglob("*.history"))


def test_a_run_without_a_history_imports_nothing_for_it(folder: Path) -> None:
    code = (
        "import sys; from cli.main import live; "
        "live.main(['run', '--dry-run'], standalone_mode=False); "
        "print(sorted({'pyarrow', 'duckdb', 'cli.history'} & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--history", "h", "--no-history", "--ledger", "l.sqlite"], "exclude each other"),
        (["--history", "h"], "name one with --ledger"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options: list[str], told: str) -> None:
    outcome = live("run", *options)
    assert outcome.code == 2
    assert told in outcome.err


def test_a_history_that_cannot_be_written_is_said_once_and_the_run_goes_on(
    folder: Path, series: Path
) -> None:
    (folder / "a-file").write_text("not a folder")
    told = run_file(series, "--history", "a-file")
    assert told.count("decisions go on without the history") == 1
    assert "--history: a-file can't be written: " in told
    assert len(records_of(folder / "l.sqlite")) > 108


def test_the_history_of_another_ledger_is_left_alone(folder: Path, series: Path) -> None:
    run_file(series)
    before = (folder / "l.history/dev.bybit.manifest.json").read_bytes()
    (folder / "l.sqlite").unlink()
    told = run_file(series)
    assert re.search(r"is that of ledger [0-9a-f]{32}, was given [0-9a-f]{32}", told)
    assert (folder / "l.history/dev.bybit.manifest.json").read_bytes() == before
    assert live("rebuild", "history", "--ledger", "l.sqlite").code == 0
    assert_current(folder)


def test_a_killed_run_is_made_up_for_by_the_next(folder: Path, series: Path) -> None:
    options = ["run", "--feed", f"file:{series}", "--ledger", "l.sqlite", "--quiet"]
    for version in (20, 60):
        process = spawn(*options, "--speed", "3000", cwd=folder)
        assert wait_for_version(folder / "l.sqlite", version, process) >= version
        process.send_signal(signal.SIGKILL)
        process.communicate()
    run_file(series)
    assert_current(folder)


def test_what_is_appended_gets_into_the_history_while_the_run_goes_on(
    folder: Path, series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.history.LOOK_EVERY_SEC", 0.01)
    monkeypatch.setattr("cli.history.WRITE_EVERY_MS_MIN", 0)
    run_file(series, "--no-history", "--iterations", "30")
    said: list[str] = []
    kept: list[int] = []
    with following(folder, said, kept) as follower:
        wait_for(lambda: follower.version == last_version(folder), "the first windows")
        run_file(series, "--no-history")
        wait_for(lambda: follower.version == last_version(folder), "the others")
        assert_current(folder)
    assert said == []
    assert kept == sorted(set(kept))
    assert kept[-1] == last_version(folder)


def test_trouble_with_the_history_is_told_when_it_begins_and_when_it_ends(
    folder: Path, series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.history.LOOK_EVERY_SEC", 0.01)
    monkeypatch.setattr("cli.history.WRITE_EVERY_MS_MIN", 0)
    run_file(series, "--no-history")
    (folder / "l.history").write_text("in the way")
    said: list[str] = []
    with following(folder, said, []):
        wait_for(lambda: len(said) == 1, "the trouble to be told")
        (folder / "l.history").unlink()
        wait_for(lambda: len(said) == 2, "its end to be told")
    assert "decisions go on without the history" in said[0]
    assert said[1:] == ["the history is written again"]
    assert_current(folder)


@pytest.mark.parametrize(
    ("interval_ms", "waits_ms"), [(1_000, 10_000), (60_000, 120_000), (3_600_000, 300_000)]
)
def test_new_windows_are_written_two_at_a_time(
    folder: Path, series: Path, monkeypatch: pytest.MonkeyPatch, interval_ms: int, waits_ms: int
) -> None:
    monkeypatch.setattr("cli.history.LOOK_EVERY_SEC", 0.01)
    run_file(series, "--no-history")
    now, looked, kept = [FIRST_MS], [0], list[int]()

    def now_ms() -> int:
        looked[0] += 1
        return now[0]

    location = LedgerLocation(folder / "l.sqlite")
    follower = HistoryFollower(
        folder / "l.history",
        location,
        STREAM,
        interval_ms=interval_ms,
        now_ms=now_ms,
        say=print,
        kept=kept.append,
    )
    with follower:
        now[0] = FIRST_MS + waits_ms - 1
        before = looked[0]
        wait_for(lambda: looked[0] > before + 3, "some looks")
        assert kept == []
        now[0] = FIRST_MS + waits_ms
        wait_for(lambda: kept != [], "the history")


@pytest.mark.parametrize("what", ["history", "all"])
def test_a_rebuild_makes_the_same_rows_again(folder: Path, series: Path, what: str) -> None:
    run_file(series)
    before = load_manifest(folder / "l.history/dev.bybit.manifest.json")
    told = live("rebuild", what, "--ledger", "l.sqlite")
    assert told.code == 0, told.err
    assert "history of dev:bybit: " in told.out
    assert ("artifacts of dev:bybit" in told.out) == (what == "all")
    after = load_manifest(folder / "l.history/dev.bybit.manifest.json")
    assert before is not None
    assert after is not None
    assert after.generation != before.generation
    assert after.version == before.version
    assert_current(folder)


def test_a_rebuild_makes_artifacts_of_the_same_bytes(folder: Path, series: Path) -> None:
    run_file(series)
    latest = folder / "artifacts/live/latest"
    before = {path.name: path.read_bytes() for path in latest.iterdir()}
    for path in latest.iterdir():
        path.unlink()
    assert live("rebuild", "artifacts", "--ledger", "l.sqlite").code == 0
    assert {path.name: path.read_bytes() for path in latest.iterdir()} == before


def test_a_rebuild_of_redis_needs_one(series: Path) -> None:
    run_file(series)
    outcome = live("rebuild", "redis", "--ledger", "l.sqlite")
    assert outcome.code == 2
    assert "--redis-url" in outcome.err


def test_a_second_rebuild_at_the_same_time_is_refused(folder: Path, series: Path) -> None:
    run_file(series)

    with writing(folder / "l.history", parse_stream_id(STREAM), "rebuild", wait_sec=0):
        outcome = live("rebuild", "history", "--ledger", "l.sqlite")
    assert outcome.code == 4
    assert "is being written by another process" in outcome.err
    assert_current(folder)


def test_all_streams_of_a_ledger_are_made_again_unless_one_is_chosen(
    folder: Path, series: Path
) -> None:
    run_file(series)
    run_file(series, "--dry-run")
    told = live("rebuild", "history", "--ledger", "l.sqlite", "--history", "h")
    assert [line.split(": ")[0] for line in told.out.splitlines()] == [
        "history of dev:bybit", "history of dev:bybit:dry-run"
    ]  # fmt: skip
    told = live("rebuild", "history", "--ledger", "l.sqlite", "--history", "one", "--dry-run")
    assert [line.split(": ")[0] for line in told.out.splitlines()] == [
        "history of dev:bybit:dry-run"
    ]
    with Ledger.open(LedgerLocation(folder / "l.sqlite"), read_only=True) as ledger:
        assert set(open_history(folder / "h").streams) == set(ledger.stream_ids())
