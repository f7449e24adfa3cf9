"""
What a history has to hold, told from the events in the plainest way: row by row, event by event.

Nothing of the history's own code is used but the names of its columns.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from domain.controller import evolve
from domain.events import (
    ClockFault,
    ExternalWriteDetected,
    GapObserved,
    KpiObserved,
    LateWindowObserved,
    OverrideApplied,
    OverrideEnded,
    PolicyAdopted,
    RunStarted,
    RunStopped,
    StateTransitioned,
    SymbolThrottleChanged,
    TradedWhileFrozen,
)
from domain.kpis import KPIS, Defect
from domain.state import State
from ledger.application import Ledger
from ledger.codec import Record
from ledger.location import LedgerLocation
from ledger.streams import parse_stream_id
from projections.history import History
from projections.history_schema import TABLES
from projections.views import effective_notional

Rows = list[dict[str, Any]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time(ms: int | None) -> datetime | None:
    return None if ms is None else _EPOCH + timedelta(milliseconds=ms)


def records_of(path: Path, stream: str = "dev:bybit") -> list[Record]:
    """Return the stream's records with their positions."""
    with Ledger.open(LedgerLocation(path), read_only=True) as ledger:
        everything = ledger.records_by_position(limit=10_000_000)
    return [record for record in everything if record.stream == stream]


def expected(records: list[Record]) -> dict[str, Rows]:
    """Return every table's rows, in the ledger's order."""
    tables: dict[str, Rows] = {name: [] for name in TABLES}
    states = [State()]
    for record in records:
        states.append(evolve(states[-1], record.event))
    for index, record in enumerate(records):
        event, before, after = record.event, states[index], states[index + 1]
        previous = records[index - 1].event if index else None
        following = records[index + 1].event if index + 1 < len(records) else None

        def put(table: str, at_ms: int, of: Record = record, **row: Any) -> None:
            key = parse_stream_id(of.stream)
            made = {
                "env": key.env,
                "exchange": key.exchange,
                "dry_run": key.dry_run,
                "day": (_EPOCH + timedelta(milliseconds=at_ms)).date(),
                "ledger_version": of.version,
                "position": of.position,
                "decided_at": time(of.decided_at_ms),
            }
            if "happened_at" in TABLES[table].names:
                made["happened_at"] = time(at_ms)
            assert not set(row) - set(TABLES[table].names), table
            tables[table].append({**dict.fromkeys(TABLES[table].names), **made, **row})

        match event:
            case KpiObserved() | GapObserved():
                ended = after
                if isinstance(following, StateTransitioned) and following.cause in (
                    "verdict",
                    "recovery",
                    "gap",
                ):
                    ended = states[index + 2]
                _window(put, event, before, ended)
            case StateTransitioned():
                _transition(put, event, before, previous)
            case SymbolThrottleChanged():
                put(
                    "throttles",
                    event.at_ms,
                    symbol=event.symbol,
                    throttle_before=event.throttle_before,
                    throttle=event.throttle,
                    effective_before=event.effective_before,
                    effective_throttle=event.effective,
                    state=after.trading_state.value,
                )
            case PolicyAdopted():
                _policy(put, event, before, after, following)
            case OverrideApplied() | OverrideEnded():
                _override(put, event, before)
            case RunStarted() | RunStopped():
                _run(put, event, after)
            case _:
                _incident(put, event, before)
    return tables


