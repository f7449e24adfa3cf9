"""
Evidence: which windows a threshold breaches, and where there is no data, for all policies at once.

Over the symbols that may trade only the worst value of a window counts, so breaches come from one
list a KPI: windows in order of severity. A threshold's breaches are the head of that list, however
many thresholds there are. NO_DATA is rare and kept cell by cell: its count, whether it is CRIT and
whether a waiver could excuse it. Source: DESIGN.md section 1, No data is never OK.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

from domain.kernel.bitmaps import Kept, Timeline
from domain.kernel.series import ABSENT, VALID, Flags, Floats, Integers, Series, SymbolColumns
from domain.kpis import KPIS, Kpi
from domain.policy import Policy

_severities: "WeakKeyDictionary[Series, dict[object, tuple[Floats, ...]]]" = WeakKeyDictionary()
"""The worst of each window, kept as long as the series is: the dearest part of a small sweep."""


class Ranked(msgspec.Struct, frozen=True, eq=False):
    """
    Windows that the tightest threshold breaches, the severest first.

    Attributes:
        bits: where they lie.
        descending: their severities, negated, so that they ascend.
    """

    bits: Integers
    descending: Floats

    def counts(self, kpi: Kpi, thresholds: Floats) -> Integers:
        """Return how many of the windows, from the first on, each threshold breaches."""
        found: Integers = np.searchsorted(self.descending, -severity(kpi, thresholds), side="left")
        return found

    def at(self, bits: Integers) -> "Ranked":
        """Return the same windows with other places."""
        return Ranked(bits, self.descending)


class NoDataCells(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """
    One KPI's cells without data, of every symbol that may trade, in order of symbol and window.

    Attributes:
        bits: where they lie.
        symbol: each cell's symbol.
        absent: whether nothing arrived; else something malformed did.
        required: whether a policy of the frame requires the KPI.
        waived: whether the frame waives it for a halted symbol.
        count: consecutive NO_DATA windows if absence counts.
        count_malformed: the same if it doesn't; 0 for an absent cell.
        last_severity: of the last valid value before; what it breached makes absence count.
    """

    bits: Integers
    symbol: Integers
    absent: Flags
    required: bool
    waived: bool
    count: Integers
    count_malformed: Integers
    last_severity: Floats

    def variants(self, kpi: Kpi, thresholds: Floats) -> Integers:
        """Return a number for each threshold, alike where they make the same of every cell."""
        if self.required or not len(self.bits):
            return np.zeros(len(thresholds), np.int64)
        known = np.unique(self.last_severity[self.absent])
        found: Integers = np.searchsorted(known, severity(kpi, thresholds), side="right")
        return found

    def judged(self, kpi: Kpi, threshold: float) -> tuple[Integers, Flags]:
        """
        Return each cell's count under a threshold, 0 where it has no verdict, and which of them a
        waiver excuses once the symbol is halted.
        """
        counts = self.last_severity > severity(kpi, np.array(threshold))
        if self.required:
            counts = np.ones(len(self.bits), np.bool_)
        count = np.where(counts, self.count, self.count_malformed)
        return count, counts & self.absent & self.waived

    def chosen(self, mask: Flags, bits: Integers) -> "NoDataCells":
        """Return the cells of a mask, with other places."""
        return NoDataCells(
            bits=bits,
            symbol=self.symbol[mask],
            absent=self.absent[mask],
            required=self.required,
            waived=self.waived,
            count=self.count[mask],
            count_malformed=self.count_malformed[mask],
            last_severity=self.last_severity[mask],
        )


def severity(kpi: Kpi, values: Floats) -> Floats:
    """Return how bad values are: strictly more than the threshold's is a breach."""
    return -values if kpi.breached_when == "<" else values


def worst_severities(series: Series, frame: Policy, symbols: Iterable[int]) -> tuple[Floats, ...]:
    """
    Return by KPI how bad the symbols' worst value is in each observed window, shape (rows,) each.

    A symbol with a threshold of its own is infinitely bad where it breaches that, and never else.
    """
    numbers = tuple(symbols)
    own = {number: frame.symbols.get(series.symbols[number], {}) for number in numbers}
    key = numbers, tuple((number, tuple(own[number].items())) for number in numbers)
    known = _severities.setdefault(series, {})
    if key not in known:
        worst = tuple(np.full(series.rows, -np.inf) for _ in KPIS)
        for number in numbers:
            columns = series.columns[number]
            for at, kpi in enumerate(KPIS):
                bad = severity(kpi, columns.values[at])
                if kpi.policy_key in own[number]:
                    limit = severity(kpi, np.array(own[number][kpi.policy_key]))
                    bad = np.where(bad > limit, np.inf, -np.inf)
                if len(columns.not_valid[at]):
                    bad = np.where(columns.codes[at] == VALID, bad, -np.inf)
                np.maximum(worst[at], bad, out=worst[at])
        known[key] = worst
    return known[key]


