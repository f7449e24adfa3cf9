"""
From records to the history's rows: a function of the stream's events alone.

A window's row also tells what came of it, so that it is made once the transition that it caused
has been seen; records of one append come together. Source: DESIGN.md section 3.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa

from domain.controller import evolve
from domain.events import (
    CauseKind,
    ClockFault,
    Event,
    ExternalWriteDetected,
    GapObserved,
    KpiObserved,
    LateWindowObserved,
    Override,
    OverrideApplied,
    OverrideEnded,
    PolicyAdopted,
    RunStarted,
    RunStopped,
    StateTransitioned,
    SymbolThrottleChanged,
    TradedWhileFrozen,
)
from domain.policy import Policy
from domain.state import State
from domain.verdicts import Violation
from ledger.codec import Record
from ledger.streams import StreamKey
from projections.history_columns import DayColumns
from projections.history_schema import TABLES

DAY_MS: Final = 86_400_000

Row = dict[str, Any]

_OF_A_WINDOW: Final = {CauseKind.VERDICT, CauseKind.RECOVERY, CauseKind.GAP}
"""Causes of transitions that follow their window in the same append."""


class Part(NamedTuple):
    """Rows of one table and one UTC day; `day` counts from 1970-01-01."""

    table: str
    day: int


class _Open(NamedTuple):
    """A window, or a gap, whose transition may still come, and the state that it was met in."""

    record: Record
    before: State


class HistoryRows:
    """
    Takes the records of one stream in order and gives the rows that they come to.

    Args:
        key: the stream.
        state: the fold up to the first record that will come.
    """

    def __init__(self, key: StreamKey, state: State) -> None:
        self.state = state
        self.records = 0
        self._key = key
        self._rows: dict[Part, list[Row]] = defaultdict(list)
        self._days: dict[int, DayColumns] = {}
        self._open: _Open | None = None
        self._first_policy: Record | None = None
        self._override: Override | None = None

    def ends_before(self, record: Record) -> bool:
        """Return whether all that was taken so far is whole without this record."""
        return self._first_policy is None and not isinstance(record.event, StateTransitioned)

    def add(self, record: Record) -> None:
        """Take the next record."""
        if not _belongs_to_window(record):
            self._settle_window()
        event, before = record.event, self.state
        self.state = evolve(before, event)
        self.records += 1
        match event:
            case KpiObserved() | GapObserved():
                self._settle_policy(event.window)
                self._open = _Open(record, before)
            case StateTransitioned():
                self._put("transitions", record, event.since_ms, self._transition(event, before))
            case SymbolThrottleChanged():
                self._put("throttles", record, event.at_ms, _throttle(event, self.state))
            case PolicyAdopted():
                self._adopt(record, before)
            case OverrideApplied():
                self._override = event.override
                row = _override(event.override, "applied")
                self._put("overrides", record, event.override.applied_at_ms, row)
            case OverrideEnded():
                self._put("overrides", record, event.at_ms, _override_end(event, before))
            case RunStarted():
                row = _run_start(event, self.state)
                self._put("runs", record, event.started_at_ms, row)
            case RunStopped():
                self._put("runs", record, event.at_ms, _run_stop(event, self.state))
            case _:
                at_ms, row = _incident(event, before)
                self._put("incidents", record, at_ms, {**row, "details": _as_json(event)})

    def tables(self) -> dict[Part, pa.Table]:
        """Return the rows of all records, by table and day; there are no more to come."""
        self._settle_window()
        self._settle_policy(None)
        made = {part: self._table(part, rows) for part, rows in self._rows.items()}
        for day, columns in self._days.items():
            for table, columns_made in columns.tables(self._key).items():
                made[Part(table, day)] = columns_made
        return made

    def _table(self, part: Part, rows: list[Row]) -> pa.Table:
        return pa.Table.from_pylist(rows, schema=TABLES[part.table])

    def _put(self, table: str, record: Record, at_ms: int, row: Row) -> None:
        day = at_ms // DAY_MS
        place = {
            "env": self._key.env,
            "exchange": self._key.exchange,
            "dry_run": self._key.dry_run,
            "day": day,
            "ledger_version": record.version,
            "position": record.position,
            "decided_at": record.decided_at_ms,
        }
        if table not in _WITH_WINDOW:
            place["happened_at"] = at_ms
        self._rows[Part(table, day)].append({**place, **row})

    def _settle_window(self) -> None:
        """Make the rows of the window that was open: all that it caused is folded in."""
        if self._open is None:
            return
        record, before = self._open
        self._open = None
        event = record.event
        assert isinstance(event, KpiObserved | GapObserved)
        day = event.window // DAY_MS
        if day not in self._days:
            self._days[day] = DayColumns(day)
        self._days[day].add(record, event, before, self.state)
        if isinstance(event, GapObserved):
            self._put("incidents", record, event.window, _gap(event))
        else:
            limit = before.symbols_within_limit
            for rank, symbol in enumerate(event.symbols):
                for violation in symbol.violations:
                    row = _violation(event, symbol.memory.symbol, violation, rank < limit)
                    self._put("violations", record, event.window, row)

    def _adopt(self, record: Record, before: State) -> None:
        self._settle_policy(None)
        if before.next_window is None:
            self._first_policy = record
        else:
            self._put_policy(record, before.next_window)

    def _settle_policy(self, window: int | None) -> None:
        """Make the first policy's row, with the window that it holds from if that is known."""
        if self._first_policy is None:
            return
        record, self._first_policy = self._first_policy, None
        run = self.state.run
        self._put_policy(record, window if window is not None else run.started_at_ms if run else 0)

    def _put_policy(self, record: Record, at_ms: int) -> None:
        assert isinstance(record.event, PolicyAdopted)
        run_id = self.state.run.run_id if self.state.run else ""
        self._put("policies", record, at_ms, {**_policy(record.event), "run_id": run_id})

    def _transition(self, event: StateTransitioned, before: State) -> Row:
        window = None if self._open is None else self._open.record.event
        assert window is None or isinstance(window, KpiObserved | GapObserved)
        cause = _violation_of(window, event.triggered_by)
        override = self._override if event.cause is CauseKind.OVERRIDE else None
        return {
            "window_start": None if window is None else window.window,
            "from_state": event.previous,
            "to_state": event.state,
            "throttle": event.throttle,
            "cause": event.cause,
            "reasons": list(event.reasons),
            "triggered_by": event.triggered_by,
            "kpi": None if cause is None else cause.kpi,
            "kpi_verdict": None if cause is None else cause.verdict,
            "value": None if cause is None else cause.value,
            "comparator": None if cause is None else cause.comparator,
            "threshold": None if cause is None else cause.threshold,
            "no_data_windows": 0 if cause is None else cause.no_data_windows,
            "previous_at": before.since_ms,
            "ok_windows": before.ok_windows,
            "warn_windows": before.warn_windows,
            "override_id": None if override is None else override.id,
            "actor": None if override is None else override.actor,
            "run_id": "" if before.run is None else before.run.run_id,
            "policy_hash": before.policy_hash,
        }


