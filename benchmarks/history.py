"""
A year of windows of five symbols as a history: its size, how fast it is written, and how fast it
answers, against the same questions asked of the ledger by folding its events.
"""

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Final, cast

from eventsourcing.domain import DomainEventProtocol

from benchmarks import market
from benchmarks.measuring import ROOT, Figure, Scale, seconds
from domain.commands import ObserveWindow, PassWindows
from domain.controller import decide, fold
from domain.events import Event, KpiObserved
from domain.state import State
from domain.windows import SymbolReadings, WindowReadings
from ledger.application import Ledger
from ledger.codec import Record
from ledger.location import LedgerLocation
from projections.episodes import derive_episodes
from projections.history import open_history
from projections.history_manifest import Manifest
from projections.history_views import connect
from projections.history_writer import HistoryWriter

AIM_QUERY_MS: Final = 100.0
AIM_COMMAND_SEC: Final = 1.0
TURNS: Final = 7
RAW_BYTES: Final = len(market.SYMBOLS) * 7 * 8
"""The same window as bare 64-bit numbers: five KPIs, notional and fills a symbol."""

SEED: Final = 5
INCIDENT_EVERY: Final = 1_500
"""Roughly one a day: a symbol's risk is too high for a window, or the runner is away for ten."""

EPISODES: Final = "SELECT * FROM episodes"
A_DAY: Final = "SELECT * FROM windows WHERE day = '{day}'"
AGGREGATE: Final = (
    "SELECT symbol, date_trunc('month', day) AS month, avg(value), max(value) FROM kpis "
    "WHERE kpi = 'p95_latency_ms' GROUP BY ALL ORDER BY ALL"
)
EVERYTHING: Final = "SELECT kpi, symbol, avg(value) FROM kpis GROUP BY ALL"
UPTIME: Final = "SELECT * FROM uptime"

WHAT: Final = {
    "episodes": "all episodes",
    "day": "a day's windows",
    "aggregate": "a KPI's mean and maximum by symbol and month",
    "everything": "each KPI's mean by symbol, of 25 values a window",
    "uptime": "share of time in each state, by day",
}


def measure(scale: Scale) -> list[Figure]:
    path, folder = scale.folder / "year.sqlite", scale.folder / "year.history"
    fill(path, scale.windows)
    with Ledger.open(LedgerLocation(path), read_only=True) as ledger:
        began = time.perf_counter()
        writer = HistoryWriter(folder, market.STREAM, now_ms=lambda: market.ORIGIN_MS)
        manifest = writer.catch_up(ledger)
        rate = scale.windows / (time.perf_counter() - began)
        figures = _sizes(manifest, path, scale.windows, rate)
        figures += _queries(ledger, folder, scale.windows)
    return figures + _commands(path, scale.windows)


def fill(path: Path, windows: int) -> None:
    """Make a ledger of so many windows whose numbers have all their digits, with incidents."""
    rows, version = [], 0
    with Ledger.open(LedgerLocation(path)) as ledger:
        for events in decided(windows):
            for event in events:
                version += 1
                record = Record(
                    stream=market.STREAM,
                    version=version,
                    event=event,
                    decided_at_ms=market.ORIGIN_MS + version * market.INTERVAL_MS,
                )
                rows.append(ledger.mapper.to_stored_event(cast("DomainEventProtocol[str]", record)))
            if len(rows) >= market.INSERT_BATCH:
                ledger.recorder.insert_events(rows)
                rows.clear()
        ledger.recorder.insert_events(rows)


def decided(windows: int) -> Iterator[list[Event]]:
    """Yield the events of a new stream, an append at a time; always the same ones."""
    state = State()
    chance = random.Random(SEED)
    events = decide(state.policy, state, market.START)
    events += decide(state.policy, fold(state, events), market.ADOPTION)
    index = 0
    while index < windows:
        state = fold(state, events)
        yield events
        events = []
        if chance.random() < 0.5 / INCIDENT_EVERY:
            index += 10
            until = market.ORIGIN_MS + index * market.INTERVAL_MS
            events = decide(state.policy, state, PassWindows(until=until))
            state_before = fold(state, events)
        else:
            state_before = state
        observe = ObserveWindow(readings=_readings(index, chance))
        events += decide(state.policy, state_before, observe)
        index += 1
    yield events


