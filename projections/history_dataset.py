"""
A history's table as a pyarrow dataset: read when it is asked for, and no file in vain.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs

from ledger.streams import StreamKey
from projections.history_manifest import DataFile
from projections.history_schema import TABLES, TIME


def dataset_of(
    table: str, files: Sequence[tuple[Path, StreamKey, DataFile]], tail: pa.Table
) -> ds.Dataset:
    """Return a table's rows: those of files, each of a stream, and those that are in none."""
    latest = ds.dataset(tail)
    if not files:
        return latest
    in_files = ds.FileSystemDataset.from_paths(
        [str(path.resolve()) for path, _, _ in files],
        schema=TABLES[table],
        format=ds.ParquetFileFormat(),
        filesystem=pyarrow.fs.LocalFileSystem(),
        partitions=[_guarantee(table, key, file) for _, key, file in files],
    )
    return ds.dataset([in_files, latest], schema=TABLES[table])


def in_time(table: str, from_ms: int | None, to_ms: int | None) -> pc.Expression | None:
    """Return which rows are of a time, the end exclusive; None for all."""
    chosen: pc.Expression | None = None
    if from_ms is not None:
        start = pa.scalar(from_ms, TIME)
        chosen = (
            pc.field("window_end") > start
            if _has_window(table)
            else pc.field("happened_at") >= start
        )
    if to_ms is not None:
        end = pa.scalar(to_ms, TIME)
        before = pc.field("window_start" if _has_window(table) else "happened_at") < end
        chosen = before if chosen is None else chosen & before
    return chosen


def _guarantee(table: str, key: StreamKey, file: DataFile) -> pc.Expression:
    """Return what holds for all rows of a file, so that it need not be opened in vain."""
    time = pc.field("window_start" if _has_window(table) else "happened_at")
    return (
        (pc.field("env") == key.env)
        & (pc.field("exchange") == key.exchange)
        & (pc.field("dry_run") == pa.scalar(key.dry_run))
        & (pc.field("day") == pa.scalar(file.day, pa.int32()).cast(pa.date32()))
        & (time >= pa.scalar(file.first_ms, TIME))
        & (time <= pa.scalar(file.last_ms, TIME))
    )


def _has_window(table: str) -> bool:
    """Return whether a row's time is its window's; else it is `happened_at`."""
    return "happened_at" not in TABLES[table].names
