"""
The events that a history's rows came from, as far as deciding again needs them.

What is told is what arrived, what was decided, policies, overrides, gaps and clock faults. A
symbol's memory is told without its NO_DATA counts, which no throttle needs.
Source: DESIGN.md sections 3 and 4; `projections.history_schema`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from heapq import merge
from operator import itemgetter
from typing import Any, Final

import msgspec
import pyarrow.compute as pc

from domain.events import (
    CauseKind,
    ClockFault,
    Event,
    GapObserved,
    KpiObserved,
    Override,
    OverrideApplied,
    OverrideEnded,
    OverrideKind,
    PolicyAdopted,
    RampProfile,
    RunStarted,
    StateTransitioned,
    SymbolMemory,
    SymbolObservation,
    TradingState,
)
from domain.kpis import Defect, Reading, Verdict
from domain.policy import Policy
from domain.windows import SymbolReadings
from ledger.streams import StreamKey
from projections.history import History
from projections.history_schema import TABLES

DAY_MS: Final = 86_400_000
HAPPENED: Final = "happened_at"

Row = dict[str, Any]
Placed = tuple[int, Event]
"""An event and its version in its stream."""


def events_of_history(history: History, stream_id: str) -> Iterator[Event]:
    """
    Yield a stream's events in order, a day of windows in memory at a time.

    Raises:
        HistoryDamaged: if a file can't be read, naming it.
    """
    key = history.streams[stream_id].key
    rare: list[Placed] = []
    for table, tell in _RARE.items():
        for row in _rows(history, table, key):
            event = tell(row)
            if event is not None:
                rare.append((row["ledger_version"], event))
    rare.sort(key=itemgetter(0))
    for _, event in merge(rare, _windows(history, stream_id), key=itemgetter(0)):
        yield event


def _windows(history: History, stream_id: str) -> Iterator[Placed]:
    stream = history.streams[stream_id]
    days = {
        file_ms // DAY_MS
        for file in stream.files
        if file.table == "windows"
        for file_ms in range(file.first_ms, file.last_ms + DAY_MS, DAY_MS)
    }
    for day in sorted(days):
        windows = _rows(history, "windows", stream.key, day)
        symbols: dict[int, list[Row]] = defaultdict(list)
        kpis: dict[tuple[int, str], list[Row]] = defaultdict(list)
        for row in _rows(history, "symbols", stream.key, day):
            symbols[row["ledger_version"]].append(row)
        for row in _rows(history, "kpis", stream.key, day):
            kpis[row["ledger_version"], row["symbol"]].append(row)
        for row in windows:
            version = row["ledger_version"]
            ranked = sorted(symbols[version], key=itemgetter("rank"))
            yield version, _gap(row, ranked) if row["is_gap"] else _window(row, ranked, kpis)


def _rows(history: History, table: str, key: StreamKey, day: int | None = None) -> list[Row]:
    """Return a table's rows of one stream, by version; of one day, if one is given."""
    chosen = (
        (pc.field("env") == key.env)
        & (pc.field("exchange") == key.exchange)
        & (pc.field("dry_run") == key.dry_run)
    )
    if day is None:
        found = history.table(table, where=chosen)
    else:
        on_day = pc.field("day") == date.fromordinal(_EPOCH_DAY + day)
        found = history.table(
            table, from_ms=day * DAY_MS, to_ms=(day + 1) * DAY_MS, where=chosen & on_day
        )
    names = [name for name in TABLES[table].names if name not in _UNUSED]
    return list(found.select(names).sort_by("ledger_version").to_pylist())


_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_UNUSED: Final = frozenset({"env", "exchange", "dry_run", "day", "position", "decided_at"})


def _window(row: Row, symbols: list[Row], kpis: Mapping[tuple[int, str], list[Row]]) -> KpiObserved:
    version = row["ledger_version"]
    return KpiObserved(
        window=_ms(row["window_start"]),
        interval_ms=row["interval_ms"],
        content="",  # No decision reads it, and a history doesn't keep it.
        verdict=Verdict(row["verdict"]),
        throttle=row["throttle"],
        symbols=tuple(_symbol(one, kpis.get((version, one["symbol"]), [])) for one in symbols),
        triggered_by=row["triggered_by"],
        ok_windows=row["ok_windows"],
        warn_windows=row["warn_windows"],
        excused=row["excused"],
    )


