"""
A feed of windows from a KPI file: Parquet, CSV or JSON Lines.

The file is read twice, in batches. The first pass checks all of it and finds its symbols, its
interval and its windows, so that a file with a fault anywhere is refused before its first window
is decided. The second yields the windows. A file that changes in between is refused, too.

Source: DESIGN.md section 4, KPI file.
"""

import stat
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Final, Literal

import msgspec

from domain.errors import BadInput
from domain.windows import (
    SymbolReadings,
    WindowReadings,
    check_interval,
    check_symbols,
    format_time,
)
from feeds.kpi_rows import KPI_COLUMNS, RowBatch, Source
from feeds.kpi_survey import Survey
from feeds.kpi_text import read_csv, read_jsonl


class _Format(msgspec.Struct, frozen=True):
    """How a format's rows are read, and what their numbers count."""

    read: Callable[[Path], Iterator[RowBatch]]
    unit: Literal["line", "row"]


def _read_parquet(path: Path) -> Iterator[RowBatch]:
    # Every command imports this module; only one that reads Parquet should wait for pyarrow.
    from feeds.kpi_parquet import read_parquet  # noqa: PLC0415

    return read_parquet(path)


_FORMATS: Final = {
    ".parquet": _Format(_read_parquet, "row"),
    ".csv": _Format(read_csv, "line"),
    ".jsonl": _Format(read_jsonl, "line"),
    ".ndjson": _Format(read_jsonl, "line"),
}


class _Identity(msgspec.Struct, frozen=True):
    """What of a file's status changes when somebody writes to it, or puts another in its place."""

    size_bytes: int
    modified_ns: int
    inode: int


class KpiFile(msgspec.Struct, frozen=True, kw_only=True):
    """
    A KPI file that was found to be in order: a `SeriesFeed`.

    Attributes:
        path: where it is.
        description: its name only, because the ledger keeps it: `file:standx.parquet`.
        kind: always "file".
        symbols: in order of first appearance, or as selected; one may have no row at all.
        interval_ms: as given, else the commonest step between windows.
        window_count: windows with a row of one of the symbols.
        row_count: rows in the file, of whatever symbol.
        nan_counts: by KPI, how many of the symbols' rows have NaN in it.
        warnings: what a user should know about the data, a sentence each.
        identity: what it was when it was checked.
    """

    path: Path
    description: str
    kind: Literal["file"] = "file"
    symbols: tuple[str, ...]
    interval_ms: int
    window_count: int
    row_count: int
    nan_counts: dict[str, int]
    warnings: tuple[str, ...]
    identity: _Identity

    def windows(self) -> Iterator[WindowReadings]:
        """
        Yield every window with a row of one of the symbols, starts increasing.

        Rows are read as windows are asked for; no more than a batch of them is in memory.

        Raises:
            BadInput: if the file was changed since it was opened.
        """
        self._check_unchanged()
        wanted = frozenset(self.symbols)
        rows = 0
        start_ms = -1
        found: dict[str, SymbolReadings] = {}
        for batch in _batches(self.path):
            # The rows at hand were read before this check, so that none of another file gets out.
            self._check_unchanged()
            rows += len(batch.numbers)
            for row_start_ms, symbol, readings in _readings(batch, wanted):
                if row_start_ms != start_ms:
                    if found:
                        yield WindowReadings(start_ms=start_ms, symbols=found)
                    start_ms, found = row_start_ms, {}
                found[symbol] = readings
        self._check_unchanged()
        if rows != self.row_count:
            raise BadInput(f"{self.path}: expected {self.row_count} rows as before, was {rows}")
        yield WindowReadings(start_ms=start_ms, symbols=found)

    def _check_unchanged(self) -> None:
        if _identity(self.path) != self.identity:
            raise BadInput(f"{self.path}: was changed while it was read; start again")


def open_kpi_file(
    path: str | PathLike[str],
    *,
    symbols: Sequence[str] | None = None,
    interval_ms: int | None = None,
) -> KpiFile:
    """
    Return a KPI file, all of it checked.

    Args:
        path: its suffix says the format: .parquet, .csv, .jsonl or .ndjson.
        symbols: the ones to read, in this order; None for all in order of first appearance.
            Rows of others are checked and skipped. One without a row simply has no data.
        interval_ms: None for the commonest step between consecutive windows of the symbols, the
            smaller of two as common, and 60 s for a single window.

    Raises:
        BadInput: if the file can't be read, anything in it is wrong (naming the line or row), it
            has no row of any of the symbols, or a window is not aligned to the interval.

    Source: DESIGN.md section 4, KPI file.
    """
    path = Path(path)
    if symbols is not None:
        symbols = check_symbols(symbols, source="--symbols")
    if interval_ms is not None:
        check_interval(interval_ms, source="--interval-sec")
    identity = _identity(path)
    source = Source(path, _format_of(path).unit)
    survey = Survey(source, symbols, counts_steps=interval_ms is None)
    for batch in _batches(path):
        survey.add(batch)
    survey.check_found()
    if interval_ms is None:
        interval_ms = survey.commonest_step_ms()
    if survey.divisor_ms % interval_ms:
        raise _first_unaligned(source, survey.symbols, interval_ms)
    return KpiFile(
        path=path,
        description=f"file:{path.name}",
        symbols=survey.symbols,
        interval_ms=interval_ms,
        window_count=survey.window_count,
        row_count=survey.row_count,
        nan_counts=dict(zip(KPI_COLUMNS, survey.nan_counts, strict=True)),
        warnings=survey.warnings(),
        identity=identity,
    )


def _first_unaligned(source: Source, symbols: Sequence[str], interval_ms: int) -> BadInput:
    # Which row it is costs another pass, which only a file that is refused anyway has to pay.
    for batch in _batches(source.path):
        for number, start_ms, symbol in zip(
            batch.numbers, batch.starts_ms, batch.symbols, strict=True
        ):
            if symbol in symbols and start_ms % interval_ms:
                return source.bad(
                    number,
                    f"expected a window aligned to the interval of {interval_ms / 1000:g} s, was "
                    f"{format_time(start_ms)}; give another interval with --interval-sec",
                )
    return BadInput(f"{source.path}: was changed while it was read; start again")


def _readings(batch: RowBatch, wanted: frozenset[str]) -> Iterator[tuple[int, str, SymbolReadings]]:
    kpis = zip(*batch.kpis, strict=True)
    rows = zip(batch.starts_ms, batch.symbols, kpis, batch.notional, batch.fills, strict=True)
    for start_ms, symbol, readings, notional, fills in rows:
        if symbol in wanted:
            named = zip(KPI_COLUMNS, readings, strict=True)
            present = {name: reading for name, reading in named if reading is not None}
            yield start_ms, symbol, SymbolReadings(kpis=present, notional=notional, fills=fills)


def _batches(path: Path) -> Iterator[RowBatch]:
    try:
        yield from _format_of(path).read(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _format_of(path: Path) -> _Format:
    known = _FORMATS.get(path.suffix.lower())
    if known is None:
        raise BadInput(
            f"{path}: expected a KPI file ending in {', '.join(_FORMATS)}, "
            f"was {path.suffix or 'no suffix'}"
        )
    return known


def _identity(path: Path) -> _Identity:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "neither file nor directory"
        raise BadInput(f"{path}: expected a file, was {kind}")
    if not status.st_size:
        raise BadInput(f"{path}: expected rows, was an empty file")
    return _Identity(status.st_size, status.st_mtime_ns, status.st_ino)


def _unreadable(path: Path, error: OSError | ValueError) -> BadInput:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return BadInput(f"{path}: expected a file that can be read, was: {reason or error}")
