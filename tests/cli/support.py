"""Running `live` as a user would: in this process where that is the same, else in its own."""

import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cli.main import main
from domain.errors import CannotTell
from ledger.application import Ledger
from ledger.codec import Record
from ledger.location import LedgerLocation

ROOT = Path(__file__).parents[2]

GOOD: Mapping[str, float] = {
    "edge_bps": 3.2,
    "maker_taker_ratio": 0.91,
    "risk_ratio": 0.22,
    "p95_latency_ms": 180.0,
    "anomaly_score": 0.4,
}
FIRST_MS = 1_767_650_400_000
"""2026-01-05T22:00:00Z."""


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


def live(*args: str | Path) -> Outcome:
    """Run a command in this process and return its exit code and output."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(args=[str(arg) for arg in args])
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
    return Outcome(code, out.getvalue(), err.getvalue())


def spawn(*args: str | Path, cwd: Path) -> "subprocess.Popen[str]":
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", *map(str, args)],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_version(path: Path, version: int, process: "subprocess.Popen[str]") -> int:
    """Wait until the stream has grown to a version, or the process has ended; return its last."""
    while True:
        ended = process.poll() is not None
        with (
            contextlib.suppress(CannotTell),
            Ledger.open(LedgerLocation(path), read_only=True) as ledger,
        ):
            while (last := ledger.last_version("dev:bybit")) < version and not ended:
                time.sleep(0.001)
                ended = process.poll() is not None
            return last
        if ended:
            return 0
        time.sleep(0.001)


def row(index: int, symbol: str = "BTCUSDT", **kpis: Any) -> dict[str, object]:
    """Return a row of a KPI file: OK but for what is given, None for absent."""
    start = f"2026-01-05T{22 + index // 60:02d}:{index % 60:02d}:00Z"
    return {"window_start": start, "symbol": symbol, **GOOD, **kpis}


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """Write a KPI file, a JSON object a line."""
    path.write_text("".join(json.dumps(line) + "\n" for line in rows))
    return path


def replay_rows(*args: str | Path) -> list[dict[str, Any]]:
    """Return what `live replay --json` prints."""
    outcome = live("replay", *args, "--json")
    assert outcome.code == 0, outcome.err
    return [json.loads(line) for line in outcome.out.splitlines()]


def records(path: Path, stream: str = "dev:bybit") -> list[Record]:
    """Return all records of a stream."""
    with Ledger.open(LedgerLocation(path), read_only=True) as ledger:
        return list(ledger.records(stream))


def decisions(found: Sequence[Record]) -> list[Any]:
    """Return the events that runs and their ends aside make up a stream's decisions."""
    return [
        record.event
        for record in found
        if type(record.event).__name__ not in {"RunStarted", "RunStopped"}
    ]