def _gap(row: Row, symbols: list[Row]) -> GapObserved:
    return GapObserved(
        window=_ms(row["window_start"]),
        windows=row["windows"],
        interval_ms=row["interval_ms"],
        throttle=row["throttle"],
        memories=tuple(_memory(one) for one in symbols),
        ok_windows=row["ok_windows"],
        warn_windows=row["warn_windows"],
    )


def _symbol(row: Row, kpis: list[Row]) -> SymbolObservation:
    readings: dict[str, Reading] = {}
    for kpi in kpis:
        if kpi["value"] is not None:
            readings[kpi["kpi"]] = kpi["value"]
        elif kpi["arrived"] is not None:
            readings[kpi["kpi"]] = kpi["arrived"]
        elif kpi["defect"] in _DEFECTS:
            readings[kpi["kpi"]] = Defect(kpi["defect"])
    return SymbolObservation(
        memory=_memory(row),
        readings=SymbolReadings(readings, row["notional"], row["fills"]),
        verdict=Verdict(row["verdict"]),
        excused_kpis=tuple(row["excused_kpis"]),
    )


_DEFECTS: Final = frozenset(defect.value for defect in Defect)


def _memory(row: Row) -> SymbolMemory:
    return SymbolMemory(
        symbol=row["symbol"],
        throttle=row["throttle"],
        ok_windows=row["ok_windows"],
        frozen=row["frozen"],
        probation=row["probation"],
        excused=row["excused"],
        halted=row["halted"],
    )


def _transition(row: Row) -> StateTransitioned:
    return StateTransitioned(
        previous=TradingState(row["from_state"]),
        state=TradingState(row["to_state"]),
        throttle=row["throttle"],
        since_ms=_ms(row[HAPPENED]),
        cause=CauseKind(row["cause"]),
        reasons=tuple(row["reasons"]),
        triggered_by=row["triggered_by"],
    )


def _policy(row: Row) -> PolicyAdopted:
    profile = None
    if row["ramp_profile"] is not None:
        profile = RampProfile(
            name=row["ramp_profile"],
            max_notional=row["max_notional"],
            max_symbols=row["max_symbols"],
        )
    return PolicyAdopted(
        policy=msgspec.json.decode(row["policy"], type=Policy),
        policy_hash=row["policy_hash"],
        symbols=tuple(row["symbols"]),
        profile=profile,
        changes=tuple(row["changes"]),
        loosened=row["loosened"],
    )


def _override(row: Row) -> Event:
    if row["event"] == "ended":
        return OverrideEnded(
            id=row["override_id"],
            at_ms=_ms(row[HAPPENED]),
            ended_by=row["actor"],
            reason=row["reason"],
        )
    return OverrideApplied(
        override=Override(
            id=row["override_id"],
            kind=OverrideKind(row["kind"]),
            actor=row["actor"],
            reason=row["reason"],
            applied_at_ms=_ms(row[HAPPENED]),
            symbol=row["symbol"],
            cap=row["cap"],
            expires_at_ms=None if row["expires_at"] is None else _ms(row["expires_at"]),
        )
    )


def _run(row: Row) -> RunStarted | None:
    if row["event"] != "started":
        return None
    return RunStarted(
        run_id=row["run_id"],
        ledger_id=row["ledger_id"],
        env="history",
        exchange="history",
        dry_run=True,
        interval_ms=row["interval_ms"],
        feed=row["feed"] or "",
        feed_kind=row["feed_kind"] or "",
        rules_version=row["rules_version"] or 0,
        code_version=row["code_version"] or "",
        started_at_ms=_ms(row[HAPPENED]),
    )


def _clock_fault(row: Row) -> ClockFault | None:
    if row["kind"] != "clock_fault":
        return None
    window = _ms(row["window_start"])
    return ClockFault(
        window=window, last_window=window + row["behind_ms"], behind_ms=row["behind_ms"]
    )


_RARE: Final = {
    "runs": _run,
    "policies": _policy,
    "transitions": _transition,
    "overrides": _override,
    "incidents": _clock_fault,
}
"""By table: what a row of it tells; None for nothing."""


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)
