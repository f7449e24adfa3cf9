import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ledger_examples import STREAM, begin, datastore, open_at, tell, window

from domain.errors import CannotTell, LedgerDamaged
from ledger.application import Ledger
from ledger.location import parse_location
from ledger.sqlite import remove_ledger
from ledger.sqlite_file import APPLICATION_ID, FORMAT_VERSION, check_format

NOBODY = 65_534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def files_beside(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.iterdir())


def test_a_new_file_is_stamped_as_a_ledger(path: Path) -> None:
    open_at(path).close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (FORMAT_VERSION,)
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall()
    connection.close()
    assert sorted(tables) == [("stored_events",), ("stored_snapshots",)]
    assert APPLICATION_ID.to_bytes(4, "big") == b"LIVE"


def test_an_empty_file_becomes_a_ledger(path: Path) -> None:
    path.touch()
    with open_at(path) as ledger:
        assert ledger.stream_ids() == []
    assert check_format(path)


def test_a_file_that_was_left_before_its_tables_were_made_becomes_a_ledger(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    assert path.stat().st_size > 0
    with pytest.raises(CannotTell):
        open_at(path, read_only=True)
    with open_at(path) as ledger:
        assert begin(ledger).version == 2


@pytest.mark.parametrize("content", [None, b""], ids=["no file", "an empty file"])
def test_there_is_nothing_to_read_in_no_file_or_an_empty_one(
    path: Path, content: bytes | None
) -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CannotTell, match=f"there is no ledger at {path}, or nothing in it yet"):
        open_at(path, read_only=True)
    assert path.exists() == (content is not None)


@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_that_is_no_database_is_damage(path: Path, read_only: bool) -> None:
    content = b"window_start,symbol\n" * 500
    path.write_bytes(content)
    with pytest.raises(LedgerDamaged, match=f"{path} can't be read as a ledger: file is not a"):
        open_at(path, read_only=read_only)
    assert path.read_bytes() == content
    assert LedgerDamaged.exit_code == 5


@pytest.mark.parametrize("read_only", [True, False])
def test_another_programs_database_is_left_alone(path: Path, read_only: bool) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(LedgerDamaged, match=f"{path} is a database, but not a ledger"):
        open_at(path, read_only=read_only)
    assert path.read_bytes() == before


