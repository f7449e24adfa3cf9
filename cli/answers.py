"""
What a SELECT answered, for people and for machines: any type that SQL has, as text or values.
"""

import io
import json
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import click
import pyarrow as pa
import pyarrow.parquet as pq

from cli.tables import Column, Form, Kind, Table, harmless, write_parts, write_table
from domain.errors import BadInput
from projections.history_sql import Answer

CELL_CHARACTERS_MAX: Final = 60
_INTEGER_MAX: Final = 2**63 - 1


def write_answer(
    answer: Answer, form: Form, output: Path | None, *, rows_max: int | None = None
) -> None:
    """
    Write an answer as it comes, to a file or to stdout.

    Raises:
        BadInput: if the file can't be written.
    """
    batches = _first(answer.batches, rows_max)
    if form is Form.PARQUET:
        write_parts(_parquet(answer.schema, batches), form, output)
        return
    names = _distinct(answer.schema.names)
    columns = [
        Column(harmless(name) if form is Form.CSV else name, _kind(field.type), itemgetter(index))
        for index, (name, field) in enumerate(zip(names, answer.schema, strict=True))
    ]
    write_table(Table("answer", columns, _rows(batches, form)), form, output)


def tell_answer(answer: Answer, *, rows_max: int) -> None:
    """Print an answer for people: a table, cut where it is long or wide, and saying so."""
    rows = list(islice(_rows(answer.batches, None), rows_max + 1))
    told = [[_shown(cell) for cell in row] for row in rows[:rows_max]]
    names = [_shown(name) for name in answer.schema.names]
    widths = [max(map(len, column)) for column in zip(names, *told, strict=True)]
    numbers = [_kind(field.type) in {Kind.NUMBER, Kind.COUNT} for field in answer.schema]
    for line in (names, ["-" * width for width in widths], *told):
        cells = [
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(line, widths, numbers, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())
    if len(rows) > rows_max:
        click.echo(f"only the first {rows_max} rows; --rows N, --json or --csv give more", err=True)


def _first(batches: Iterable[pa.RecordBatch], rows_max: int | None) -> Iterator[pa.RecordBatch]:
    """Yield the batches up to so many rows."""
    left = rows_max
    for batch in batches:
        part = batch if left is None else batch.slice(0, left)
        yield part
        if left is not None:
            left -= part.num_rows
            if not left:
                return


def _rows(batches: Iterable[pa.RecordBatch], form: Form | None) -> Iterator[tuple[Any, ...]]:
    """Yield each row's values as a form takes them."""
    for batch in batches:
        try:
            columns = [column.to_pylist() for column in batch.columns]
        except (ValueError, OverflowError, pa.ArrowException) as error:
            raise BadInput(
                f"a value can't be shown ({str(error).splitlines()[0]}); cast it to VARCHAR"
            ) from None
        for row in zip(*columns, strict=True):
            yield tuple(_value(cell, form) for cell in row)


def _value(cell: Any, form: Form | None) -> Any:  # noqa: PLR0911 - one return a case
    """Return a value as JSON has it: no value of SQL's is lost without a word."""
    match cell:
        case None | bool() | str():
            return cell
        case int():
            return cell if -_INTEGER_MAX <= cell <= _INTEGER_MAX else str(cell)
        case float():
            # JSON has no such numbers, and would make nulls of them.
            return cell if math.isfinite(cell) or form is Form.CSV else str(cell)
        case Decimal():
            return _decimal(cell)
        case datetime():
            return _time_text(cell)
        case date() | time():
            return cell.isoformat()
        case bytes():
            return cell.hex()
        case pa.MonthDayNano():
            return f"{cell.months} months {cell.days} days {cell.nanoseconds / 1e9:g} s"
        case list() | tuple():
            return [_value(part, Form.JSON) for part in cell]
        case dict():
            return {str(name): _value(part, Form.JSON) for name, part in cell.items()}
        case _:
            return str(cell)


def _decimal(number: Decimal) -> int | float | str:
    """Return a number where that loses nothing, else its text."""
    if number == number.to_integral_value():
        return int(number) if abs(number) <= _INTEGER_MAX else str(int(number))
    return float(number) if Decimal(repr(float(number))) == number else str(number)


def _time_text(moment: datetime) -> str:
    """Return ISO text; a time with a zone in UTC, with its milliseconds if it has any."""
    if moment.tzinfo is None:
        return moment.isoformat()
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat()
    return f"{text.removesuffix('000') if moment.microsecond else text}Z"


def _kind(kind: pa.DataType) -> Kind:
    if pa.types.is_boolean(kind):
        return Kind.FLAG
    if pa.types.is_floating(kind):
        return Kind.NUMBER
    if pa.types.is_integer(kind):
        return Kind.COUNT
    if pa.types.is_nested(kind):
        is_texts = pa.types.is_list(kind) and pa.types.is_string(kind.value_type)
        return Kind.TEXTS if is_texts else Kind.JSON
    return Kind.TEXT


def _distinct(names: list[str]) -> list[str]:
    """Return the names, each once: a row as JSON has no two fields of one name."""
    seen: dict[str, None] = {}
    for name in names:
        distinct, count = name, 1
        while distinct in seen:
            count += 1
            distinct = f"{name}_{count}"
        seen[distinct] = None
    return list(seen)


def _shown(cell: Any) -> str:
    """Return a cell's text on a terminal: in one line, without what a terminal would obey."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        text = f"{cell:.6g}"
    elif isinstance(cell, bool):
        text = str(cell).lower()
    elif isinstance(cell, list | dict):
        strings = isinstance(cell, list) and all(isinstance(part, str) for part in cell)
        text = "; ".join(cell) if strings else json.dumps(cell, ensure_ascii=False)
    else:
        text = str(cell)
    text = "".join(letter if letter.isprintable() else "�" for letter in text)
    return text if len(text) <= CELL_CHARACTERS_MAX else f"{text[: CELL_CHARACTERS_MAX - 1]}…"


def _parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """Yield a Parquet file as it is made, its types as SQL's are."""
    names = _distinct(schema.names)
    schema = pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)])
    sink = _Parts()
    try:
        writer = pq.ParquetWriter(sink, schema, compression="zstd")
    except pa.ArrowNotImplementedError as error:
        raise BadInput(f"--parquet: {error}; cast the column to VARCHAR") from None
    with writer:
        for batch in batches:
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
            yield sink.take()
    yield sink.take()


class _Parts(io.RawIOBase):
    """A file that is taken away as it is written."""

    def __init__(self) -> None:
        super().__init__()
        self._taken = 0
        self._held = bytearray()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Keep what is written until it is taken."""
        self._held += data
        return len(data)

    def tell(self) -> int:
        """Return how much was written in all."""
        return self._taken + len(self._held)

    def take(self) -> bytes:
        """Return what was written since the last time."""
        part = bytes(self._held)
        self._taken += len(part)
        self._held.clear()
        return part
