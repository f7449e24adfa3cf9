"""
KPI files of text, CSV and JSON Lines, read in batches of rows.

Both are read as bytes first, so that a line that is too long, holds a NUL or isn't UTF-8 is named
by its number; a reader of text would fail somewhere near it.

Source: DESIGN.md section 4, KPI file.
"""

import codecs
import csv
import json
from collections.abc import Callable, Iterator
from itertools import islice
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, Final

import msgspec

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
    reading_of_json,
    reading_of_text,
    start_of,
    symbol_of,
)

LINE_BYTES_MAX: Final = 1 << 20

_NumberedRow = tuple[int, tuple[Any, ...]]
"""A row's line, and its cells in the order of `COLUMNS`."""

# Made from the columns, so that a KPI is added in domain.kpis and nowhere else. Decoding into it
# skips every other key without making objects of them.
_JsonRow: Final = msgspec.defstruct("_JsonRow", [(name, Any, None) for name in COLUMNS])
_decode_row: Final = msgspec.json.Decoder(_JsonRow).decode
_cells_of: Final[Callable[[Any], tuple[Any, ...]]] = attrgetter(*COLUMNS)


def read_csv(path: Path) -> Iterator[RowBatch]:
    """
    Yield the rows of a CSV file with a header, in batches; a row is known by its last line.

    Raises:
        BadInput: naming the file and the line or the column.
        OSError: if the file can't be read.
    """
    source = Source(path, "line")
    return _batches(source, _csv_rows(source), reading_of_text)


def read_jsonl(path: Path) -> Iterator[RowBatch]:
    """
    Yield the rows of a file with a JSON object per line, in batches.

    Raises:
        BadInput: naming the file and the line.
        OSError: if the file can't be read.
    """
    source = Source(path, "line")
    return _batches(source, _json_rows(source), reading_of_json)


def _batches(
    source: Source, rows: Iterator[_NumberedRow], reading_of: Callable[[Any], Reading | None]
) -> Iterator[RowBatch]:
    parsers: tuple[Callable[[Any], Any], ...] = (
        start_of,
        symbol_of,
        *(reading_of for _ in KPI_COLUMNS),
        lambda cell: notional_of(reading_of(cell)),
        lambda cell: fills_of(reading_of(cell)),
    )
    while some := list(islice(rows, BATCH_ROWS)):
        numbers = [number for number, _ in some]
        columns = zip(*(cells for _, cells in some), strict=True)
        starts_ms, symbols, *kpis, notional, fills = (
            source.convert(name, cells, numbers, parse)
            for name, cells, parse in zip(COLUMNS, columns, parsers, strict=True)
        )
        yield RowBatch(
            numbers=numbers,
            starts_ms=starts_ms,
            symbols=symbols,
            kpis=tuple(kpis),
            notional=notional,
            fills=fills,
        )


def _csv_rows(source: Source) -> Iterator[_NumberedRow]:
    # A row with quoted line breaks ends on a later line than it starts; line_num is its last.
    reader = csv.reader((text for _, text in _lines(source)), strict=True)
    try:
        header = next(reader, [])
        if not header:
            raise BadInput(f"{source.path}: expected a header and rows, was nothing")
        check_columns(source.path, header)
        # An optional column that isn't there is read from an empty cell put after the last.
        where = [header.index(name) if name in header else len(header) for name in COLUMNS]
        cells_of = itemgetter(*where)
        blank = 0
        for row in reader:
            if not row:
                blank = blank or reader.line_num
                continue
            if blank or len(row) != len(header):
                number, width = (blank, 0) if blank else (reader.line_num, len(row))
                raise source.bad(number, f"expected {len(header)} fields, was {width}")
            row.append("")
            yield reader.line_num, cells_of(row)
    except csv.Error as error:
        raise source.bad(reader.line_num, f"expected CSV, was broken: {error}") from error


def _json_rows(source: Source) -> Iterator[_NumberedRow]:
    blank = 0
    for number, text in _lines(source):
        if not text.strip():
            blank = blank or number
            continue
        if blank:
            raise source.bad(blank, "expected a JSON object, was a blank line")
        try:
            row = _decode_row(text)
        except (msgspec.DecodeError, RecursionError):
            yield number, _lenient_cells(source, number, text)
        else:
            yield number, _cells_of(row)


def _lenient_cells(source: Source, number: int, text: str) -> tuple[Any, ...]:
    # Python's json writes NaN, Infinity and -Infinity, which are no JSON and which msgspec
    # refuses, as it does 1e400. Taken as what they mean they become defects, which the core
    # judges; refusing the file would hide the rest of it.
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise source.bad(number, f"expected a JSON object, was broken: {error}") from error
    if not isinstance(row, dict):
        raise source.bad(number, f"expected a JSON object, was {type(row).__name__}")
    return tuple(map(row.get, COLUMNS))


def _lines(source: Source) -> Iterator[tuple[int, str]]:
    with source.path.open("rb") as file:
        number = 0
        while line := file.readline(LINE_BYTES_MAX + 1):
            number += 1
            if len(line) > LINE_BYTES_MAX:
                raise source.bad(number, f"expected at most {LINE_BYTES_MAX} bytes, was more")
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if b"\0" in line:
                raise source.bad(number, "expected text, was a NUL byte")
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise source.bad(number, f"expected UTF-8, was {error.reason}") from error
            yield number, text
