"""
Preparing a series: windows of a feed, or the events of a ledger, into columns.

Rows that come as Python objects are taken one by one; what is in columns already goes through
`series_of_columns`, without a loop over rows.
"""

from array import array
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from domain.commands import AdoptPolicy, Command, ObserveWindow, PassWindows, StartRun
from domain.errors import BadInput, CannotTell
from domain.events import Event, RampProfile
from domain.kernel.series import (
    FILLS_UNKNOWN,
    Flags,
    Floats,
    Integers,
    Intervention,
    Series,
    SymbolColumns,
    columns_of,
    make_series,
)
from domain.kpis import KPIS, Defect
from domain.windows import NOTHING, SymbolReadings, WindowReadings
from replay.commands import commands_of_events

_KPI_NAMES: Final = tuple(kpi.name for kpi in KPIS)


def series_of_windows(
    windows: Iterable[WindowReadings],
    *,
    symbols: Sequence[str],
    interval_ms: int,
    limit: int | None = None,
    source: str = "the series",
) -> Series:
    """
    Return the windows of a feed as a series.

    Args:
        windows: starts increasing; those between two of them are missing.
        symbols: in configured order; readings of others are left out.
        interval_ms: a window's length.
        limit: how many of the symbols, from the first on, may trade; None for all.
        source: named in errors.

    Raises:
        BadInput: see `make_series`.
    """
    builder = _Builder(symbols)
    for readings in windows:
        builder.add(readings)
    return builder.series(interval_ms, source, limit=limit)