def _window(put: Any, event: KpiObserved | GapObserved, before: State, after: State) -> None:
    span = {"window_start": time(event.window), "window_end": time(event.end_ms)}
    seen = event if isinstance(event, KpiObserved) else None
    verdicts = [] if seen is None else [str(symbol.verdict) for symbol in seen.symbols]
    assert after.run is not None
    windows = 1 if isinstance(event, KpiObserved) else event.windows
    put(
        "windows",
        event.window,
        **span,
        windows=windows,
        is_gap=seen is None,
        interval_ms=before.interval_ms,
        verdict=None if seen is None else seen.verdict.value,
        state_before=before.trading_state.value,
        state=after.trading_state.value,
        throttle=after.throttle,
        ok_windows=event.ok_windows,
        warn_windows=event.warn_windows,
        ok_windows_required={
            "ACTIVE": None,
            "COOLDOWN": before.policy.min_ok_windows,
            "FROZEN": before.policy.unfreeze_after_ok_windows,
        }[before.trading_state.value],
        excused=False if seen is None else seen.excused,
        triggered_by=None if seen is None else seen.triggered_by,
        symbols=len(before.symbols),
        symbols_ok=verdicts.count("OK"),
        symbols_warn=verdicts.count("WARN"),
        symbols_crit=verdicts.count("CRIT"),
        run_id=after.run.run_id,
        policy_hash=before.policy.hash,
        feed_position=None if seen is None else seen.feed_position,
        feed_counts='{"late":2}' if seen is not None and seen.feed_counts else None,
    )
    if seen is None:
        details = msgspec.json.encode(event).decode()
        put("incidents", event.window, kind="gap", **span, windows=windows, details=details)
    for rank, memory in enumerate(after.symbols):
        observed = None if seen is None else seen.symbols[rank]
        allowed = after.effective_throttles()[memory.symbol]
        put(
            "symbols",
            event.window,
            **span,
            windows=windows,
            symbol=memory.symbol,
            rank=rank,
            counted=rank < before.symbols_within_limit,
            verdict=None if observed is None else observed.verdict.value,
            throttle=memory.throttle,
            effective_throttle=allowed,
            effective_notional=effective_notional(after, allowed),
            ok_windows=memory.ok_windows,
            frozen=memory.frozen,
            probation=memory.probation,
            halted=memory.halted,
            excused=memory.excused,
            excused_kpis=[] if observed is None else list(observed.excused_kpis),
            notional=None if observed is None else observed.readings.notional,
            fills=None if observed is None else observed.readings.fills,
        )
        if observed is None:
            continue
        thresholds = before.policy.thresholds_of(memory.symbol)
        for kpi in KPIS:
            reading = observed.readings.kpis.get(kpi.name)
            violation = next((v for v in observed.violations if v.kpi == kpi.name), None)
            number = reading if isinstance(reading, int | float) else None
            valid = number is not None and kpi.lowest <= number <= kpi.highest
            if reading is None:
                defect = "absent"
            elif isinstance(reading, Defect):
                defect = reading.value
            else:
                defect = "out_of_domain"
            judged = violation.verdict.value if violation else ("OK" if valid else None)
            put(
                "kpis",
                event.window,
                **span,
                symbol=memory.symbol,
                kpi=kpi.name,
                value=number if valid else None,
                defect=None if valid else defect,
                arrived=None if valid else number,
                threshold=thresholds[kpi.policy_key],
                verdict=judged,
                excused=kpi.name in observed.excused_kpis,
                no_data_windows=violation.no_data_windows if violation else 0,
            )
        for violation in observed.violations:
            put(
                "violations",
                event.window,
                **span,
                symbol=memory.symbol,
                counted=rank < before.symbols_within_limit,
                kpi=violation.kpi,
                verdict=violation.verdict.value,
                value=violation.value,
                comparator=violation.comparator,
                threshold=violation.threshold,
                margin=violation.margin,
                no_data_windows=violation.no_data_windows,
                arrived=None if violation.arrived is None else str(violation.arrived),
                reason=violation.reason,
            )


def _transition(put: Any, event: StateTransitioned, before: State, previous: Any) -> None:
    windowed = event.cause in ("verdict", "recovery", "gap")
    worst = None
    if event.cause == "verdict" and event.triggered_by is not None:
        (symbol,) = [s for s in previous.symbols if s.memory.symbol == event.triggered_by]
        crit = [v for v in symbol.violations if v.verdict == "CRIT"]
        worst = (crit or list(symbol.violations))[0]
    override = previous.override if event.cause == "override" else None
    put(
        "transitions",
        event.since_ms,
        window_start=time(previous.window) if windowed else None,
        from_state=event.previous.value,
        to_state=event.state.value,
        throttle=event.throttle,
        cause=event.cause.value,
        reasons=list(event.reasons),
        triggered_by=event.triggered_by,
        kpi=worst and worst.kpi,
        kpi_verdict=worst and worst.verdict.value,
        value=None if worst is None else worst.value,
        comparator=worst and worst.comparator,
        threshold=None if worst is None else worst.threshold,
        no_data_windows=worst.no_data_windows if worst else 0,
        previous_at=time(before.since_ms),
        ok_windows=before.ok_windows,
        warn_windows=before.warn_windows,
        override_id=override and override.id,
        actor=override and override.actor,
        run_id="" if before.run is None else before.run.run_id,
        policy_hash=before.policy_hash,
    )


