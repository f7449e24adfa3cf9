"""
The history's Parquet files: written so that a reader can skip, durable before they are named.

A file is written under a temporary name and renamed; it and its folders are synced before the
manifest that names it is renamed into place. Locks are the operating system's, so that a killed
writer holds none.
"""

import contextlib
import fcntl
import os
import re
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from domain.errors import AnotherWriter, BadInput, HistoryDamaged
from ledger.streams import StreamKey
from projections.history_manifest import (
    DataFile,
    Manifest,
    file_name,
    manifest_path,
    partition,
    seal,
)
from projections.history_rows import Part
from projections.history_schema import SORTED_BY, TABLES

COMPRESSION: Final = "zstd"
COMPRESSION_LEVEL: Final = 3
GROUP_ROWS_MIN: Final = 4_096
"""Below this a file is one row group: there is nothing to skip in it."""

SYNC_AT_ONCE: Final = 16

_LOCK_POLL_SEC: Final = 0.02
_DATA_NAME: Final = re.compile(r"\.?part-[0-9]+-[0-9]+\.([0-9a-f]{8})\.parquet(\.tmp)?")
_IN_FULL: Final = {"value", "notional"}
"""Columns whose numbers are mostly different ones: a dictionary of them would be a second copy."""


class Folder:
    """One history's folder, and what of it has still to be synced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unsynced_files: list[Path] = []
        self._unsynced_folders: set[Path] = set()

    def write_part(self, part: Part, key: StreamKey, table: pa.Table, generation: str) -> DataFile:
        """
        Put the rows of a table and day into a file of their own, and return what it is.

        Raises:
            BadInput: if it can't be written.
        """
        _check_known(part.table, table)
        content = _encode(part.table, table)
        positions = _bounds(table, "position")
        name = file_name(*positions, generation)
        self._write(f"{partition(part.table, key, part.day)}/{name}", content)
        return DataFile(
            part.table,
            part.day,
            name,
            table.num_rows,
            len(content),
            zlib.crc32(content),
            *_bounds(table, "ledger_version"),
            *positions,
            *_time_bounds(table),
        )

    def publish(self, manifest: Manifest, key: StreamKey) -> None:
        """
        Make a manifest the one that readers go by; when this returns it is on the disk.

        Raises:
            BadInput: if it can't be written; the one before is still there.
        """
        path = manifest_path(self.path, key)
        self._sync()
        self._write(path.name, memoryview(seal(manifest)), synced=True)
        self._sync()

    def remove(self, path: str) -> None:
        """Remove a file that no manifest names any more."""
        with self._told(), contextlib.suppress(FileNotFoundError):
            os.unlink(self.path / path)  # noqa: PTH108 - of thousands of files

    def strays(self, key: StreamKey, known: set[str]) -> Iterator[tuple[str, str]]:
        """Yield path and generation of each file of the stream that isn't among the known ones."""
        for table in TABLES:
            place = Path(partition(table, key, 0)).parent
            for folder in _entries(self.path / place):
                for name in _entries(self.path / place / folder):
                    path = f"{place}/{folder}/{name}"
                    found = _DATA_NAME.fullmatch(name)
                    if found is not None and path not in known:
                        yield path, found[1]

    def _write(self, path: str, content: memoryview, *, synced: bool = False) -> None:
        """Write a whole file beside its place and rename it into it, synced now or with others."""
        final = self.path / path
        temporary = final.with_name(f".{final.name}.tmp")
        with self._told():
            self._make_folder(final.parent)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                left = content
                while left:
                    left = left[os.write(descriptor, left) :]
                if synced:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(final)
        if not synced:
            self._unsynced_files.append(final)
        self._unsynced_folders.add(final.parent)

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        self._unsynced_folders.add(folder.parent)

    def _sync(self) -> None:
        """Wait until all that was written is on the disk; many files at a time cost little more."""
        paths = [*self._unsynced_files, *self._unsynced_folders]
        with self._told():
            if len(paths) < SYNC_AT_ONCE:
                for path in paths:
                    _sync(path)
            else:
                with ThreadPoolExecutor(SYNC_AT_ONCE) as pool:
                    list(pool.map(_sync, paths))
        self._unsynced_files.clear()
        self._unsynced_folders.clear()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            cause = os.strerror(error.errno or 0)
            raise BadInput(f"--history: {self.path} can't be written: {cause}") from error


