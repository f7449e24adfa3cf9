"""
Rows for machines: JSON lines, CSV or Parquet, on stdout or into a file.

Text that a spreadsheet would take as a formula is made harmless in CSV; quoting doesn't do that.
Source: FIELD_NOTES.md, Reports.
"""

import csv
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import click
import msgspec

from domain.errors import BadInput
from domain.windows import format_time

FORMULA_STARTS: Final = frozenset("=+-@\t\r\uff1d\uff0b\uff0d\uff20")
"""What a spreadsheet takes a formula to begin with, in full width too."""

SQLITE_START: Final = b"SQLite format 3\0"


class Form(StrEnum):
    """How a table is written."""

    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


class Kind(StrEnum):
    """
    What a column holds.

    Times are ms UTC, and written as ISO text or timestamps; JSON is plain values, written as text
    where there is no JSON around it.
    """

    TIME = "time"
    TEXT = "text"
    TEXTS = "texts"
    NUMBER = "number"
    COUNT = "count"
    FLAG = "flag"
    JSON = "json"


class Column(NamedTuple):
    """One column: its name, what it holds, and how a row gives it."""

    name: str
    kind: Kind
    cell_of: Callable[[Any], Any]


class Table(NamedTuple):
    """A name for messages, columns, and rows that may be made as they are written."""

    name: str
    columns: Sequence[Column]
    rows: Iterable[Any]

    def cells(self) -> Iterator[list[Any]]:
        """Yield each row's values, in the order of the columns."""
        for row in self.rows:
            yield [column.cell_of(row) for column in self.columns]


def write_table(table: Table, form: Form, output: Path | None) -> None:
    """Write the table to a file, else to stdout; see `write_parts`."""
    write_parts(_parts(table, form), form, output)


def write_parts(parts: Iterable[bytes], form: Form, output: Path | None) -> None:
    """
    Write what makes up a form to a file, which is renamed into place once whole, else to stdout.

    Raises:
        BadInput: if the file can't be written, or Parquet would go to a terminal.
    """
    if output is None:
        if form is Form.PARQUET and sys.stdout.isatty():
            raise BadInput("--parquet: bytes for machines; name a file with --output, or redirect")
        for part in parts:
            click.echo(part if form is Form.PARQUET else part.decode(), nl=False)
        return
    with written_atomically(output, option="--output: ") as stream:
        stream.writelines(parts)


@contextmanager
def written_atomically(path: Path, *, option: str = "") -> Iterator[IO[bytes]]:
    """
    Give a file that takes its place when it is whole, and leaves nothing behind otherwise.

    Raises:
        BadInput: if it can't be written, or would replace a ledger; `option` stands before the
            path then.
    """
    check_replaceable(path, option=option)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
        temporary.replace(path)
    except OSError as error:
        if error.errno is None:
            # Not of the file: Arrow has no other word for what ended the rows on their way.
            raise
        raise BadInput(f"{option}{path} can't be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def check_replaceable(path: Path, *, option: str = "") -> None:
    """
    Check that a file may be written there: what an answer replaces is never a ledger.

    Raises:
        BadInput: if it is a SQLite file, or no file's name; `option` stands before the path then.
    """
    if not path.name:
        raise BadInput(f"{option}expected a file's name, was '{path}'")
    with suppress(OSError), path.open("rb") as stream:
        if stream.read(len(SQLITE_START)) == SQLITE_START:
            raise BadInput(f"{option}{path} is a SQLite file, perhaps a ledger; name another file")


def harmless(text: str) -> str:
    """Return text that no spreadsheet takes for a formula: one gets an apostrophe before it."""
    stripped = text.lstrip()
    is_formula = text[:1] in FORMULA_STARTS or stripped[:1] in FORMULA_STARTS
    return f"'{text}" if is_formula and text else text


def _parts(table: Table, form: Form) -> Iterator[bytes]:
    """Yield the table as bytes, a row at a time where the form allows it."""
    match form:
        case Form.JSON:
            return _json_lines(table)
        case Form.CSV:
            return _csv_lines(table)
        case Form.PARQUET:
            return iter([_parquet(table)])


def _json_lines(table: Table) -> Iterator[bytes]:
    encode = msgspec.json.Encoder().encode
    for cells in table.cells():
        row = {
            column.name: _json_cell(column.kind, cell)
            for column, cell in zip(table.columns, cells, strict=True)
        }
        yield encode(row) + b"\n"


def _json_cell(kind: Kind, cell: Any) -> Any:
    return format_time(cell) if kind is Kind.TIME and cell is not None else cell


def _csv_lines(table: Table) -> Iterator[bytes]:
    yield _csv_line([column.name for column in table.columns])
    for cells in table.cells():
        yield _csv_line(
            [
                _csv_cell(column.kind, cell)
                for column, cell in zip(table.columns, cells, strict=True)
            ]
        )


def _csv_line(cells: Sequence[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue().encode()


def _csv_cell(kind: Kind, cell: Any) -> str:  # noqa: PLR0911 - one return a case
    if cell is None:
        return ""
    match kind:
        case Kind.TIME:
            return format_time(cell)
        case Kind.FLAG:
            return "true" if cell else "false"
        case Kind.NUMBER | Kind.COUNT:
            return repr(cell)
        case Kind.TEXTS:
            return harmless("; ".join(cell))
        case Kind.TEXT:
            return harmless(str(cell))
        case Kind.JSON:
            return _json_text(cell)


def _json_text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _parquet(table: Table) -> bytes:
    import pyarrow as pa  # noqa: PLC0415 - only who asks for Parquet pays for it
    import pyarrow.parquet as pq  # noqa: PLC0415

    types = {
        Kind.TIME: pa.timestamp("ms", tz="UTC"),
        Kind.TEXT: pa.string(),
        Kind.TEXTS: pa.list_(pa.string()),
        Kind.NUMBER: pa.float64(),
        Kind.COUNT: pa.int64(),
        Kind.FLAG: pa.bool_(),
        Kind.JSON: pa.string(),
    }
    schema = pa.schema([(column.name, types[column.kind]) for column in table.columns])
    columns = list(zip(*table.cells(), strict=True)) or [()] * len(table.columns)
    arrays = [
        pa.array([_plain(column.kind, cell) for cell in cells], type=types[column.kind])
        for column, cells in zip(table.columns, columns, strict=True)
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), sink, compression="zstd")
    return sink.getvalue()


def _plain(kind: Kind, cell: Any) -> Any:
    """Return what Arrow takes: an enum's text, JSON as text."""
    if kind is Kind.JSON:
        return None if cell is None else _json_text(cell)
    return str(cell) if isinstance(cell, StrEnum) else cell
