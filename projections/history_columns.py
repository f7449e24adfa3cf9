"""
The columns of a day's windows, symbols and KPIs, gathered without a row object for each.

A window of five symbols is 31 rows, and nearly all of their columns repeat: what differs from row
to row is kept in lists, and the rest as one of few distinct combinations.
"""

from collections import defaultdict
from operator import itemgetter
from typing import Any, Final

import msgspec
import pyarrow as pa

from domain.events import GapObserved, KpiObserved, SymbolMemory, SymbolObservation
from domain.kpis import KPIS, Defect, Kpi, Verdict
from domain.policy import Policy
from domain.state import State, effective_throttles
from ledger.codec import Record
from ledger.streams import StreamKey
from projections.history_schema import KPIS as KPI_TABLE
from projections.history_schema import SYMBOLS, WINDOWS

_ABSENT: Final = "absent"
_OUT_OF_DOMAIN: Final = "out_of_domain"
_KPI_NAMES: Final = tuple(kpi.name for kpi in KPIS)
_ALL_KPIS: Final = itemgetter(*_KPI_NAMES)
_SORTED_KPIS: Final = sorted((name, number) for number, name in enumerate(_KPI_NAMES))

_PER_STREAM: Final = ("env", "exchange", "dry_run", "day")
_PER_WINDOW: Final = ("ledger_version", "position", "decided_at", "window_start", "window_end")
_SYMBOL_SHAPE: Final = (
    "rank",
    "counted",
    "verdict",
    "throttle",
    "effective_throttle",
    "effective_notional",
    "frozen",
    "probation",
    "halted",
    "excused",
    "excused_kpis",
)
_KPI_SHAPE: Final = ("defect", "arrived", "threshold", "verdict", "excused", "no_data_windows")


class _Shapes:
    """Distinct combinations of some columns' values; a row keeps the number of its own."""

    def __init__(self, schema: pa.Schema, names: tuple[str, ...]) -> None:
        self._schema = schema
        self._names = names
        self._numbers: dict[tuple[Any, ...], int] = {}

    def number(self, *values: Any) -> int:
        """Return the combination's number."""
        return self._numbers.setdefault(values, len(self._numbers))

    def columns(self, numbers: list[int]) -> dict[str, pa.Array]:
        """Return the columns of rows with these combinations."""
        index = pa.array(numbers, pa.int32())
        each = zip(*self._numbers, strict=True)
        return {
            name: pa.array(values, self._schema.field(name).type).take(index)
            for name, values in zip(self._names, each, strict=True)
        }


class _SymbolColumns:
    """
    What differs from row to row of one symbol.

    Attributes:
        windows: the numbers of its windows and gaps among the day's.
        shapes: of each, its combination of the other columns.
        lists: of each, `ok_windows`, `notional` and `fills`.
        observed: the numbers of the windows that it was observed in.
        values, kpi_shapes: of each of those, the five KPIs' values and combinations.
    """

    def __init__(self) -> None:
        self.windows: list[int] = []
        self.shapes: list[int] = []
        self.lists: list[tuple[int, float | None, int | None]] = []
        self.observed: list[int] = []
        self.values: list[tuple[Any, ...]] = []
        self.kpi_shapes: list[tuple[int, ...]] = []


