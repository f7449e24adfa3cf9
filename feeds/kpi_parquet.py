"""
KPI files of Parquet, read in batches of rows.

Only this module of the feeds needs pyarrow, which takes a tenth of a second to import: it is
imported when a Parquet file is opened, and not before.

Source: DESIGN.md section 4, KPI file.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from domain.errors import BadInput
from domain.kpis import Reading
from feeds.kpi_rows import (
    BATCH_ROWS,
    COLUMNS,
    KPI_COLUMNS,
    RowBatch,
    Source,
    check_columns,
    fills_of,
    notional_of,
    reading_of_float,
    start_in_range,
    start_of,
    symbol_of,
)

_READ_BUFFER_BYTES: Final = 1 << 20
_TICKS_PER_SECOND: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def read_parquet(path: Path) -> Iterator[RowBatch]:
    """
    Yield the rows of a Parquet file in batches; a row is known by its number, from 1.

    Raises:
        BadInput: naming the file and the row or the column.
        OSError: if the file can't be read.
    """
    source = Source(path, "row")
    before = 0
    for batch in _record_batches(path):
        numbers = range(before + 1, before + batch.num_rows + 1)
        yield _to_rows(source, numbers, batch)
        before += batch.num_rows


def _record_batches(path: Path) -> Iterator[Any]:
    # Opened by Python, so that a file that can't be read is told from one that isn't Parquet:
    # pyarrow raises OSError for either.
    with path.open("rb") as raw:
        try:
            # The buffer makes pyarrow read column chunks piece by piece instead of whole.
            file = pq.ParquetFile(
                raw,
                buffer_size=_READ_BUFFER_BYTES,
                pre_buffer=False,
                page_checksum_verification=True,
            )
            check_columns(path, file.schema_arrow.names)
            _check_types(path, file.schema_arrow)
            names = [name for name in COLUMNS if name in file.schema_arrow.names]
            yield from file.iter_batches(BATCH_ROWS, columns=names, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise BadInput(
                f"{path}: expected a whole Parquet file, was broken: {reason}"
            ) from error


def _check_types(path: Path, schema: Any) -> None:
    types = pa.types
    for name in COLUMNS:
        if name not in schema.names:
            continue
        held = schema.field(name).type
        if types.is_dictionary(held):
            held = held.value_type
        if name == "window_start":
            expected, fits = "timestamps or ISO text", types.is_timestamp(held) or _is_text(held)
        elif name == "symbol":
            expected, fits = "text", _is_text(held)
        else:
            # A column without any value is often stored with the type null.
            tests = (types.is_integer, types.is_floating, types.is_decimal, types.is_null)
            expected, fits = "numbers", any(test(held) for test in tests)
        if not fits:
            raise BadInput(f"{path}: expected {expected} in column {name}, was {held}")


def _is_text(held: Any) -> bool:
    types = pa.types
    return any(
        test(held) for test in (types.is_string, types.is_large_string, types.is_string_view)
    )


def _to_rows(source: Source, numbers: range, batch: Any) -> RowBatch:
    def numeric(name: str, parse: Callable[[Reading | None], Any]) -> list[Any]:
        if name not in batch.schema.names:
            return [None] * batch.num_rows
        return source.convert(name, _readings(batch.column(name)), numbers, parse)

    return RowBatch(
        numbers=numbers,
        starts_ms=_starts(source, numbers, _decoded(batch.column("window_start"))),
        symbols=_texts(source, numbers, "symbol", _decoded(batch.column("symbol")), symbol_of),
        kpis=tuple(_readings(batch.column(name)) for name in KPI_COLUMNS),
        notional=numeric("notional", notional_of),
        fills=numeric("fills", fills_of),
    )


def _decoded(column: Any) -> Any:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _readings(column: Any) -> list[Reading | None]:
    floats = _decoded(column).cast(pa.float64(), safe=False)
    values: list[Reading | None] = floats.to_pylist()
    # Nearly every batch is finite, and then spares a call for each value.
    if pc.all(pc.is_finite(floats)).as_py() is False:
        return list(map(reading_of_float, floats.to_pylist()))
    return values


def _starts(source: Source, numbers: range, column: Any) -> list[int]:
    if not pa.types.is_timestamp(column.type):
        return _texts(source, numbers, "window_start", column, start_of)
    # Whatever the time zone of the column, what it stores is UTC.
    ticks = column.cast(pa.int64()).to_pylist()
    parse = partial(_start_of_ticks, per_second=_TICKS_PER_SECOND[column.type.unit])
    return source.convert("window_start", ticks, numbers, parse)


def _start_of_ticks(ticks: int | None, *, per_second: int) -> int:
    if ticks is None:
        raise ValueError("a time")
    start_ms, rest = divmod(ticks * 1000, per_second)
    start_in_range(start_ms)
    if rest:
        raise ValueError("a time of whole milliseconds")
    return start_ms


def _texts(
    source: Source, numbers: range, name: str, column: Any, parse: Callable[[Any], Any]
) -> list[Any]:
    try:
        texts = column.to_pylist()
    except UnicodeDecodeError as error:
        problem = f"expected UTF-8 in column {name} from here on, was {error.reason}"
        raise source.bad(numbers[0], problem) from error
    return source.convert(name, texts, numbers, parse)
