"""A history whose writer was killed at any moment holds the rows of its events exactly once."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from history_reference import assert_equal, records_of
from history_story import Teller

from domain.errors import CannotTell
from ledger.application import Ledger
from ledger.location import LedgerLocation
from projections import history_writer
from projections.history import History, open_history
from projections.history_manifest import path_of, read_manifest
from projections.history_writer import HistoryWriter

ROOT: Final = Path(__file__).parents[2]
CHILD: Final = Path(__file__).with_name("history_child.py")
STREAM: Final = "dev:bybit"


class Killed(BaseException):
    """Stands for a kill -9 in this process."""


def tell(path: Path, steps: int) -> None:
    with Ledger.open(LedgerLocation(path)) as ledger:
        Teller(ledger, STREAM).tell(steps)


def act(deed: str, path: Path, folder: Path) -> None:
    with Ledger.open(LedgerLocation(path), read_only=True) as ledger:
        writer = HistoryWriter(folder, STREAM, now_ms=lambda: time.time_ns() // 1_000_000)
        if deed == "rebuild":
            writer.rebuild(ledger)
        else:
            writer.catch_up(ledger)


def version_of(folder: Path) -> int:
    try:
        return open_history(folder).streams[STREAM].version
    except CannotTell:
        return 0


def assert_whole(path: Path, folder: Path) -> History:
    """Check that the history is what its events up to its version say, and return it."""
    history = open_history(folder)
    version = history.streams[STREAM].version
    assert_equal(history, [record for record in records_of(path) if record.version <= version])
    return history


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "part-" in path.name}


def assert_tidy(folder: Path) -> None:
    """Check that there is nothing but what the history consists of, and what readers may read."""
    key = open_history(folder).streams[STREAM].key
    manifest = read_manifest(folder, key)
    assert manifest is not None
    known = {path_of(file, key) for file in manifest.files}
    assert known.isdisjoint(file.path for file in manifest.retired)
    assert files_of(folder) - {file.path for file in manifest.retired} == known


@contextmanager
def killed_at(count: int) -> Iterator[list[int]]:
    """Let the so-manieth write to the file system, and all that come after, fail as in a kill."""
    done = [0]

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            done[0] += 1
            if done[0] >= count:
                raise Killed
            return real(*args, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("write", "fsync", "replace", "unlink"):
            patch.setattr(os, name, dying(getattr(os, name)))
        yield done


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_writer, "BATCH_RECORDS", 7)
    monkeypatch.setattr(history_writer, "FILES_A_DAY_MAX", 3)
    monkeypatch.setattr(history_writer, "RETIRED_MS", 0)


@pytest.mark.parametrize("deed", ["catch up", "rebuild"])
def test_a_writer_that_dies_at_its_nth_write_leaves_a_whole_history(
    tmp_path: Path, deed: str
) -> None:
    path, folder = tmp_path / "l.sqlite", tmp_path / "l.history"
    tell(path, 8)
    act("catch up", path, folder)
    tell(path, 16)
    count, deaths, last = 1, 0, version_of(folder)
    while True:
        try:
            with killed_at(count) as done:
                act(deed, path, folder)
            break
        except Killed:
            deaths += 1
        version = assert_whole(path, folder).streams[STREAM].version
        assert version >= last
        last = version
        # What gets done before a kill needn't be done again, so a rising count reaches each step.
        count = done[0] + 3 if deed == "rebuild" else random.Random(deaths).randint(1, 60)
    assert deaths > 5
    act(deed, path, folder)
    act("catch up", path, folder)
    assert_equal(open_history(folder), records_of(path))
    assert_tidy(folder)


def kill_while(deed: str, path: Path, folder: Path, after_sec: float) -> bool:
    """Kill a writer so long after it has begun; return whether it was still at it."""
    with subprocess.Popen(
        [sys.executable, str(CHILD), deed, str(path), str(folder)],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(after_sec)
        child.send_signal(signal.SIGKILL)
        return "done" not in child.stdout.read()


def test_a_writer_that_is_really_killed_leaves_a_whole_history(tmp_path: Path) -> None:
    path, folder = tmp_path / "l.sqlite", tmp_path / "l.history"
    dice = random.Random(0)
    killed = 0
    for turn in range(12):
        tell(path, 20)
        deed = "rebuild" if turn % 3 == 2 else "catch up"
        before = version_of(folder)
        killed += kill_while(deed, path, folder, dice.uniform(0.0, 0.4))
        if version_of(folder):
            assert assert_whole(path, folder).streams[STREAM].version >= before
    assert killed >= 5
    act("rebuild", path, folder)
    act("catch up", path, folder)
    assert_equal(open_history(folder), records_of(path))
    tell(path, 5)
    act("catch up", path, folder)
    assert_tidy(folder)


def test_readers_see_each_row_once_while_files_are_made_one_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = tmp_path / "l.sqlite", tmp_path / "l.history"
    monkeypatch.setattr(history_writer, "RETIRED_MS", 60_000)
    tell(path, 30)
    act("catch up", path, folder)
    ended = threading.Event()
    faults: list[str] = []
    seen: list[int] = []

    def read() -> None:
        while not ended.is_set():
            history = open_history(folder)
            stream = history.streams[STREAM]
            rows = sum(
                history.table(name, columns=["ledger_version"]).num_rows
                for name in ("windows", "transitions", "throttles", "overrides", "runs")
            )
            rows += history.table("policies").num_rows
            kinds = history.table("incidents", columns=["kind"])["kind"].to_pylist()
            # Each event is one row of these tables, but that a gap is an incident too.
            rows += len(kinds) - kinds.count("gap")
            seen.append(rows)
            if rows != stream.version:
                faults.append(f"{rows} rows at version {stream.version}")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for turn in range(6):
            tell(path, 20)
            act("rebuild" if turn == 3 else "catch up", path, folder)
    finally:
        ended.set()
        reader.join()
    assert faults == []
    assert len(seen) > 3
    assert_equal(open_history(folder), records_of(path))


def test_a_history_that_is_made_again_loses_nothing_that_is_appended_meanwhile(
    tmp_path: Path,
) -> None:
    path, folder = tmp_path / "l.sqlite", tmp_path / "l.history"
    tell(path, 40)
    act("catch up", path, folder)
    with Ledger.open(LedgerLocation(path), read_only=True) as ledger:

        def meanwhile(_events: int) -> None:
            if not appended:
                appended.append(True)
                tell(path, 10)
                act("catch up", path, folder)

        appended: list[bool] = []
        HistoryWriter(folder, STREAM, now_ms=lambda: 0).rebuild(ledger, progress=meanwhile)
    assert appended
    assert_equal(open_history(folder), records_of(path))