_WITH_WINDOW: Final = {"violations"}
"""Tables of single rows whose time is their window's."""


def _belongs_to_window(record: Record) -> bool:
    """Return whether the record is the transition that the window before it caused."""
    event = record.event
    return isinstance(event, StateTransitioned) and event.cause in _OF_A_WINDOW


def _violation_of(window: KpiObserved | GapObserved | None, symbol: str | None) -> Violation | None:
    """Return the worst violation of one symbol in a window, the first of several."""
    if symbol is None or not isinstance(window, KpiObserved):
        return None
    for observed in window.symbols:
        if observed.memory.symbol == symbol:
            return max(observed.violations, key=lambda v: v.verdict.severity, default=None)
    return None


def _violation(window: KpiObserved, symbol: str, violation: Violation, counted: bool) -> Row:
    arrived = violation.arrived
    return {
        "window_start": window.window,
        "window_end": window.end_ms,
        "symbol": symbol,
        "counted": counted,
        "kpi": violation.kpi,
        "verdict": violation.verdict,
        "value": violation.value,
        "comparator": violation.comparator,
        "threshold": violation.threshold,
        "margin": violation.margin,
        "no_data_windows": violation.no_data_windows,
        "arrived": None if arrived is None else str(arrived),
        "reason": violation.reason,
    }