class DayColumns:
    """The windows and gaps of one stream that began on one UTC day, in order."""

    def __init__(self, day: int) -> None:
        self._day = day
        self._windows: list[tuple[Any, ...]] = []
        self._symbols: dict[str, _SymbolColumns] = defaultdict(_SymbolColumns)
        self._symbol_shapes = _Shapes(SYMBOLS, _SYMBOL_SHAPE)
        self._kpi_shapes = _Shapes(KPI_TABLE, _KPI_SHAPE)
        self._policy: Policy | None = None
        self._fine: dict[str, tuple[int, ...]] = {}

    def add(
        self, record: Record, event: KpiObserved | GapObserved, before: State, after: State
    ) -> None:
        """
        Take a window or a gap.

        Args:
            before: the state that it was judged in.
            after: the state once all that it caused has happened.
        """
        index = len(self._windows)
        self._windows.append(_window(record, event, before, after))
        limit = after.symbols_within_limit
        effective = effective_throttles(after, after.throttle, after.symbols)
        observed = event.symbols if isinstance(event, KpiObserved) else (None,) * len(after.symbols)
        for rank, (memory, allowed, seen) in enumerate(
            zip(after.symbols, effective, observed, strict=True)
        ):
            columns = self._symbols[memory.symbol]
            columns.windows.append(index)
            columns.shapes.append(self._symbol_shape(rank, limit, memory, allowed, seen, after))
            if seen is None:
                columns.lists.append((memory.ok_windows, None, None))
                continue
            columns.lists.append((memory.ok_windows, seen.readings.notional, seen.readings.fills))
            columns.observed.append(index)
            self._add_kpis(columns, seen, before.policy)

    def tables(self, key: StreamKey) -> dict[str, pa.Table]:
        """Return the three tables, each in its order of rows."""
        windows = self._window_table(key)
        tables = {"windows": windows, "symbols": self._symbol_table(key, windows)}
        if any(columns.observed for columns in self._symbols.values()):
            tables["kpis"] = self._kpi_table(key, windows)
        return tables

    def _symbol_shape(
        self,
        rank: int,
        limit: int,
        memory: SymbolMemory,
        allowed: float,
        seen: SymbolObservation | None,
        after: State,
    ) -> int:
        profile = after.profile
        return self._symbol_shapes.number(
            rank,
            rank < limit,
            None if seen is None else seen.verdict,
            memory.throttle,
            allowed,
            None if profile is None else allowed * profile.max_notional / limit,
            memory.frozen,
            memory.probation,
            memory.halted,
            memory.excused,
            () if seen is None else seen.excused_kpis,
        )

    def _add_kpis(self, columns: _SymbolColumns, seen: SymbolObservation, policy: Policy) -> None:
        """Take one symbol's readings; most of them are all there and all OK."""
        readings = seen.readings.kpis
        if policy is not self._policy:
            self._policy, self._fine = policy, {}
        symbol = seen.memory.symbol
        fine = self._fine.get(symbol)
        if fine is None:
            fine = self._fine[symbol] = self._fine_shapes(policy, symbol)
        if not seen.violations and not seen.excused_kpis and len(readings) == len(KPIS):
            columns.values.append(_ALL_KPIS(readings))
            columns.kpi_shapes.append(fine)
            return
        thresholds = policy.thresholds_of(symbol)
        found = [self._kpi(kpi, seen, thresholds[kpi.policy_key]) for kpi in KPIS]
        columns.values.append(tuple(value for value, _ in found))
        columns.kpi_shapes.append(tuple(shape for _, shape in found))

    def _fine_shapes(self, policy: Policy, symbol: str) -> tuple[int, ...]:
        thresholds = policy.thresholds_of(symbol)
        return tuple(
            self._kpi_shapes.number(None, None, thresholds[kpi.policy_key], Verdict.OK, False, 0)
            for kpi in KPIS
        )

    def _kpi(self, kpi: Kpi, seen: SymbolObservation, threshold: float) -> tuple[float | None, int]:
        """Return a KPI's value, if it is one, and its combination."""
        reading = seen.readings.kpis.get(kpi.name)
        violation = next((found for found in seen.violations if found.kpi == kpi.name), None)
        value: float | None = None
        defect: str | None = None
        arrived: float | None = None
        if reading is None:
            defect = _ABSENT
        elif isinstance(reading, Defect):
            defect = reading.value
        elif kpi.is_valid(reading):
            value = reading
        else:
            defect, arrived = _OUT_OF_DOMAIN, reading
        verdict = None if violation is None else violation.verdict
        return value, self._kpi_shapes.number(
            defect,
            arrived,
            threshold,
            Verdict.OK if verdict is None and value is not None else verdict,
            kpi.name in seen.excused_kpis,
            0 if violation is None else violation.no_data_windows,
        )

    def _window_table(self, key: StreamKey) -> pa.Table:
        names = WINDOWS.names[len(_PER_STREAM) :]
        columns = dict(zip(names, zip(*self._windows, strict=True), strict=True))
        return _table(WINDOWS, key, self._day, len(self._windows), columns)

    def _symbol_table(self, key: StreamKey, windows: pa.Table) -> pa.Table:
        index: list[int] = []
        shapes: list[int] = []
        lists: list[tuple[int, float | None, int | None]] = []
        names: list[str] = []
        for symbol in sorted(self._symbols):
            columns = self._symbols[symbol]
            index += columns.windows
            shapes += columns.shapes
            lists += columns.lists
            names += [symbol] * len(columns.windows)
        ok_windows, notional, fills = zip(*lists, strict=True)
        own = {"symbol": names, "ok_windows": ok_windows, "notional": notional, "fills": fills}
        made = {**own, **self._symbol_shapes.columns(shapes)}
        taken = _of_windows(windows, index, (*_PER_WINDOW, "windows"))
        return _table(SYMBOLS, key, self._day, len(index), {**taken, **made})

    def _kpi_table(self, key: StreamKey, windows: pa.Table) -> pa.Table:
        index: list[int] = []
        shapes: list[int] = []
        own: dict[str, list[Any]] = {"symbol": [], "kpi": [], "value": []}
        each = [
            (symbol, columns.observed, _across(columns.values), _across(columns.kpi_shapes))
            for symbol, columns in sorted(self._symbols.items())
            if columns.observed
        ]
        for name, number in _SORTED_KPIS:
            for symbol, observed, values, kpi_shapes in each:
                index += observed
                shapes += kpi_shapes[number]
                own["symbol"] += [symbol] * len(observed)
                own["kpi"] += [name] * len(observed)
                own["value"] += values[number]
        made = {**own, **self._kpi_shapes.columns(shapes)}
        taken = _of_windows(windows, index, _PER_WINDOW)
        return _table(KPI_TABLE, key, self._day, len(index), {**taken, **made})