def rank(kpi: Kpi, worst: Floats, thresholds: Floats, timeline: Timeline) -> Ranked:
    """Return the windows that the tightest of the thresholds breaches, the severest first."""
    tightest = severity(kpi, thresholds).min()
    rows = np.flatnonzero(worst > tightest)
    descending = -worst[rows]
    order = np.argsort(descending, kind="stable")
    return Ranked(timeline.rows[rows[order]], descending[order])


def no_data_cells(
    series: Series, frame: Policy, symbols: Iterable[int], timeline: Timeline
) -> list[NoDataCells]:
    """Return each KPI's cells without data, missing windows included."""
    required = [kpi.name in frame.required_kpis for kpi in KPIS]
    parts: list[list[tuple[Any, ...]]] = [[] for _ in KPIS]
    for symbol in symbols:
        columns = series.columns[symbol]
        own = frame.symbols.get(series.symbols[symbol], {})
        for at in range(len(KPIS)):
            cells = _symbol_cells(columns, own, at, symbol, timeline, required[at])
            parts[at].append(cells)
    made = []
    for at, kpi in enumerate(KPIS):
        bits, symbol_of, absent, count, count_malformed, last_severity = (
            np.concatenate(columns) for columns in zip(*parts[at], strict=True)
        )
        made.append(
            NoDataCells(
                bits=bits,
                symbol=symbol_of,
                absent=absent,
                required=required[at],
                waived=kpi.name in frame.waived_when_halted,
                count=count,
                count_malformed=count_malformed,
                last_severity=last_severity,
            )
        )
    return made


def _symbol_cells(
    columns: SymbolColumns,
    own: Mapping[str, float],
    at: int,
    symbol: int,
    timeline: Timeline,
    required: bool,
) -> tuple[Integers, Integers, Flags, Integers, Integers, Floats]:
    """Return one symbol's cells: bits, symbol, absent, both counts, last severity."""
    kpi = KPIS[at]
    codes = columns.codes[at]
    rows = columns.not_valid[at]
    bits = np.concatenate([timeline.rows[rows], timeline.missing])
    absent = np.concatenate([codes[rows] == ABSENT, np.ones(len(timeline.missing), np.bool_)])
    if len(timeline.missing):
        order = np.argsort(bits, kind="stable")
        bits, absent = bits[order], absent[order]
    numbers = np.arange(len(bits))
    begins = np.ones(len(bits), np.bool_)
    begins[1:] = np.diff(bits) != 1
    count = numbers - np.maximum.accumulate(np.where(begins, numbers, 0)) + 1
    # Malformed windows in a row, of a run in which absence doesn't count.
    fresh = begins | absent
    fresh[1:] |= absent[:-1]
    malformed = numbers - np.maximum.accumulate(np.where(fresh, numbers, 0)) + 1
    malformed = np.where(absent, 0, malformed)
    before = bits - count
    row = np.searchsorted(timeline.rows, before)
    known = before >= 0
    last = np.full(len(bits), -np.inf)
    last[known] = severity(kpi, columns.values[at, row[known]])
    if kpi.policy_key in own:
        breached = last > severity(kpi, np.array(own[kpi.policy_key]))
        last = np.where(breached, np.inf, -np.inf)
    if not required:
        # What nothing can make count needn't be looked at again.
        counts = ~absent | (last > -np.inf)
        bits, absent, count = bits[counts], absent[counts], count[counts]
        malformed, last = malformed[counts], last[counts]
    return bits, np.full(len(bits), symbol), absent, count, malformed, last


def kept_cells(cells: NoDataCells, kept: Kept) -> NoDataCells:
    """Return the cells that lie in kept words, with their places there."""
    held = kept.holds(cells.bits)
    return cells.chosen(held, kept.positions(cells.bits[held]))