def _readings(index: int, chance: random.Random) -> WindowReadings:
    ill = chance.random() < 0.5 / INCIDENT_EVERY
    symbols = {}
    for offset, symbol in enumerate(market.SYMBOLS):
        slow = chance.random() < 0.004
        symbols[symbol] = SymbolReadings(
            kpis={
                "edge_bps": 4.5 + chance.gauss(0.0, 0.3),
                "maker_taker_ratio": 0.9 + chance.random() * 0.09,
                "risk_ratio": 0.45 if ill and not offset else 0.1 + chance.random() * 0.25,
                "p95_latency_ms": (400.0 if slow else 200.0) + chance.gauss(0.0, 12.0),
                "anomaly_score": chance.random() * 1.5,
            },
            notional=20_000.0 + chance.random() * 30_000.0,
            fills=chance.randrange(20, 60),
        )
    start_ms = market.ORIGIN_MS + index * market.INTERVAL_MS
    return WindowReadings(start_ms=start_ms, symbols=symbols)


def _sizes(manifest: Manifest, path: Path, windows: int, rate: float) -> list[Figure]:
    total = sum(file.bytes for file in manifest.files)
    kpis = sum(file.bytes for file in manifest.files if file.table == "kpis")
    return [
        Figure(
            what=f"history of {windows:,} windows of five symbols, a window",
            ours=total / windows, unit="bytes", better="lower",
            peer=RAW_BYTES, peer_name="bare float64 values", aim=1.0,
        ),
        Figure(
            what="  of it: KPIs", ours=kpis / windows, unit="bytes", better="lower",
            peer=len(market.SYMBOLS) * 5 * 8, peer_name="bare float64 values",
        ),
        Figure(
            what="  the ledger of the same", ours=path.stat().st_size / windows, unit="bytes",
            better="lower",
        ),
        Figure(what="writing the history", ours=rate, unit="windows/s", better="higher"),
    ]  # fmt: skip


def _queries(ledger: Ledger, folder: Path, windows: int) -> list[Figure]:
    """Measure queries on an open connection, and the same by folding events."""
    opening = median(seconds(lambda: connect(open_history(folder)).close()) for _ in range(3))
    figures = [
        Figure(
            what="opening the whole history, each file checked", ours=opening * 1e3, unit="ms",
            better="lower",
        )
    ]  # fmt: skip
    by_events = {
        "episodes": lambda: list(derive_episodes(ledger.placed_records(market.STREAM))),
        "aggregate": lambda: _aggregate(ledger),
    }
    with connect(open_history(folder)) as database:
        for name, query in _named_queries(windows).items():
            times = [seconds(lambda q=query: database.sql(q).fetchall()) for _ in range(TURNS)]  # type: ignore[misc]
            figures.append(
                Figure(
                    what=f"query: {WHAT[name]}", ours=median(times[1:]) * 1e3, unit="ms",
                    better="lower", aim=None if name == "everything" else AIM_QUERY_MS,
                )
            )  # fmt: skip
            if name in by_events:
                took = seconds(by_events[name]) * 1e3
                what = "  the same by folding events"
                figures.append(Figure(what=what, ours=took, unit="ms", better="lower"))
    return figures


def _named_queries(windows: int) -> dict[str, str]:
    middle = (market.ORIGIN_MS + windows // 2 * market.INTERVAL_MS) / 1000
    day = time.strftime("%Y-%m-%d", time.gmtime(middle))
    return {
        "episodes": EPISODES,
        "day": A_DAY.format(day=day),
        "aggregate": AGGREGATE,
        "everything": EVERYTHING,
        "uptime": UPTIME,
    }


def _aggregate(ledger: Ledger) -> dict[str, tuple[float, float]]:
    """Return a KPI's mean and maximum by symbol, from the events."""
    sums: dict[str, list[float]] = {}
    for record in ledger.records(market.STREAM):
        if isinstance(record.event, KpiObserved):
            for symbol in record.event.symbols:
                value = symbol.readings.kpis.get("p95_latency_ms")
                if isinstance(value, float):
                    one = sums.setdefault(symbol.memory.symbol, [0.0, 0.0, value])
                    one[0] += value
                    one[1] += 1
                    one[2] = max(one[2], value)
    return {symbol: (total / count, most) for symbol, (total, count, most) in sums.items()}


def _commands(path: Path, windows: int) -> list[Figure]:
    """Measure whole commands, from the shell and back."""
    figures = []
    for name, query in _named_queries(windows).items():
        command = ["audit", "sql", query, "--ledger", str(path), "--csv"]
        run: Callable[[], object] = lambda c=command: subprocess.run(  # type: ignore[misc] # noqa: E731
            [sys.executable, "-m", "cli.main", *c], cwd=ROOT, check=True, capture_output=True
        )
        took = median(seconds(run) for _ in range(3))
        figures.append(
            Figure(
                what=f"command: live audit sql, {WHAT[name]}", ours=took, unit="s",
                better="lower", aim=AIM_COMMAND_SEC,
            )
        )  # fmt: skip
    return figures
