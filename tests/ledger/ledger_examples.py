"""One example of every event, and streams to fill a real ledger with."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import cast

from domain.commands import AdoptPolicy, Command, ObserveWindow, StartRun
from domain.controller import decide
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
    OverrideKind,
    PolicyAdopted,
    RampProfile,
    RunStarted,
    RunStopped,
    StateTransitioned,
    SymbolMemory,
    SymbolObservation,
    SymbolThrottleChanged,
    TradedWhileFrozen,
    TradingState,
)
from domain.kpis import Defect, Reading, Verdict
from domain.policy import Policy
from domain.verdicts import Violation
from domain.windows import SymbolReadings, WindowReadings
from ledger.application import Ledger, StreamState
from ledger.location import LedgerLocation
from ledger.sqlite import LedgerRecorder
from ledger.sqlite_file import LedgerDatastore

STREAM = "dev:bybit"
SYMBOLS = ("BTCUSDT", "ETHUSDT")
MINUTE_MS = 60_000
ORIGIN_MS = 1_767_571_200_000

READINGS = SymbolReadings(
    kpis={"edge_bps": 2.0, "risk_ratio": 0.1, "anomaly_score": Defect.NAN},
    notional=1234.5,
    fills=3,
)
MEMORY = SymbolMemory(
    symbol="BTCUSDT",
    throttle=0.0,
    frozen=True,
    no_data={"anomaly_score": 2},
    breached=("edge_bps",),
)

EXAMPLES: dict[type, Event] = {
    RunStarted: RunStarted(
        run_id="run-1", ledger_id="ledger-1", env="dev", exchange="bybit", dry_run=False,
        interval_ms=MINUTE_MS, feed="mock://healthy?seed=0", feed_kind="mock", rules_version=1,
        code_version="0.1.0", started_at_ms=ORIGIN_MS, host="a", process_id=7, fencing_token=3,
        lateness_ms=3_000,
    ),
    PolicyAdopted: PolicyAdopted(
        policy=Policy(symbols={"ETHUSDT": {"max_risk": 0.3}}), policy_hash="ab" * 32,
        symbols=SYMBOLS, profile=RampProfile(name="A", max_notional=1e6, max_symbols=2),
        changes=("thresholds.max_risk: 0.4 -> 0.5 (loosens)",), loosened=True,
    ),
    KpiObserved: KpiObserved(
        window=ORIGIN_MS, interval_ms=MINUTE_MS, content="0f" * 16, verdict=Verdict.CRIT,
        throttle=1.0,
        symbols=(
            SymbolObservation(
                memory=MEMORY,
                readings=READINGS,
                verdict=Verdict.CRIT,
                violations=(
                    Violation(
                        kpi="edge_bps", verdict=Verdict.CRIT, value=2.0, comparator="<",
                        threshold=2.5, margin=0.5,
                    ),
                    Violation(
                        kpi="anomaly_score", verdict=Verdict.WARN, no_data_windows=2,
                        arrived=Defect.NAN,
                    ),
                ),
                excused_kpis=("maker_taker_ratio",),
            ),
            SymbolObservation(memory=SymbolMemory(symbol="ETHUSDT", ok_windows=4)),
        ),
        triggered_by="BTCUSDT", ok_windows=1, warn_windows=2, excused=True,
        feed_position="5-0", feed_counts={"late": 2},
    ),
    StateTransitioned: StateTransitioned(
        previous=TradingState.ACTIVE, state=TradingState.FROZEN, throttle=0.0,
        since_ms=ORIGIN_MS + MINUTE_MS, cause=CauseKind.VERDICT,
        reasons=("edge_bps=2.0 < 2.5",), triggered_by="BTCUSDT", warn_windows=1,
    ),
    SymbolThrottleChanged: SymbolThrottleChanged(
        symbol="BTCUSDT", at_ms=ORIGIN_MS, throttle_before=1.0, throttle=0.0,
        effective_before=0.5, effective=0.0,
    ),
    GapObserved: GapObserved(
        window=ORIGIN_MS, windows=120, interval_ms=MINUTE_MS, throttle=0.0, memories=(MEMORY,),
        ok_windows=1, warn_windows=2,
    ),
    LateWindowObserved: LateWindowObserved(
        window=ORIGIN_MS, content="0e" * 16, symbols={"BTCUSDT": READINGS}
    ),
    ClockFault: ClockFault(
        window=ORIGIN_MS - MINUTE_MS, last_window=ORIGIN_MS, behind_ms=MINUTE_MS
    ),
    OverrideApplied: OverrideApplied(
        override=Override(
            id="o-1", kind=OverrideKind.CAP, actor="ann", reason="näher hinsehen", symbol="BTCUSDT",
            applied_at_ms=ORIGIN_MS, cap=0.25, expires_at_ms=ORIGIN_MS + 5, ended_at_ms=None,
        )
    ),
    OverrideEnded: OverrideEnded(id="o-1", at_ms=ORIGIN_MS, ended_by="bob", reason="done"),
    ExternalWriteDetected: ExternalWriteDetected(
        key="dev:bybit:live:state", found="ACTIVE", expected="FROZEN", at_ms=ORIGIN_MS
    ),
    TradedWhileFrozen: TradedWhileFrozen(
        symbol="BTCUSDT", filled_at_ms=ORIGIN_MS + 9, frozen_since_ms=ORIGIN_MS, notional=12.5
    ),
    RunStopped: RunStopped(run_id="run-1", reason="stopped by a signal", at_ms=ORIGIN_MS),
}  # fmt: skip
"""One event of each kind, every field other than its default."""

START = StartRun(
    run_id="run-1", ledger_id="ledger-1", env="dev", exchange="bybit", dry_run=False,
    interval_ms=MINUTE_MS, feed="test", feed_kind="file", code_version="0",
    started_at_ms=ORIGIN_MS,
)  # fmt: skip
ADOPTION = AdoptPolicy(window=ORIGIN_MS, policy=Policy(), symbols=SYMBOLS)

HEALTHY: dict[str, Reading] = {
    "edge_bps": 3.25,
    "maker_taker_ratio": 0.9,
    "risk_ratio": 0.2,
    "p95_latency_ms": 200.0,
    "anomaly_score": 1.0,
}


def readings_at(index: int, **changed: Reading) -> WindowReadings:
    """Return the window of a number, healthy but for what is changed of the first symbol."""
    first, *others = SYMBOLS
    symbols = {first: SymbolReadings(kpis={**HEALTHY, **changed}, notional=10.5, fills=index)}
    symbols |= {symbol: SymbolReadings(kpis=HEALTHY) for symbol in others}
    return WindowReadings(start_ms=ORIGIN_MS + index * MINUTE_MS, symbols=symbols)


def window(index: int, **changed: Reading) -> ObserveWindow:
    """Return the command that decides the window of a number."""
    return ObserveWindow(readings=readings_at(index, **changed))


def tell(ledger: Ledger, stream: StreamState, commands: Iterable[Command]) -> StreamState:
    """Decide each command and append what follows."""
    for command in commands:
        events = decide(stream.state.policy, stream.state, command)
        stream = ledger.append(stream, events, decided_at_ms=ORIGIN_MS)
    return stream


def begin(ledger: Ledger, windows: int = 0, stream_id: str = STREAM) -> StreamState:
    """Begin a stream of so many healthy windows: versions 1, 2, and one for each."""
    commands: list[Command] = [START, ADOPTION, *(window(index) for index in range(windows))]
    return tell(ledger, StreamState(stream_id), commands)


def open_at(path: Path, *, read_only: bool = False) -> Ledger:
    """Open the ledger at a path."""
    return Ledger.open(LedgerLocation(path), read_only=read_only)


def datastore(ledger: Ledger) -> LedgerDatastore:
    """Return what the ledger's connection is in."""
    return cast("LedgerDatastore", cast("LedgerRecorder", ledger.recorder).datastore)


def put_row(path: Path, version: int, *, name: str, stored: bytes, stream: str = STREAM) -> None:
    """Write a row past the ledger, over the one that is there."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO stored_events VALUES (?,?,?,?) ON CONFLICT DO UPDATE "
            "SET topic=excluded.topic, state=excluded.state",
            (stream, version, name, stored),
        )


def drop_rows(path: Path, condition: str) -> None:
    """Delete rows past the ledger."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"DELETE FROM stored_events WHERE {condition}")