def _policy(put: Any, event: PolicyAdopted, before: State, after: State, following: Any) -> None:
    assert after.run is not None
    at_ms = before.next_window
    if at_ms is None:
        at_ms = following.window if following else after.run.started_at_ms
    policy = event.policy
    put(
        "policies",
        at_ms,
        policy_hash=policy.hash,
        symbols=list(event.symbols),
        ramp_profile=event.profile and event.profile.name,
        max_notional=event.profile and event.profile.max_notional,
        max_symbols=event.profile and event.profile.max_symbols,
        changes=list(event.changes),
        loosened=event.loosened,
        **policy.thresholds,
        min_warn_windows=policy.min_warn_windows,
        min_ok_windows=policy.min_ok_windows,
        unfreeze_after_ok_windows=policy.unfreeze_after_ok_windows,
        no_data_freeze_windows=policy.no_data_freeze_windows,
        global_freeze_symbols=policy.global_freeze_symbols,
        cooldown_throttle=policy.cooldown_throttle,
        required_kpis=list(policy.required_kpis),
        waived_when_halted=list(policy.waived_when_halted),
        policy=msgspec.json.encode(policy, order="sorted").decode(),
        run_id=after.run.run_id,
    )


def _override(put: Any, event: OverrideApplied | OverrideEnded, before: State) -> None:
    if isinstance(event, OverrideApplied):
        override, at_ms, actor, reason = event.override, event.override.applied_at_ms, None, None
        name = "applied"
    else:
        (override,) = [o for o in before.overrides if o.id == event.id]
        at_ms, actor, reason, name = event.at_ms, event.ended_by, event.reason, "ended"
    put(
        "overrides",
        at_ms,
        event=name,
        override_id=override.id,
        kind=override.kind.value,
        symbol=override.symbol,
        cap=override.cap,
        applied_at=time(override.applied_at_ms),
        expires_at=time(override.expires_at_ms),
        actor=override.actor if actor is None else actor,
        reason=override.reason if reason is None else reason,
    )


def _run(put: Any, event: RunStarted | RunStopped, after: State) -> None:
    common = {
        "run_id": event.run_id,
        "ledger_id": after.ledger_id,
        "interval_ms": after.interval_ms,
    }
    if isinstance(event, RunStopped):
        put("runs", event.at_ms, event="stopped", reason=event.reason, **common)
        return
    put(
        "runs",
        event.started_at_ms,
        event="started",
        feed=event.feed,
        feed_kind=event.feed_kind,
        rules_version=event.rules_version,
        code_version=event.code_version,
        host=event.host,
        process_id=event.process_id,
        fencing_token=event.fencing_token,
        **common,
    )


def _incident(put: Any, event: Any, before: State) -> None:
    details = msgspec.json.encode(event).decode()
    match event:
        case LateWindowObserved():
            assert before.next_window is not None
            put(
                "incidents",
                before.next_window,
                kind="late_window",
                window_start=time(event.window),
                content=event.content,
                details=details,
            )
        case ClockFault():
            put(
                "incidents",
                event.last_window + before.interval_ms,
                kind="clock_fault",
                window_start=time(event.window),
                behind_ms=event.behind_ms,
                details=details,
            )
        case ExternalWriteDetected():
            put(
                "incidents",
                event.at_ms,
                kind="external_write",
                key=event.key,
                found=event.found,
                expected=event.expected,
                details=details,
            )
        case TradedWhileFrozen():
            put(
                "incidents",
                event.filled_at_ms,
                kind="fill_while_frozen",
                symbol=event.symbol,
                frozen_since=time(event.frozen_since_ms),
                notional=event.notional,
                details=details,
            )
        case _:
            raise AssertionError(f"not expected here: {event}")


def assert_equal(history: History, records: list[Record]) -> None:
    """Check every row of every table against the events, each row exactly once."""
    want = expected(records)
    for name in TABLES:
        got = history.table(name).to_pylist()
        assert sorted(got, key=_place) == sorted(want[name], key=_place), name


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["position"], row.get("rank", 0), str(row.get("symbol")), str(row.get("kpi"))
