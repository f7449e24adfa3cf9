"""Every row of the history is what the events say, however they were cut into batches."""

import random
from pathlib import Path

import pyarrow as pa
import pytest
from history_reference import assert_equal, expected, records_of
from history_story import Teller

from ledger.application import Ledger
from ledger.location import LedgerLocation
from projections import history_writer
from projections.history import open_history
from projections.history_schema import TABLES
from projections.history_writer import HistoryWriter


def told(path: Path, steps: int, *, seed: int = 0, stream: str = "dev:bybit") -> None:
    with Ledger.open(LedgerLocation(path)) as ledger:
        Teller(ledger, stream, seed).tell(steps)


def write(path: Path, folder: Path, stream: str = "dev:bybit") -> None:
    with Ledger.open(LedgerLocation(path), read_only=True) as ledger:
        HistoryWriter(folder, stream, now_ms=lambda: 0).catch_up(ledger)


@pytest.mark.parametrize("seed", range(2))
def test_every_row_is_what_the_events_say(tmp_path: Path, seed: int) -> None:
    path, folder = tmp_path / "l.sqlite", tmp_path / "l.history"
    told(path, 400, seed=seed)
    write(path, folder)
    assert_equal(open_history(folder), records_of(path))


def test_the_story_leaves_no_table_empty_and_no_column_unknown(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    told(path, 1_000, seed=4)
    rows = expected(records_of(path))
    for name, schema in TABLES.items():
        assert rows[name], name
        known = {column for row in rows[name] for column, value in row.items() if value is not None}
        assert set(schema.names) - known - {"fencing_token"} == set(), name


@pytest.mark.parametrize("seed", range(2))
def test_rows_do_not_depend_on_how_the_events_were_batched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    path, folder = tmp_path / "l.sqlite", tmp_path / "l.history"
    dice = random.Random(seed)
    for _ in range(12):
        told(path, dice.randint(1, 40), seed=seed)
        monkeypatch.setattr(history_writer, "BATCH_RECORDS", dice.randint(1, 30))
        monkeypatch.setattr(history_writer, "FILES_A_DAY_MAX", dice.randint(2, 6))
        write(path, folder)
    assert_equal(open_history(folder), records_of(path))


def test_what_no_file_holds_yet_comes_from_the_ledger(tmp_path: Path) -> None:
    path, folder = tmp_path / "l.sqlite", tmp_path / "l.history"
    told(path, 100)
    write(path, folder)
    told(path, 50)
    with Ledger.open(LedgerLocation(path), read_only=True) as ledger:
        assert_equal(open_history(folder, ledger=ledger), records_of(path))
        assert_equal(open_history(tmp_path / "none", ledger=ledger), records_of(path))
        known = open_history(folder, ledger=ledger, with_tail=False).streams["dev:bybit"]
    last = records_of(path)[-1]
    assert known.behind == last.version - known.last_version > 0
    assert f"{known.behind} events behind the ledger" in known.told()


def test_two_streams_of_one_ledger_have_one_history(tmp_path: Path) -> None:
    path, folder = tmp_path / "l.sqlite", tmp_path / "l.history"
    for _ in range(3):
        told(path, 20)
        told(path, 20, stream="dev:bybit:dry-run", seed=1)
    for stream in ("dev:bybit", "dev:bybit:dry-run"):
        write(path, folder, stream)
        assert_equal(open_history(folder, stream_id=stream), records_of(path, stream))
    both = open_history(folder).table("windows", columns=["position", "dry_run"])
    positions = both["position"].to_pylist()
    assert positions == sorted(set(positions))
    assert set(both["dry_run"].to_pylist()) == {False, True}


def test_a_column_that_is_never_unknown_is_declared_so(tmp_path: Path) -> None:
    path, folder = tmp_path / "l.sqlite", tmp_path / "l.history"
    told(path, 400)
    write(path, folder)
    history = open_history(folder)
    for name, schema in TABLES.items():
        rows = history.table(name)
        assert rows.schema.equals(schema)
        for field in schema:
            assert field.nullable or rows[field.name].null_count == 0, (name, field.name)
            assert (field.metadata or {}).get(b"meaning"), (name, field.name)
            if (
                field.name.endswith(("_at", "_start", "_end", "since"))
                or field.name == "happened_at"
            ):
                assert field.type == pa.timestamp("ms", tz="UTC")