@pytest.mark.parametrize("read_only", [True, False])
def test_a_newer_format_is_left_to_the_newer_program(path: Path, read_only: bool) -> None:
    open_at(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={FORMAT_VERSION + 1}")
    connection.close()
    with pytest.raises(LedgerDamaged, match="has format version 2, this program knows up to 1"):
        open_at(path, read_only=read_only)


@pytest.mark.parametrize("read_only", [True, False])
def test_a_folder_is_no_ledger(tmp_path: Path, read_only: bool) -> None:
    with pytest.raises(LedgerDamaged, match=f"{tmp_path} can't be read as a ledger"):
        open_at(tmp_path, read_only=read_only)


def test_a_missing_folder_is_named_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "ledger.sqlite"
    with pytest.raises(LedgerDamaged, match=f"the ledger {path} can't be read or written"):
        open_at(path)
    with pytest.raises(CannotTell):
        open_at(path, read_only=True)
    assert not path.parent.exists()


def test_a_ledger_that_is_opened_again_is_not_written_to(path: Path) -> None:
    with open_at(path) as ledger:
        begin(ledger, windows=1)
    before = path.read_bytes()
    with open_at(path) as ledger:
        assert ledger.stream(STREAM).version == 3
    assert path.read_bytes() == before


def test_reading_leaves_no_file_behind_and_none_changed(path: Path) -> None:
    with open_at(path) as ledger:
        written = begin(ledger, windows=3)
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    with open_at(path, read_only=True) as ledger:
        assert ledger.stream(STREAM) == written
        assert ledger.stream_ids() == [STREAM]
        assert files_beside(path) == ["ledger.sqlite"]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert files_beside(path) == ["ledger.sqlite"]


def test_a_ledger_opened_to_read_can_not_be_written(path: Path) -> None:
    with open_at(path) as ledger:
        begin(ledger)
    with open_at(path, read_only=True) as ledger:
        with pytest.raises(LedgerDamaged, match="readonly database"):
            tell(ledger, ledger.stream(STREAM), [window(0)])
        with pytest.raises(LedgerDamaged, match="readonly database"):
            ledger.take_state_snapshot(ledger.stream(STREAM))


def test_a_reader_sees_what_a_live_writer_has_not_checkpointed(path: Path) -> None:
    with open_at(path) as writer:
        written = begin(writer, windows=3)
        with open_at(path, read_only=True) as reader:
            assert reader.stream(STREAM) == written
            written = tell(writer, written, [window(3)])
            assert reader.stream(STREAM) == written


def test_a_reader_that_was_there_first_sees_a_writer_come_and_go(path: Path) -> None:
    with open_at(path) as writer:
        begin(writer, windows=1)
    with open_at(path, read_only=True) as reader:
        assert reader.stream(STREAM).version == 3
        with open_at(path) as writer:
            written = tell(writer, writer.stream(STREAM), [window(1)])
            assert reader.stream(STREAM) == written
        assert reader.stream(STREAM) == written
        with open_at(path) as writer:
            written = tell(writer, written, [window(2)])
        assert reader.stream(STREAM) == written


def test_a_file_that_is_written_while_it_is_read_as_at_rest_is_not_believed(path: Path) -> None:
    with open_at(path) as writer:
        begin(writer, windows=1)
    with open_at(path, read_only=True) as reader:
        reader.stream(STREAM)
        with (
            pytest.raises(CannotTell, match="was written while it was read; read it again"),
            datastore(reader).transaction(commit=False),
        ):
            os.utime(path, ns=(1, 1))
        assert reader.stream(STREAM).version == 3


READ_AS_NOBODY = f"""
import os, sys
from pathlib import Path
from ledger.application import Ledger
from ledger.location import LedgerLocation
if os.geteuid() == 0:
    os.setgid({NOBODY}); os.setuid({NOBODY})
try:
    Path(sys.argv[1]).with_name("probe").touch()
except OSError:
    pass
else:
    sys.exit("the folder can be written")
with Ledger.open(LedgerLocation(Path(sys.argv[1])), read_only=True) as ledger:
    print(ledger.stream("{STREAM}").version)
"""


@pytest.fixture
def locked_folder() -> Iterator[Path]:
    # Somebody who isn't root must be able to come here, and pytest's folders are private.
    folder = Path(f"/tmp/locked-ledger-{os.getpid()}")
    folder.mkdir()
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_ledger_in_a_folder_that_can_not_be_written_is_read(locked_folder: Path) -> None:
    path = locked_folder / "ledger.sqlite"
    with open_at(path) as ledger:
        begin(ledger, windows=4)
    path.chmod(0o444)
    locked_folder.chmod(0o555)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    command = [sys.executable, "-c", READ_AS_NOBODY, str(path)]
    read = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (read.returncode, read.stdout, read.stderr) == (0, "6\n", "")


def test_two_that_make_the_same_ledger_at_once_both_have_it(tmp_path: Path) -> None:
    def make(path: Path) -> list[str]:
        with open_at(path) as ledger:
            return ledger.stream_ids()

    with ThreadPoolExecutor(4) as threads:
        for attempt in range(60):
            path = tmp_path / f"{attempt}.sqlite"
            assert list(threads.map(make, [path] * 4)) == [[], [], [], []]


def test_names_that_a_url_would_read_otherwise_are_plain_names(tmp_path: Path) -> None:
    for name in ("a b?mode=memory#x%41.sqlite", "ü:memory:.sqlite"):
        path = tmp_path / name
        with open_at(path) as ledger:
            begin(ledger, windows=1)
        assert path.stat().st_size > 4096
        with open_at(path, read_only=True) as ledger:
            assert ledger.stream(STREAM).version == 3


def test_a_link_leads_to_the_ledger_and_its_log(tmp_path: Path) -> None:
    real, link = tmp_path / "real.sqlite", tmp_path / "link.sqlite"
    with open_at(real) as writer:
        written = begin(writer, windows=2)
        link.symlink_to(real)
        with open_at(link, read_only=True) as reader:
            assert reader.stream(STREAM) == written


def test_variables_that_reconfigure_the_library_do_not_matter(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "PERSISTENCE_MODULE", "TRANSCODER_TOPIC", "MAPPER_TOPIC", "CIPHER_TOPIC", "CIPHER_KEY",
        "COMPRESSOR_TOPIC", "APPLICATION_RECORDER_TOPIC", "SQLITE_DBNAME", "SQLITE_LOCK_TIMEOUT",
        "ORIGINATOR_ID_TYPE", "CREATE_TABLE", "IS_SNAPSHOTTING_ENABLED", "AGGREGATE_CACHE_MAXSIZE",
        "AGGREGATE_CACHE_FASTFORWARD",
    ):  # fmt: skip
        monkeypatch.setenv(name, "nonsense:nothing")
        monkeypatch.setenv(f"LEDGER_{name}", "nonsense:nothing")
    with open_at(path) as ledger:
        written = begin(ledger, windows=2)
        ledger.take_state_snapshot(written)
        assert ledger.stream(STREAM) == written
    with sqlite3.connect(path) as connection:
        (stored,) = connection.execute("SELECT state FROM stored_events LIMIT 1").fetchone()
    connection.close()
    assert stored.startswith(b'{"event":{"run_id":"run-1"')


def test_a_url_opens_the_same_file_as_its_path(path: Path) -> None:
    with Ledger.open(parse_location(f"sqlite:///{path}")) as ledger:
        begin(ledger)
    with Ledger.open(parse_location(str(path)), read_only=True) as ledger:
        assert ledger.stream(STREAM).version == 2


def test_a_ledger_that_is_made_anew_takes_its_log_along(path: Path) -> None:
    ledger = open_at(path)
    begin(ledger)
    assert files_beside(path) == ["ledger.sqlite", "ledger.sqlite-shm", "ledger.sqlite-wal"]
    remove_ledger(path)
    assert files_beside(path) == []
    ledger.close()
    remove_ledger(path)
