"""
A series of windows in columns: what the array twin of the core decides.

A series holds the observed windows only, each with its true index, so that a gap of years costs
nothing; a missing window is one without data, as in the core. It is immutable, and says nothing of
a policy: the same one is decided by any number of them.
Source: DESIGN.md section 1, No data is never OK and Gaps.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from domain.commands import AdoptPolicy, Command, StartRun
from domain.errors import BadInput
from domain.events import TradingState
from domain.kpis import KPIS
from domain.windows import format_time

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]
Codes: TypeAlias = npt.NDArray[np.uint8]
Flags: TypeAlias = npt.NDArray[np.bool_]
Array = TypeVar("Array", bound="npt.NDArray[Any]")

VALID: Final = 0
ABSENT: Final = 1
MALFORMED: Final = 2
"""What a cell is, before any policy: a number of the KPI's domain, nothing, or no such number."""

WINDOWS_MAX: Final = 1 << 27
"""255 years of minutes; a series that spans more has a mistaken time in it."""

FILLS_UNKNOWN: Final = -1


class SymbolColumns(msgspec.Struct, frozen=True, eq=False):
    """
    One symbol's readings.

    Attributes:
        values: shape (KPIs, rows), float64, in the KPIs' units; 0.0 where there is no valid value.
        codes: shape (KPIs, rows), `VALID`, `ABSENT` or `MALFORMED`.
        notional: shape (rows,), traded in the window, quote currency; NaN where unknown.
        fills: shape (rows,), int64; `FILLS_UNKNOWN` where unknown.
        not_valid: by KPI, the rows without a valid value, ascending.
    """

    values: Floats
    codes: Codes
    notional: Floats
    fills: Integers
    not_valid: tuple[Integers, ...]


class Intervention(msgspec.Struct, frozen=True):
    """
    A recorded command that is no window: an override, other symbols, a clock fault.

    `at` is how many windows were accounted for when it came, missing ones included.
    """

    at: int
    command: Command


class Series(msgspec.Struct, frozen=True, kw_only=True, eq=False, weakref=True):
    """
    The windows of one stream.

    Attributes:
        symbols: in configured order.
        interval_ms: a window's length.
        start_ms: the start of window 0, which is observed.
        windows: how many from the first to the last, missing ones included.
        index: shape (rows,), the observed windows' true numbers, increasing from 0.
        columns: by symbol. Any sequence, so that one may read a symbol when it is asked for: the
            kernel takes one at a time, and ten years of fifty symbols are 10 GB of float64.
        limit: how many of the symbols, from the first on, may trade.
        interventions: what a recorded ledger was told, in order; empty for a mere series.
    """

    symbols: tuple[str, ...]
    interval_ms: int
    start_ms: int
    windows: int
    index: Integers
    columns: Sequence[SymbolColumns]
    limit: int
    interventions: tuple[Intervention, ...] = ()

    @property
    def rows(self) -> int:
        """How many windows were observed."""
        return len(self.index)

    @property
    def is_plain(self) -> bool:
        """
        Whether it is windows and nothing else, once a policy is chosen: what was recorded is runs
        that began and adopted one set of symbols.
        """
        adopted = set()
        for intervention in self.interventions:
            match intervention.command:
                case StartRun(published=TradingState.ACTIVE):
                    pass
                case AdoptPolicy(symbols=symbols, profile=profile):
                    adopted.add((symbols, profile))
                case _:
                    return False
        return len(adopted) <= 1

    def start_of(self, window: int) -> int:
        """Return when the window of this number starts, ms."""
        return self.start_ms + window * self.interval_ms


def columns_of(values: Floats, absent: Flags, notional: Floats, fills: Integers) -> SymbolColumns:
    """
    Return one symbol's columns, every cell judged for what it is as the core does.

    Args:
        values: shape (KPIs, rows); NaN or an infinity for a reading that is no number.
        absent: shape (KPIs, rows); where it is true the value says nothing.
        notional, fills: shape (rows,), as in `SymbolColumns`.

    Source: DESIGN.md section 1, No data is never OK, rule 1.
    """
    codes = np.empty(values.shape, np.uint8)
    kept = np.empty(values.shape, np.float64)
    for position, kpi in enumerate(KPIS):
        column = values[position]
        valid = np.isfinite(column) & (column >= kpi.lowest) & (column <= kpi.highest)
        valid &= ~absent[position]
        codes[position] = np.where(valid, VALID, np.where(absent[position], ABSENT, MALFORMED))
        kept[position] = np.where(valid, column, 0.0)
    return SymbolColumns(
        frozen(kept),
        frozen(codes),
        frozen(np.where(np.isfinite(notional), notional, np.nan)),
        frozen(np.ascontiguousarray(fills, np.int64)),
        tuple(frozen(np.flatnonzero(codes[position])) for position in range(len(KPIS))),
    )


def make_series(
    symbols: Sequence[str],
    *,
    interval_ms: int,
    starts_ms: Integers,
    columns: Sequence[SymbolColumns],
    end_ms: int | None = None,
    limit: int | None = None,
    interventions: Sequence[Intervention] = (),
    source: str = "the series",
) -> Series:
    """
    Return a series of the windows that start then.

    Args:
        symbols: in configured order.
        interval_ms: a window's length.
        starts_ms: shape (rows,), of the observed windows.
        columns: by symbol, each of as many rows.
        end_ms: the end of what is accounted for, where missing windows follow the last observed.
        limit: how many of the symbols, from the first on, may trade; None for all.
        interventions: see `Series`.
        source: named in errors.

    Raises:
        BadInput: if there is no window, or they don't increase, aren't aligned or span too much.
    """
    starts = np.ascontiguousarray(starts_ms, np.int64)
    if not len(starts):
        raise BadInput(f"{source}: expected windows, was none")
    offsets = starts - starts[0]
    backwards = np.flatnonzero(np.diff(starts) <= 0)
    if len(backwards):
        at = format_time(int(starts[backwards[0] + 1]))
        raise BadInput(f"{source}: expected windows in order, each once, was {at} again or late")
    unaligned = np.flatnonzero(starts % interval_ms)
    if len(unaligned):
        at = format_time(int(starts[unaligned[0]]))
        raise BadInput(f"{source}: expected windows aligned to {interval_ms / 1000:g} s, was {at}")
    index = offsets // interval_ms
    windows = int(index[-1]) + 1
    if end_ms is not None:
        windows = max(windows, (end_ms - int(starts[0])) // interval_ms)
    if windows > WINDOWS_MAX:
        raise BadInput(f"{source}: expected at most {WINDOWS_MAX} windows, was {windows}")
    return Series(
        symbols=tuple(symbols),
        interval_ms=interval_ms,
        start_ms=int(starts[0]),
        windows=windows,
        index=frozen(index),
        columns=columns,
        limit=len(symbols) if limit is None else min(limit, len(symbols)),
        interventions=tuple(interventions),
    )


def frozen(array: Array) -> Array:
    """Return the array, never to be written again."""
    array.flags.writeable = False
    return array
