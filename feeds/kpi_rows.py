"""
The rows of a KPI file, whatever its format: their columns, and what a cell may hold.

The readers convert a batch of rows column by column, which costs a fraction of going cell by cell.
A function that converts a cell raises ValueError with what it expected; `convert` adds the place.

Source: DESIGN.md section 4, KPI file.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from domain.errors import BadInput
from domain.kpis import KPIS, Defect, Reading
from domain.windows import parse_time

KPI_COLUMNS: Final = tuple(kpi.name for kpi in KPIS)
REQUIRED_COLUMNS: Final = ("window_start", "symbol", *KPI_COLUMNS)
COLUMNS: Final = (*REQUIRED_COLUMNS, "notional", "fills")

BATCH_ROWS: Final = 4096
START_MS_MAX: Final = 253_370_764_799_999
"""The end of 9998: what is counted from a window, such as its end, can then still be shown."""
FILLS_END: Final = 2**53
"""Below this every whole number is one in every format; above it a float skips some."""

_SHOWN_MAX: Final = 60

Cell = TypeVar("Cell")
Value = TypeVar("Value")


class RowBatch(msgspec.Struct, frozen=True):
    """
    Some rows of a file, one after the other, as columns of equal length.

    Attributes:
        numbers: where each row is: its line in a text file, its data row in Parquet, from 1.
        starts_ms: each row's window.
        symbols: each row's symbol, not checked yet.
        kpis: a column per KPI in the order of `KPIS`; None is absent.
        notional: quote currency, finite and at least 0; None is not known.
        fills: at least 0; None is not known.
    """

    numbers: Sequence[int]
    starts_ms: Sequence[int]
    symbols: Sequence[str]
    kpis: tuple[Sequence[Reading | None], ...]
    notional: Sequence[float | None]
    fills: Sequence[int | None]


class Source(msgspec.Struct, frozen=True):
    """
    A file and the unit its rows are counted in, to name a place in messages.

    Attributes:
        path: as the user gave it.
        unit: what the number of a row counts.
    """

    path: Path
    unit: Literal["line", "row"]

    def place(self, number: int) -> str:
        """Return how messages name a row: `x.csv line 7`."""
        return f"{self.path} {self.unit} {number}"

    def bad(self, number: int, problem: str) -> BadInput:
        """Return the error about one row, to be raised."""
        return BadInput(f"{self.place(number)}: {problem}")

    def convert(
        self,
        column: str,
        cells: Iterable[Cell],
        numbers: Sequence[int],
        parse: Callable[[Cell], Value],
    ) -> list[Value]:
        """
        Return a column's cells, each through `parse`.

        Raises:
            BadInput: naming the place, the column and the first cell that `parse` refused.
        """
        cells = list(cells)
        values: list[Value] = []
        try:
            # What was converted up to a refusal stays in the list, and so its length is the place.
            values.extend(map(parse, cells))
        except ValueError as error:
            at = len(values)
            problem = f"expected {error} for {column}, was {shown(cells[at])}"
            raise self.bad(numbers[at], problem) from error
        return values


def check_columns(path: Path, names: Sequence[str]) -> None:
    """
    Check that every required column is there, and none twice.

    Raises:
        BadInput: naming the file and the column.
    """
    for name in REQUIRED_COLUMNS:
        if name not in names:
            raise BadInput(f"{path}: expected a column {name}, was {', '.join(names)[:500]}")
    for name, times in Counter(names).items():
        if times > 1:
            raise BadInput(f"{path}: column {name!r} is there twice; name each column once")


def shown(cell: object) -> str:
    """Return a cell as messages show it: quoted if it is text, and never long."""
    if cell is None or cell == "":
        return "nothing"
    text = repr(cell)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."


def start_of(cell: Any) -> int:
    """
    Return the milliseconds of a window's start written as ISO text.

    Raises:
        ValueError: if it isn't text, not a time, or a time that no window can have.
    """
    if not isinstance(cell, str):
        raise ValueError("a time such as 2026-01-05T14:00:00Z")
    return _start_of_text(cell)


# The rows of a window follow one another, so one remembered text spares most of the parsing.
@lru_cache(maxsize=1)
def _start_of_text(text: str) -> int:
    try:
        start_ms = parse_time(text)
    except (ValueError, OverflowError):
        raise ValueError("a time such as 2026-01-05T14:00:00Z") from None
    return start_in_range(start_ms)


def start_in_range(start_ms: int) -> int:
    """
    Return the start.

    Raises:
        ValueError: if it is before 1970 or after the year 9998.
    """
    if not 0 <= start_ms <= START_MS_MAX:
        raise ValueError("a time from 1970 to 9998")
    return start_ms


def symbol_of(cell: Any) -> str:
    """
    Return the symbol, which may still be malformed.

    Raises:
        ValueError: if it isn't text, or empty.
    """
    if not isinstance(cell, str) or not cell:
        raise ValueError("a symbol")
    return cell


def reading_of_float(value: float | None) -> Reading | None:
    """Return the number, or its defect if it is NaN or infinite; None stays None."""
    if value is None or math.isfinite(value):
        return value
    return Defect.NAN if math.isnan(value) else Defect.INFINITE


def reading_of_text(text: str) -> Reading | None:
    """
    Return the reading of a CSV cell: None if it is empty, a defect if it spells NaN or infinity.

    Raises:
        ValueError: if it is no number.
    """
    if not text:
        return None
    # Python reads 1_000 and other scripts' digits as numbers; the tools that write CSV don't.
    if "_" in text or not text.isascii():
        raise ValueError("a number")
    try:
        return reading_of_float(float(text))
    except ValueError:
        raise ValueError("a number") from None


def reading_of_json(value: Any) -> Reading | None:
    """
    Return the reading of a JSON value: None if it is null or empty text, else as for a CSV cell.

    Text is taken for NaN and infinity only, because JSON has no other way to say them; a number in
    quotes is a mistake.

    Raises:
        ValueError: if it is no number; true and false are none.
    """
    if isinstance(value, float) or value is None:
        return reading_of_float(value)
    if isinstance(value, bool):
        raise ValueError("a number")
    if isinstance(value, int):
        try:
            return float(value)
        except OverflowError:
            return Defect.INFINITE
    if isinstance(value, str):
        reading = reading_of_text(value)
        if not isinstance(reading, float):
            return reading
    raise ValueError("a number")


def notional_of(reading: Reading | None) -> float | None:
    """
    Return the notional; None stays None.

    Raises:
        ValueError: if it isn't finite, or below 0.
    """
    if reading is None:
        return None
    if isinstance(reading, Defect) or reading < 0:
        raise ValueError("a finite number of at least 0")
    return reading


def fills_of(reading: Reading | None) -> int | None:
    """
    Return the number of fills; None stays None.

    A whole number may be written as 12.0: that is how a column with empty cells is often stored.

    Raises:
        ValueError: if it isn't a whole number, below 0 or too large to be exact.
    """
    if reading is None:
        return None
    if isinstance(reading, Defect) or not 0 <= reading < FILLS_END or not reading.is_integer():
        raise ValueError("a whole number of at least 0")
    return int(reading)