def _throttle(event: SymbolThrottleChanged, state: State) -> Row:
    return {
        "symbol": event.symbol,
        "throttle_before": event.throttle_before,
        "throttle": event.throttle,
        "effective_before": event.effective_before,
        "effective_throttle": event.effective,
        "state": state.trading_state,
    }


def _policy(event: PolicyAdopted) -> Row:
    policy, profile = event.policy, event.profile
    return {
        "policy_hash": event.policy_hash,
        "symbols": list(event.symbols),
        "ramp_profile": None if profile is None else profile.name,
        "max_notional": None if profile is None else profile.max_notional,
        "max_symbols": None if profile is None else profile.max_symbols,
        "changes": list(event.changes),
        "loosened": event.loosened,
        "required_kpis": list(policy.required_kpis),
        "waived_when_halted": list(policy.waived_when_halted),
        "policy": msgspec.json.encode(policy, order="sorted").decode(),
        **policy.thresholds,
        **_counts(policy),
    }


def _counts(policy: Policy) -> Mapping[str, Any]:
    return {
        "min_warn_windows": policy.min_warn_windows,
        "min_ok_windows": policy.min_ok_windows,
        "unfreeze_after_ok_windows": policy.unfreeze_after_ok_windows,
        "no_data_freeze_windows": policy.no_data_freeze_windows,
        "global_freeze_symbols": policy.global_freeze_symbols,
        "cooldown_throttle": policy.cooldown_throttle,
    }


def _override(override: Override, event: str) -> Row:
    return {
        "event": event,
        "override_id": override.id,
        "kind": override.kind,
        "symbol": override.symbol,
        "cap": override.cap,
        "applied_at": override.applied_at_ms,
        "expires_at": override.expires_at_ms,
        "actor": override.actor,
        "reason": override.reason,
    }


def _override_end(event: OverrideEnded, before: State) -> Row:
    """Return the row of an end, with what is known of the override that ended."""
    ended: Row = {"event": "ended", "override_id": event.id}
    for override in before.overrides:
        if override.id == event.id:
            ended = _override(override, "ended")
    return {**ended, "actor": event.ended_by, "reason": event.reason}


def _run_start(event: RunStarted, state: State) -> Row:
    return {
        "event": "started",
        "run_id": event.run_id,
        "ledger_id": state.ledger_id,
        "interval_ms": state.interval_ms,
        "feed": event.feed,
        "feed_kind": event.feed_kind,
        "rules_version": event.rules_version,
        "code_version": event.code_version,
        "host": event.host,
        "process_id": event.process_id,
        "fencing_token": event.fencing_token,
    }


def _run_stop(event: RunStopped, state: State) -> Row:
    return {
        "event": "stopped",
        "run_id": event.run_id,
        "reason": event.reason,
        "ledger_id": state.ledger_id,
        "interval_ms": state.interval_ms,
    }


def _gap(event: GapObserved) -> Row:
    return {
        "kind": "gap",
        "window_start": event.window,
        "window_end": event.end_ms,
        "windows": event.windows,
        "details": _as_json(event),
    }


def _as_json(event: Event) -> str:
    return msgspec.json.encode(event).decode()


def _incident(
    event: LateWindowObserved | ClockFault | ExternalWriteDetected | TradedWhileFrozen,
    state: State,
) -> tuple[int, Row]:
    """Return when it happened, and its row."""
    match event:
        case LateWindowObserved():
            row = {"window_start": event.window, "content": event.content}
            return state.next_window or event.window, {"kind": "late_window", **row}
        case ClockFault():
            row = {"window_start": event.window, "behind_ms": event.behind_ms}
            at_ms = event.last_window + state.interval_ms
            return at_ms, {"kind": "clock_fault", **row}
        case ExternalWriteDetected():
            row = {"key": event.key, "found": event.found, "expected": event.expected}
            return event.at_ms, {"kind": "external_write", **row}
        case TradedWhileFrozen():
            row = {
                "symbol": event.symbol,
                "frozen_since": event.frozen_since_ms,
                "notional": event.notional,
            }
            return event.filled_at_ms, {"kind": "fill_while_frozen", **row}
