"""A large ledger: folded from its first event, and started again from its snapshot."""

import json
import subprocess
import sys
from pathlib import Path
from uuid import UUID

from eventsourcing.application import Application

from benchmarks import library, market
from benchmarks.measuring import ROOT, Figure, Scale, interleaved
from domain.events import KpiObserved
from ledger.application import Ledger
from ledger.location import LedgerLocation

AIM_RATIO = 10.0
AIM_RESTART_MS = 50.0
RAW_BYTES = len(market.SYMBOLS) * 7 * 8
"""The same window as bare 64-bit numbers: five KPIs, notional and fills a symbol."""


def measure(scale: Scale) -> list[Figure]:
    path = scale.folder / "large.sqlite"
    market.fill(path, scale.windows)
    bytes_a_window = path.stat().st_size / scale.windows
    rebuilt = _probe(path)
    with Ledger.open(LedgerLocation(path)) as ledger:
        ledger.take_state_snapshot(ledger.stream(market.STREAM))
    restarted = min((_probe(path) for _ in range(3)), key=lambda found: found["seconds"])
    ours, peer = rates(scale)
    count = f"{scale.windows:,} windows"
    return [
        Figure(
            what="rebuild from the first event", ours=ours, unit="windows/s", better="higher",
            peer=peer, peer_name="the library's default fold", aim=AIM_RATIO,
        ),
        Figure(
            what=f"restart with a snapshot, {count}", ours=restarted["seconds"] * 1e3, unit="ms",
            better="lower", aim=AIM_RESTART_MS,
        ),
        Figure(
            what="  peak memory of that restart", ours=restarted["peak_mib"], unit="MiB",
            better="lower", peer=restarted["imported_mib"], peer_name="after the imports",
        ),
        Figure(
            what=f"rebuild of {count}", ours=rebuilt["seconds"], unit="s", better="lower",
        ),
        Figure(
            what="  peak memory of that rebuild", ours=rebuilt["peak_mib"], unit="MiB",
            better="lower", peer=rebuilt["imported_mib"], peer_name="after the imports",
        ),
        Figure(
            what="ledger file, a window of five symbols", ours=bytes_a_window, unit="bytes",
            better="lower", peer=RAW_BYTES, peer_name="bare float64 values",
        ),
    ]  # fmt: skip


def rates(scale: Scale) -> tuple[float, float]:
    """Return windows/s of our rebuild and of the library's, over the same observations."""
    path = scale.folder / "rebuild.sqlite"
    market.fill(path, scale.peer_windows)
    app = library.open_library(scale.folder / "library-rebuild.sqlite")
    controller = library.Controller(market.INTERVAL_MS)
    with Ledger.open(LedgerLocation(path), read_only=True) as ledger:
        for record in ledger.records(market.STREAM):
            if isinstance(record.event, KpiObserved):
                library.observe(controller, record.event)
        app.save(controller)
        taken = interleaved(
            5,
            [
                lambda _: ledger.stream(market.STREAM),
                lambda _: _rebuild(app, controller.id),
            ],
        )
    app.close()
    return scale.peer_windows / taken[0], scale.peer_windows / taken[1]


def _rebuild(app: Application[UUID], controller_id: UUID) -> None:
    controller: library.Controller = app.repository.get(controller_id)
    assert controller.windows


def _probe(path: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.probe", str(path), market.STREAM]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(output)
    return found
