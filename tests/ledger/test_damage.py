import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from ledger_examples import STREAM, begin, drop_rows, open_at, put_row, tell, window

from domain.errors import LedgerDamaged


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a ledger of one stream is, versions 1 to 42."""
    path = tmp_path / "ledger.sqlite"
    with open_at(path) as ledger:
        begin(ledger, windows=40)
    return path


@pytest.mark.parametrize("version", [1, 20, 42])
@pytest.mark.parametrize("garbage", [b"\x00\xff", b'{"event":{"window":', b"{}"])
def test_a_garbage_row_is_named_wherever_it_is(path: Path, version: int, garbage: bytes) -> None:
    put_row(path, version, name="kpi_observed.v1", stored=garbage)
    with (
        open_at(path, read_only=True) as ledger,
        pytest.raises(
            LedgerDamaged, match=rf"stream {STREAM}, version {version}: kpi_observed\.v1"
        ),
    ):
        ledger.stream(STREAM)


def test_a_row_that_is_json_but_no_window_is_noticed_when_it_is_read(path: Path) -> None:
    put_row(path, 20, name="kpi_observed.v1", stored=b'{"event":{"verdict":"OK"}}')
    with (
        open_at(path, read_only=True) as ledger,
        pytest.raises(LedgerDamaged, match="version 20"),
    ):
        list(ledger.records(STREAM))


def test_an_unknown_event_is_damage_to_every_way_of_reading(path: Path) -> None:
    put_row(path, 30, name="moon_observed.v1", stored=b'{"event":{}}')
    with open_at(path, read_only=True) as ledger:
        for read in (
            lambda: ledger.stream(STREAM),
            lambda: list(ledger.records(STREAM)),
            lambda: ledger.page(STREAM, after=28, limit=5),
            lambda: ledger.records_by_position(after=28),
        ):
            with pytest.raises(LedgerDamaged, match=r"version 30: moon_observed\.v1"):
                read()
        assert ledger.stream(STREAM, version=29).version == 29


@pytest.mark.parametrize("version", [1, 2, 17, 41])
def test_a_missing_version_is_noticed(path: Path, version: int) -> None:
    drop_rows(path, f"originator_version={version}")
    with (
        open_at(path, read_only=True) as ledger,
        pytest.raises(
            LedgerDamaged, match=f"expected version {version}, was {version + 1}; events"
        ),
    ):
        ledger.stream(STREAM)


def test_several_missing_versions_are_noticed_after_a_snapshot_too(path: Path) -> None:
    with open_at(path) as ledger:
        stream = ledger.stream(STREAM)
        ledger.take_state_snapshot(stream)
        tell(ledger, stream, [window(index) for index in range(40, 50)])
    drop_rows(path, "originator_version BETWEEN 45 AND 47")
    with (
        open_at(path, read_only=True) as ledger,
        pytest.raises(LedgerDamaged, match="expected version 45, was 48; events are missing"),
    ):
        ledger.stream(STREAM)


def test_a_tail_that_was_cut_off_below_a_snapshot_is_noticed(path: Path) -> None:
    with open_at(path) as ledger:
        ledger.take_state_snapshot(ledger.stream(STREAM))
    drop_rows(path, "originator_version > 40")
    with (
        open_at(path, read_only=True) as ledger,
        pytest.raises(LedgerDamaged, match=r"expected version 42, .* snapshot, was 40 at the end"),
    ):
        ledger.stream(STREAM)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_damage(path: Path, part: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(LedgerDamaged, match=str(path)), open_at(path, read_only=True) as ledger:
        ledger.stream(STREAM)


DAMAGED = {
    "garbage": ("SET state=?", (b"{",)),
    "an edited state": ("SET state=replace(state, '\"windows\":30', '\"windows\":31')", ()),
    "no digest": ("SET state=replace(state, 'digest', 'dogest')", ()),
    "moved": ("SET originator_version=originator_version - 1", ()),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_snapshot_is_ignored_and_said(path: Path, damage: str) -> None:
    with open_at(path) as ledger:
        whole = ledger.stream(STREAM)
        for version in (20, 32):
            ledger.take_state_snapshot(ledger.stream(STREAM, version=version))
    change, parameters = DAMAGED[damage]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE stored_snapshots {change}", parameters)
        assert connection.total_changes == 1
    with open_at(path, read_only=True) as ledger:
        assert ledger.stream(STREAM) == whole
        (notice,) = ledger.notices
        assert notice.startswith(f"stream {STREAM}, version 3{1 if damage == 'moved' else 2}: ")
        problem = "does not decode" if damage == "garbage" else "has another digest than its own"
        assert f"state_snapshot.v2 {problem}" in notice
        assert notice.endswith("; it was ignored")