def read_file(path: Path, table: str) -> pa.Table:
    """
    Return all rows of one file.

    Raises:
        HistoryDamaged: naming it.
    """
    try:
        return pq.read_table(path, schema=TABLES[table], partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise HistoryDamaged(
            f"{path} can't be read: {str(error).splitlines()[0]}; "
            "`live rebuild history` makes it again from the ledger"
        ) from error


def in_order(table: str, rows: pa.Table) -> pa.Table:
    """Return rows in the order that they stand in a file."""
    names = SORTED_BY.get(table, ("ledger_version",))
    return rows.sort_by([(name, "ascending") for name in names])


@contextlib.contextmanager
def writing(
    folder: Path, key: StreamKey, purpose: str = "writer", *, wait_sec: float
) -> Iterator[None]:
    """
    Hold one stream's history, for a purpose.

    Raises:
        AnotherWriter: if somebody else holds it for that long.
        BadInput: if no lock can be made.
    """
    path = folder / f".{str(key).replace(':', '.')}.{purpose}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        cause = os.strerror(error.errno or 0)
        raise BadInput(f"--history: {folder} can't be written: {cause}") from error
    try:
        _wait_for(descriptor, f"{folder}: the history of {key}", wait_sec)
        yield
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, what: str, wait_sec: float) -> None:
    ends_sec = time.monotonic() + wait_sec
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= ends_sec:
                raise AnotherWriter(f"{what} is being written by another process") from None
            time.sleep(_LOCK_POLL_SEC)
        else:
            return


def _encode(table: str, rows: pa.Table) -> memoryview:
    """Return the rows as the bytes of a Parquet file."""
    schema = _bare(TABLES[table])
    rows = rows.cast(schema)
    in_dictionary, encodings = [], {}
    for field in schema:
        if pa.types.is_integer(field.type) or pa.types.is_temporal(field.type):
            encodings[field.name] = "DELTA_BINARY_PACKED"
        elif field.name in _IN_FULL:
            encodings[field.name] = "BYTE_STREAM_SPLIT"
        elif not pa.types.is_list(field.type) and not pa.types.is_boolean(field.type):
            in_dictionary.append(field.name)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        schema,
        compression=COMPRESSION,
        compression_level=COMPRESSION_LEVEL,
        use_dictionary=in_dictionary,
        column_encoding=encodings,
        write_statistics=True,
        # Of thousands of small files it would be a tenth; the types are told by Parquet's own.
        store_schema=False,
        write_page_checksum=True,
        sorting_columns=_sorting(table),
    ) as writer:
        for group in _groups(table, rows):
            writer.write_table(group, row_group_size=max(1, group.num_rows))
    return memoryview(sink.getvalue())


def _bare(schema: pa.Schema) -> pa.Schema:
    """Return a schema without what its columns mean, which no file need repeat."""
    return pa.schema([field.remove_metadata() for field in schema])


def _groups(table: str, rows: pa.Table) -> Iterator[pa.Table]:
    """Yield the row groups: a large file has one for each value of what it is sorted by first."""
    by = SORTED_BY.get(table)
    if by is None or rows.num_rows < GROUP_ROWS_MIN:
        yield rows
        return
    lengths = pc.run_end_encode(rows[by[0]].combine_chunks()).run_ends
    start = 0
    for end in lengths.to_pylist():
        yield rows.slice(start, end - start)
        start = end


def _sorting(table: str) -> list[pq.SortingColumn]:
    schema = TABLES[table]
    names = SORTED_BY.get(table, ("ledger_version",))
    return [pq.SortingColumn(schema.get_field_index(name)) for name in names]


def _check_known(table: str, rows: pa.Table) -> None:
    for field in TABLES[table]:
        assert field.nullable or not rows[field.name].null_count, (table, field.name)


def _bounds(rows: pa.Table, *names: str) -> tuple[int, int]:
    """Return the least and the greatest number in some columns."""
    found = [pc.min_max(rows[name].cast(pa.int64())) for name in names]
    return min(f["min"].as_py() for f in found), max(f["max"].as_py() for f in found)


def _time_bounds(rows: pa.Table) -> tuple[int, int]:
    names = (
        ["happened_at"] if "happened_at" in rows.column_names else ["window_start", "window_end"]
    )
    return _bounds(rows, *names)


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names are enough
    except (FileNotFoundError, NotADirectoryError):
        return []
