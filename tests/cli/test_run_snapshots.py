"""A run keeps snapshots at intervals, and fills in those that earlier runs didn't take."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from audit_support import ask, shorten_blocks
from support import live, records, row, write_jsonl

from ledger.application import Ledger
from ledger.location import LedgerLocation


def snapshots() -> list[int]:
    with closing(sqlite3.connect("l.sqlite")) as connection:
        rows = connection.execute("SELECT originator_version FROM stored_snapshots ORDER BY 1")
        return [version for (version,) in rows]


def run(folder: Path, windows: int) -> int:
    """Decide a file of so many windows and return the last version."""
    path = write_jsonl(folder / "x.jsonl", [row(index) for index in range(windows)])
    assert live("run", "--feed", f"file:{path}", "--ledger", "l.sqlite", "--quiet").code == 0
    return records(Path("l.sqlite"))[-1].version


def test_a_run_over_a_file_takes_one_a_block(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_blocks(monkeypatch, 10)
    last = run(folder, 40)
    blocks = [version // 10 for version in snapshots()]
    assert snapshots()[-1] == last == 43
    assert blocks == [1, 2, 3, 4]


def test_a_later_run_fills_in_what_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder, 40)
    with closing(sqlite3.connect("l.sqlite")) as connection, connection:
        connection.execute("DELETE FROM stored_snapshots")
    shorten_blocks(monkeypatch, 10)
    run(folder, 50)
    # The block that the first run ended in was not over when the second began.
    assert [version // 10 for version in snapshots()] == [0, 1, 2, 3, 5]
    with Ledger.open(LedgerLocation(Path("l.sqlite")), read_only=True) as ledger:
        for version in range(1, 51):
            assert ledger.stream("dev:bybit", version=version).version == version
    assert ask("explain", "--at", "2026-01-05T22:20").code == 0
