"""
The windows that everything is measured with: five symbols, five KPIs, notional and fills.

Mostly healthy, as markets are, with a slow symbol in one window of fifty. The numbers have all
the digits that computed ones have.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

from eventsourcing.domain import DomainEventProtocol

from domain.commands import AdoptPolicy, ObserveWindow, StartRun
from domain.controller import decide, fold
from domain.events import Event
from domain.policy import Policy
from domain.state import State
from domain.windows import SymbolReadings, WindowReadings
from ledger.application import Ledger
from ledger.codec import Record
from ledger.location import LedgerLocation

SYMBOLS: Final = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT")
STREAM: Final = "dev:bybit"
INTERVAL_MS: Final = 60_000
ORIGIN_MS: Final = 1_767_571_200_000
"""2026-01-05T00:00Z."""

SLOW_EVERY: Final = 50
INSERT_BATCH: Final = 20_000

START: Final = StartRun(
    run_id="bench",
    ledger_id="bench",
    env="dev",
    exchange="bybit",
    dry_run=False,
    interval_ms=INTERVAL_MS,
    feed="made up",
    feed_kind="mock",
    code_version="0",
    started_at_ms=ORIGIN_MS,
)
ADOPTION: Final = AdoptPolicy(window=ORIGIN_MS, policy=Policy(), symbols=SYMBOLS)


def readings(index: int) -> WindowReadings:
    """Return the window of a number, from 0; always the same one."""
    slow = 1.9 if index % SLOW_EVERY == SLOW_EVERY - 1 else 1.0
    symbols = {}
    for offset, symbol in enumerate(SYMBOLS):
        part = (index * 7_919 + offset * 104_729) % 9_973 / 9_973
        symbols[symbol] = SymbolReadings(
            kpis={
                "edge_bps": 3.0 + part,
                "maker_taker_ratio": 0.88 + part * 0.07,
                "risk_ratio": 0.15 + part * 0.15,
                "p95_latency_ms": (190.0 + part * 60.0) * (1.0 if offset else slow),
                "anomaly_score": part * 1.2,
            },
            notional=20_000.0 + part * 30_000.0,
            fills=20 + index % 40,
        )
    return WindowReadings(start_ms=ORIGIN_MS + index * INTERVAL_MS, symbols=symbols)


def decided(windows: int) -> Iterator[list[Event]]:
    """Yield the events of a new stream: those that begin it, then each window's."""
    state = State()
    for index in range(-1, windows):
        if index < 0:
            events = decide(state.policy, state, START)
            events += decide(state.policy, fold(state, events), ADOPTION)
        else:
            events = decide(state.policy, state, ObserveWindow(readings=readings(index)))
        state = fold(state, events)
        yield events


def fill(path: Path, windows: int) -> None:
    """Make a ledger of so many windows, in large transactions rather than one a window."""
    version, rows = 0, []
    with Ledger.open(LedgerLocation(path)) as ledger:
        for events in decided(windows):
            for event in events:
                version += 1
                record = Record(
                    stream=STREAM, version=version, event=event, decided_at_ms=ORIGIN_MS
                )
                rows.append(ledger.mapper.to_stored_event(cast("DomainEventProtocol[str]", record)))
            if len(rows) >= INSERT_BATCH:
                ledger.recorder.insert_events(rows)
                rows.clear()
        ledger.recorder.insert_events(rows)