def _window(
    record: Record, event: KpiObserved | GapObserved, before: State, after: State
) -> tuple[Any, ...]:
    """Return a window's values, in the order of the schema after what all rows share."""
    observed = event if isinstance(event, KpiObserved) else None
    verdicts = [] if observed is None else [symbol.verdict for symbol in observed.symbols]
    counts = None if observed is None or not observed.feed_counts else observed.feed_counts
    return (
        record.version,
        record.position,
        record.decided_at_ms,
        event.window,
        event.end_ms,
        event.windows if isinstance(event, GapObserved) else 1,
        observed is None,
        event.interval_ms,
        None if observed is None else observed.verdict,
        before.trading_state,
        after.trading_state,
        after.throttle,
        event.ok_windows,
        event.warn_windows,
        before.ok_windows_required,
        observed is not None and observed.excused,
        None if observed is None else observed.triggered_by,
        len(after.symbols),
        verdicts.count(Verdict.OK),
        verdicts.count(Verdict.WARN),
        verdicts.count(Verdict.CRIT),
        "" if after.run is None else after.run.run_id,
        before.policy_hash,
        None if observed is None else observed.feed_position,
        None if counts is None else msgspec.json.encode(counts).decode(),
    )


def _across(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return rows as columns."""
    return list(zip(*rows, strict=True))


def _of_windows(
    windows: pa.Table, index: list[int], names: tuple[str, ...]
) -> dict[str, pa.ChunkedArray]:
    """Return some of the windows' columns, once for each row that belongs to a window."""
    numbers = pa.array(index, pa.int32())
    return {name: windows.column(name).take(numbers) for name in names}


def _table(
    schema: pa.Schema, key: StreamKey, day: int, rows: int, columns: dict[str, Any]
) -> pa.Table:
    """Return a table from its columns, with what is the same in all rows of a stream and day."""
    fixed = dict(zip(_PER_STREAM, (key.env, key.exchange, key.dry_run, day), strict=True))
    arrays = []
    for field in schema:
        if field.name in fixed:
            arrays.append(pa.repeat(pa.scalar(fixed[field.name], field.type), rows))
        else:
            values = columns[field.name]
            is_made = isinstance(values, pa.Array | pa.ChunkedArray)
            arrays.append(values if is_made else pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)
