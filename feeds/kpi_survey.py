"""
The first pass over a KPI file: is it in order, and what does it hold?

Source: DESIGN.md section 4, KPI file.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from domain.errors import BadInput
from domain.kpis import Defect
from domain.windows import SYMBOLS_MAX, check_interval, check_symbols, format_time
from feeds.kpi_rows import KPI_COLUMNS, RowBatch, Source

INTERVAL_OF_ONE_WINDOW_MS: Final = 60_000
STEPS_MAX: Final = 10_000
"""How many different steps between windows are counted before the file is refused."""


class Survey:
    """
    What the first pass finds out, batch by batch, in memory that doesn't grow with the file.

    Attributes:
        row_count: all rows.
        window_count: windows with a row of a wanted symbol; so for what follows.
        divisor_ms: the greatest common divisor of the windows' starts. They are all aligned to an
            interval if it divides this, which is known only when all of them were seen.
        nan_counts: rows with NaN, in the order of `KPI_COLUMNS`.
    """

    def __init__(
        self, source: Source, symbols: Sequence[str] | None, *, counts_steps: bool
    ) -> None:
        self.row_count = 0
        self.window_count = 0
        self.divisor_ms = 0
        self.nan_counts = [0] * len(KPI_COLUMNS)
        self._source = source
        self._selected = None if symbols is None else dict.fromkeys(symbols)
        self._counts_steps = counts_steps
        self._symbols: dict[str, None] = {}
        self._wanted_rows = 0
        self._steps_ms: Counter[int] = Counter()
        self._start_ms = -1
        self._in_window: set[str] = set()
        self._wanted_start_ms = -1

    @property
    def symbols(self) -> tuple[str, ...]:
        """The selected symbols, else all that were met so far."""
        return tuple(self._symbols if self._selected is None else self._selected)

    def add(self, batch: RowBatch) -> None:
        """
        Check the rows' order and symbols, and count what is to be counted.

        Raises:
            BadInput: naming the row that goes backwards, repeats another, has a malformed symbol
                or is of one symbol or one step too many.
        """
        self.row_count += len(batch.numbers)
        for number, start_ms, symbol in zip(
            batch.numbers, batch.starts_ms, batch.symbols, strict=True
        ):
            if start_ms != self._start_ms:
                self._enter_window(number, start_ms)
            elif symbol in self._in_window:
                problem = f"{symbol} in window {format_time(start_ms)} is there twice"
                raise self._source.bad(number, problem)
            self._in_window.add(symbol)
            if symbol not in self._symbols:
                self._meet(number, symbol)
            if start_ms != self._wanted_start_ms and self._wants(symbol):
                self._count_window(number, start_ms)
        wanted = [self._wants(symbol) for symbol in batch.symbols]
        self._wanted_rows += sum(wanted)
        for index, column in enumerate(batch.kpis):
            self.nan_counts[index] += sum(
                reading is Defect.NAN and is_wanted
                for reading, is_wanted in zip(column, wanted, strict=True)
            )

    def check_found(self) -> None:
        """
        Check that there is something to yield.

        Raises:
            BadInput: if there is no row, or none of a selected symbol.
        """
        if not self.row_count:
            raise BadInput(f"{self._source.path}: expected rows, was none")
        if not self._wanted_rows:
            asked, there = ", ".join(self.symbols), ", ".join(list(self._symbols)[:20])
            raise BadInput(f"{self._source.path}: expected one of {asked}, was {there}")

    def commonest_step_ms(self) -> int:
        """
        Return the commonest step between windows, the smaller of two as common.

        Raises:
            BadInput: if it is longer than an interval can be.
        """
        if not self._steps_ms:
            return INTERVAL_OF_ONE_WINDOW_MS
        step_ms = min(self._steps_ms, key=lambda step: (-self._steps_ms[step], step))
        source = f"{self._source.path}: the commonest step between windows (see --interval-sec)"
        return check_interval(step_ms, source=source)

    def warnings(self) -> tuple[str, ...]:
        """Return a sentence about every KPI that is NaN in more than half of the rows."""
        return tuple(
            f"{self._source.path}: column {name} is mostly NaN ({count} of {self._wanted_rows} "
            "rows): NaN is malformed, not absent; leave the cell empty for no value"
            for name, count in zip(KPI_COLUMNS, self.nan_counts, strict=True)
            if 2 * count > self._wanted_rows
        )

    def _wants(self, symbol: str) -> bool:
        return self._selected is None or symbol in self._selected

    def _enter_window(self, number: int, start_ms: int) -> None:
        if start_ms < self._start_ms:
            raise self._source.bad(
                number,
                f"expected windows in order, was {format_time(start_ms)} "
                f"after {format_time(self._start_ms)}",
            )
        self._start_ms = start_ms
        self._in_window.clear()

    def _meet(self, number: int, symbol: str) -> None:
        check_symbols((symbol,), source=self._source.place(number))
        if len(self._symbols) < SYMBOLS_MAX:
            self._symbols[symbol] = None
        elif self._selected is None:
            problem = f"expected at most {SYMBOLS_MAX} symbols, was more; select with --symbols"
            raise self._source.bad(number, problem)

    def _count_window(self, number: int, start_ms: int) -> None:
        if self.window_count and self._counts_steps:
            self._steps_ms[start_ms - self._wanted_start_ms] += 1
            if len(self._steps_ms) > STEPS_MAX:
                raise self._source.bad(
                    number,
                    f"expected windows of one interval, was the {STEPS_MAX + 1}th different step; "
                    "give the interval with --interval-sec",
                )
        self.window_count += 1
        self.divisor_ms = math.gcd(self.divisor_ms, start_ms)
        self._wanted_start_ms = start_ms
