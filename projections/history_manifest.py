"""
What is in a history: the manifest of each stream, which is also the writer's checkpoint.

A file belongs to the history if, and only if, a manifest names it. A manifest is renamed into
place after all that it names is on the disk, so that a reader sees the rows of each event exactly
once, whenever a writer is killed.
"""

import hashlib
import os
import re
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import msgspec

from domain.errors import HistoryDamaged
from ledger.streams import StreamKey

FORMAT_VERSION: Final = 1
TABLE_NAMES: Final = frozenset(
    {
        "windows", "symbols", "kpis", "violations", "transitions", "throttles", "policies",
        "overrides", "runs", "incidents",
    }
)  # fmt: skip
"""As in `history_schema.TABLES`, without what it takes to import that."""

CHECK_AT_ONCE: Final = 4

_EPOCH: Final = date(1970, 1, 1)
_STREAM: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}:[a-z0-9][a-z0-9_-]{0,31}(:dry-run)?")
_NAME: Final = re.compile(r"part-[0-9]{12,}-[0-9]{12,}\.[0-9a-f]{8}\.parquet")
_PATH: Final = re.compile(
    r"[a-z]+/env=[a-z0-9_-]+/exchange=[a-z0-9_-]+/dry_run=(true|false)/day=[0-9]{4}-[0-9]{2}-[0-9]{2}/"
    + _NAME.pattern
)
_REMEDY: Final = "`live rebuild history` makes it again from the ledger"


class DataFile(msgspec.Struct, frozen=True, array_like=True):
    """
    One Parquet file.

    Attributes:
        table: its table.
        day: its UTC day, counted from 1970-01-01.
        name: its name in the partition's folder, with the range of positions that it holds.
        rows, bytes: how many; a file of another size is damaged.
        checksum: CRC-32 of its content: against damage, not against forgery.
        first_version, last_version, first_position, last_position: the events that rows are from.
        first_ms, last_ms: the times that rows are of, the end of the last window included.
    """

    table: str
    day: int
    name: str
    rows: int
    bytes: int
    checksum: int
    first_version: int
    last_version: int
    first_position: int
    last_position: int
    first_ms: int
    last_ms: int


class RetiredFile(msgspec.Struct, frozen=True, array_like=True):
    """A file that others have replaced: readers that have begun may still be reading it."""

    path: str
    retired_at_ms: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """
    The history of one stream.

    Attributes:
        stream, ledger_id: what it is the history of.
        schema_version, fold_version: what made it; of others it is made again.
        generation: 8 hex digits, in the names of its files; a rebuild makes another.
        version, position: the last event whose rows are in it.
        state: the fold up to that event, as JSON.
        files: what it consists of.
        retired: what it consisted of, until it is removed.
    """

    stream: str
    ledger_id: str
    schema_version: int
    fold_version: int
    generation: str
    version: int = 0
    position: int = 0
    state: msgspec.Raw = msgspec.Raw(b"null")
    files: tuple[DataFile, ...] = ()
    retired: tuple[RetiredFile, ...] = ()


class _Sealed(msgspec.Struct, frozen=True):
    """A manifest as it lies on the disk, with a checksum of its bytes."""

    format: int
    checksum: str
    manifest: msgspec.Raw


def default_folder(ledger: Path) -> Path:
    """Return where the history of a ledger is, if nothing else was said: beside it."""
    path = ledger.resolve()
    return path.with_name(f"{path.stem}.history")


def manifest_path(folder: Path, key: StreamKey) -> Path:
    """Return where a stream's manifest is; names of streams have no dot, so this is unique."""
    return folder / f"{str(key).replace(':', '.')}.manifest.json"


def partition(table: str, key: StreamKey, day: int) -> str:
    """Return a partition's folder in the history, hive style."""
    dry_run = str(key.dry_run).lower()
    return f"{table}/env={key.env}/exchange={key.exchange}/dry_run={dry_run}/day={day_text(day)}"


def day_text(day: int) -> str:
    """Return a day, counted from 1970-01-01, as ISO text."""
    return (_EPOCH + timedelta(days=day)).isoformat()


def path_of(file: DataFile, key: StreamKey) -> str:
    """Return a file's path in the history."""
    return f"{partition(file.table, key, file.day)}/{file.name}"


def file_name(first_position: int, last_position: int, generation: str) -> str:
    """Return the name of a file with the rows of these events."""
    return f"part-{first_position:012d}-{last_position:012d}.{generation}.parquet"


def generation_of(name: str) -> str:
    """Return the generation that a file's name tells, "" if it tells none."""
    parts = name.split(".")
    return parts[-2] if len(parts) >= 3 else ""


def digest_of(content: bytes | memoryview) -> str:
    """Return 32 hex digits that name a content."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def seal(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest's file."""
    raw = msgspec.json.encode(manifest)
    return msgspec.json.encode(_Sealed(FORMAT_VERSION, digest_of(raw), msgspec.Raw(raw)))


def read_manifest(folder: Path, key: StreamKey) -> Manifest | None:
    """
    Return a stream's manifest, None if there is none.

    Raises:
        HistoryDamaged: naming the file.
    """
    return load_manifest(manifest_path(folder, key))


def load_manifest(path: Path) -> Manifest | None:
    """Return the manifest at a path; see `read_manifest`."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HistoryDamaged(f"{path} can't be read: {os.strerror(error.errno or 0)}") from error
    try:
        sealed = msgspec.json.decode(content, type=_Sealed)
        if sealed.format > FORMAT_VERSION:
            raise HistoryDamaged(
                f"{path} has format version {sealed.format}, this program knows up to "
                f"{FORMAT_VERSION}; use the newer version of Live Ledger that wrote it"
            )
        if digest_of(bytes(sealed.manifest)) != sealed.checksum:
            raise HistoryDamaged(f"{path} is not as it was written; {_REMEDY}")
        return _within(msgspec.json.decode(sealed.manifest, type=Manifest), path)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise HistoryDamaged(f"{path} is no manifest of a history ({error}); {_REMEDY}") from error


def _within(manifest: Manifest, path: Path) -> Manifest:
    """Return a manifest that names nothing outside its folder; it may come from elsewhere."""
    if (
        not _STREAM.fullmatch(manifest.stream)
        or not all(
            _NAME.fullmatch(file.name) and file.table in TABLE_NAMES for file in manifest.files
        )
        or not all(_PATH.fullmatch(file.path) for file in manifest.retired)
    ):
        raise HistoryDamaged(f"{path} names what can't be a file of a history; {_REMEDY}")
    return manifest


def check_files(folder: Path, key: StreamKey, files: Sequence[DataFile]) -> None:
    """
    Check that files are as they were written: some readers take a flipped bit for a number.

    Raises:
        HistoryDamaged: naming the first that isn't.
    """

    def check(file: DataFile) -> None:
        path = folder / path_of(file, key)
        try:
            content = path.read_bytes()
        except OSError as error:
            cause = os.strerror(error.errno or 0)
            raise HistoryDamaged(f"{path} can't be read: {cause}; {_REMEDY}") from error
        if len(content) != file.bytes:
            raise HistoryDamaged(
                f"{path}: expected {file.bytes} bytes, was {len(content)}; {_REMEDY}"
            )
        if zlib.crc32(content) != file.checksum:
            raise HistoryDamaged(f"{path} is not as it was written; {_REMEDY}")

    if len(files) < CHECK_AT_ONCE:
        for file in files:
            check(file)
        return
    with ThreadPoolExecutor(CHECK_AT_ONCE) as pool:
        # In chunks: a year is thousands of small files.
        list(pool.map(check, files, chunksize=64))
