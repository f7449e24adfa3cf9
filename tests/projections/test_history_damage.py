"""What is wrong with a history is told, naming the file; nothing is made up."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from history_reference import assert_equal, records_of
from history_story import Teller
from msgspec.structs import replace

from domain.errors import CannotTell, HistoryDamaged, LedgerDamaged
from domain.kpis import KPI_BY_NAME
from ledger.application import Ledger
from ledger.location import LedgerLocation
from projections import history, history_files, history_writer
from projections.history import open_history
from projections.history_manifest import (
    TABLE_NAMES,
    RetiredFile,
    load_manifest,
    manifest_path,
    seal,
)
from projections.history_schema import TABLES
from projections.history_writer import HistoryWriter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "l.sqlite"
    with Ledger.open(LedgerLocation(path)) as ledger:
        Teller(ledger).tell(60)
    catch_up(path)
    return path


def folder_of(path: Path) -> Path:
    return path.with_suffix(".history")


def catch_up(path: Path) -> None:
    with Ledger.open(LedgerLocation(path), read_only=True) as ledger:
        HistoryWriter(folder_of(path), "dev:bybit", now_ms=lambda: 0).catch_up(ledger)


def manifest_of(path: Path) -> Path:
    return folder_of(path) / "dev.bybit.manifest.json"


def a_file(path: Path, table: str = "windows") -> Path:
    return open_history(folder_of(path)).files(table)[0]


def test_an_error_of_the_history_ends_a_command_with_5() -> None:
    assert HistoryDamaged.exit_code == 5


def test_a_missing_file_is_named(path: Path) -> None:
    lost = a_file(path)
    lost.unlink()
    with pytest.raises(HistoryDamaged, match="No such file or directory") as told:
        open_history(folder_of(path)).table("windows")
    assert str(lost) in str(told.value)
    assert "live rebuild history" in str(told.value)


def test_a_file_that_was_cut_is_named(path: Path) -> None:
    cut = a_file(path)
    size = cut.stat().st_size
    os.truncate(cut, size - 10)
    with pytest.raises(HistoryDamaged, match=f"expected {size} bytes, was {size - 10}") as told:
        open_history(folder_of(path)).table("windows")
    assert str(cut) in str(told.value)


@pytest.mark.parametrize("place", [2, 0.3, 0.6, -6])
def test_a_file_with_a_flipped_byte_is_named(path: Path, place: float) -> None:
    flipped = a_file(path)
    content = bytearray(flipped.read_bytes())
    content[int(place * len(content)) if isinstance(place, float) else place] ^= 0x10
    flipped.write_bytes(content)
    with pytest.raises(HistoryDamaged) as told:
        open_history(folder_of(path)).table("windows")
    assert str(flipped) in str(told.value)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\x00", b'{"format":1}'])
def test_a_manifest_that_is_none_is_named(path: Path, content: bytes) -> None:
    manifest_of(path).write_bytes(content)
    with pytest.raises(HistoryDamaged) as told:
        open_history(folder_of(path))
    assert str(manifest_of(path)) in str(told.value)


def test_any_changed_byte_of_a_manifest_is_noticed(path: Path) -> None:
    content = manifest_of(path).read_bytes()
    for place in range(20, len(content), 97):
        changed = bytearray(content)
        changed[place] ^= 0x01
        manifest_of(path).write_bytes(changed)
        with pytest.raises(HistoryDamaged):
            open_history(folder_of(path))


@pytest.mark.parametrize("name", ["../../../../../../etc/passwd", "part-1-2.x.parquet", "a"])
def test_a_manifest_that_names_other_files_is_refused(path: Path, name: str) -> None:
    manifest = load_manifest(manifest_of(path))
    assert manifest is not None
    files = (replace(manifest.files[0], name=name), *manifest.files[1:])
    retired = (RetiredFile(name, 0),)
    for changed in (replace(manifest, files=files), replace(manifest, retired=retired)):
        manifest_of(path).write_bytes(seal(changed))
        with pytest.raises(HistoryDamaged, match="names what can't be a file of a history"):
            open_history(folder_of(path))


def test_the_tables_that_a_manifest_may_name_are_those_that_there_are() -> None:
    assert set(TABLES) == TABLE_NAMES


def test_a_damaged_manifest_is_replaced_by_a_rebuild_alone(path: Path) -> None:
    manifest_of(path).write_bytes(b"nonsense")
    with pytest.raises(HistoryDamaged):
        catch_up(path)
    with Ledger.open(LedgerLocation(path), read_only=True) as ledger:
        HistoryWriter(folder_of(path), "dev:bybit", now_ms=lambda: 0).rebuild(ledger)
    assert_equal(open_history(folder_of(path)), records_of(path))


def test_damaged_files_are_never_made_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_writer, "FILES_A_DAY_MAX", 2)
    flipped = open_history(folder_of(path)).files("kpis")[-1]
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 0x10
    flipped.write_bytes(content)
    with Ledger.open(LedgerLocation(path)) as ledger:
        Teller(ledger).tell(3)
    with pytest.raises(HistoryDamaged) as told:
        catch_up(path)
    assert str(flipped) in str(told.value)


def test_the_history_of_another_ledger_is_not_continued(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    with Ledger.open(LedgerLocation(other)) as ledger:
        Teller(ledger, "prod:bybit").tell(3)
        with pytest.raises(CannotTell, match="has no dev:bybit"):
            HistoryWriter(folder_of(path), "dev:bybit", now_ms=lambda: 0).catch_up(ledger)


def test_a_ledger_that_lost_its_end_is_noticed(path: Path) -> None:

    last = records_of(path)[-1].version
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM stored_events WHERE originator_version > ?", (last - 2,))
    with pytest.raises(LedgerDamaged, match=f"expected version {last} at position {last}"):
        catch_up(path)
    with (
        Ledger.open(LedgerLocation(path), read_only=True) as ledger,
        pytest.raises(LedgerDamaged, match="has lost events"),
    ):
        open_history(folder_of(path), ledger=ledger)


def test_a_history_of_another_version_of_the_program_is_made_again(path: Path) -> None:
    stream = open_history(folder_of(path)).streams["dev:bybit"]
    manifest = load_manifest(manifest_path(folder_of(path), stream.key))
    assert manifest is not None
    manifest_of(path).write_bytes(seal(replace(manifest, schema_version=99)))
    with pytest.raises(CannotTell, match="live rebuild history"):
        open_history(folder_of(path))
    with pytest.raises(CannotTell, match="live rebuild history"):
        catch_up(path)


def test_a_history_that_is_not_there_cannot_tell(tmp_path: Path) -> None:
    with pytest.raises(CannotTell, match="there is no history at"):
        open_history(tmp_path / "none")


def test_a_history_too_far_behind_is_not_made_up_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "TAIL_EVENTS_MAX", 2)
    with Ledger.open(LedgerLocation(path)) as ledger:
        Teller(ledger).tell(9)
        with pytest.raises(CannotTell, match="events behind the ledger"):
            open_history(folder_of(path), ledger=ledger)


def test_files_let_a_reader_skip(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_files, "GROUP_ROWS_MIN", 0)
    with Ledger.open(LedgerLocation(path), read_only=True) as ledger:
        HistoryWriter(folder_of(path), "dev:bybit", now_ms=lambda: 0).rebuild(ledger)
    found = pq.read_metadata(a_file(path, "kpis"))
    kpi = found.schema.to_arrow_schema().names.index("kpi")
    groups = [found.row_group(index).column(kpi) for index in range(found.num_row_groups)]
    assert [(g.statistics.min, g.statistics.max) for g in groups] == [
        (name, name) for name in sorted(KPI_BY_NAME)
    ]
    assert {group.compression for group in groups} == {"ZSTD"}