def series_of_events(
    events: Iterable[Event],
    *,
    symbols: tuple[str, ...] | None = None,
    profile: RampProfile | None = None,
    source: str = "the ledger",
) -> Series:
    """
    Return a recorded stream as a series, with what was told to it between windows.

    Args:
        events: of one stream, from its beginning.
        symbols: only these, in this order; None for the recorded ones.
        profile: the limits to apply; None for none, whatever was recorded.
        source: named in errors.

    Raises:
        CannotTell: if nothing was observed.
    """
    told: list[tuple[int | None, Command]] = []
    windows: list[WindowReadings] = []
    accounted_ms: int | None = None
    interval_ms = 0
    for command in commands_of_events(events, policy=None, symbols=symbols, profile=profile):
        match command:
            case ObserveWindow():
                windows.append(command.readings)
                accounted_ms = command.readings.start_ms + interval_ms
            case PassWindows():
                if accounted_ms is not None:
                    accounted_ms = max(accounted_ms, command.until)
            case _:
                told.append((accounted_ms, command))
                if isinstance(command, StartRun):
                    interval_ms = interval_ms or command.interval_ms
    if not windows or accounted_ms is None:
        raise CannotTell(f"{source}: expected windows, was none")
    first_ms = windows[0].start_ms
    builder = _Builder(_adopted_symbols(command for _, command in told))
    for readings in windows:
        builder.add(readings)
    interventions = [
        Intervention(0 if at is None else (at - first_ms) // interval_ms, command)
        for at, command in told
    ]
    limit = None if profile is None else profile.max_symbols
    return builder.series(interval_ms, source, accounted_ms, interventions, limit)


def series_of_columns(
    starts_ms: Integers,
    symbol_numbers: Integers,
    kpis: Sequence[tuple[Floats, Flags]],
    *,
    symbols: Sequence[str],
    interval_ms: int,
    notional: Floats | None = None,
    fills: Integers | None = None,
    limit: int | None = None,
    source: str = "the series",
) -> Series:
    """
    Return rows that are in columns, one a window and symbol, as a series.

    Args:
        starts_ms: shape (n,), each row's window; in any order.
        symbol_numbers: shape (n,), each row's symbol as an index into `symbols`; others are
            left out.
        kpis: by KPI in `KPIS`' order, values and where they are absent, shape (n,) each. What is
            neither absent nor a finite number of the KPI's domain is malformed.
        symbols: in configured order.
        interval_ms: a window's length.
        notional, fills: shape (n,); NaN or `FILLS_UNKNOWN` where unknown; None for nowhere known.
        limit: how many of the symbols, from the first on, may trade; None for all.
        source: named in errors.

    Raises:
        BadInput: if a window and symbol is there twice; see `make_series`.
    """
    index, places = np.unique(starts_ms, return_inverse=True)
    columns = []
    for number in range(len(symbols)):
        mine = np.flatnonzero(symbol_numbers == number)
        at = places[mine]
        if len(np.unique(at)) < len(at):
            raise BadInput(f"{source}: expected each window of {symbols[number]} once, was twice")
        values = np.zeros((len(KPIS), len(index)))
        absent = np.ones((len(KPIS), len(index)), np.bool_)
        for position, (column, missing) in enumerate(kpis):
            values[position, at] = column[mine]
            absent[position, at] = missing[mine]
        traded = np.full(len(index), np.nan)
        filled = np.full(len(index), FILLS_UNKNOWN, np.int64)
        if notional is not None:
            traded[at] = notional[mine]
        if fills is not None:
            filled[at] = fills[mine]
        columns.append(columns_of(values, absent, traded, filled))
    return make_series(
        symbols,
        interval_ms=interval_ms,
        starts_ms=index,
        columns=columns,
        limit=limit,
        source=source,
    )


class _Builder:
    """Rows taken one by one; an array of doubles holds each where a list would need objects."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self._symbols = tuple(symbols)
        self.starts_ms = array("q")
        self._values = [array("d") for _ in symbols]
        self._absent = [bytearray() for _ in symbols]
        self._notional = [array("d") for _ in symbols]
        self._fills = [array("q") for _ in symbols]

    def add(self, readings: WindowReadings) -> None:
        self.starts_ms.append(readings.start_ms)
        for number, symbol in enumerate(self._symbols):
            self._add_symbol(number, readings.symbols.get(symbol, NOTHING))

    def series(
        self,
        interval_ms: int,
        source: str,
        end_ms: int | None = None,
        interventions: Sequence[Intervention] = (),
        limit: int | None = None,
    ) -> Series:
        return make_series(
            self._symbols,
            interval_ms=interval_ms,
            starts_ms=np.array(self.starts_ms, np.int64),
            columns=[self._columns(number) for number in range(len(self._symbols))],
            end_ms=end_ms,
            interventions=interventions,
            limit=limit,
            source=source,
        )

    def _add_symbol(self, number: int, got: SymbolReadings) -> None:
        values, absent = self._values[number], self._absent[number]
        for name in _KPI_NAMES:
            reading = got.kpis.get(name)
            absent.append(reading is None)
            is_number = reading is not None and not isinstance(reading, Defect)
            values.append(float(reading) if is_number else np.nan)  # type: ignore[arg-type]
        self._notional[number].append(np.nan if got.notional is None else got.notional)
        self._fills[number].append(FILLS_UNKNOWN if got.fills is None else got.fills)

    def _columns(self, number: int) -> SymbolColumns:
        shape = (len(self.starts_ms), len(_KPI_NAMES))
        values = np.array(self._values[number]).reshape(shape)
        absent = np.frombuffer(bytes(self._absent[number]), np.bool_).reshape(shape)
        return columns_of(
            np.ascontiguousarray(values.T),
            np.ascontiguousarray(absent.T),
            np.array(self._notional[number]),
            np.array(self._fills[number], np.int64),
        )


def _adopted_symbols(commands: Iterable[Command]) -> tuple[str, ...]:
    """Return every symbol that was ever adopted, in the order of the first adoption."""
    names: dict[str, None] = {}
    for command in commands:
        if isinstance(command, AdoptPolicy):
            names.update(dict.fromkeys(command.symbols))
    return tuple(names)
