"""
The ledger that the pages' examples are about, and what commands say of it.

Its events are decided by the core from a fixed story, so that a page made twice is the same.
"""

import io
import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from cli.main import live, main
from cli.options import DEFAULT_LEDGER
from domain.commands import (
    AdoptPolicy,
    ApplyOverride,
    ClearOverride,
    Command,
    ObserveWindow,
    PassWindows,
    StartRun,
    StopRun,
)
from domain.controller import decide
from domain.events import Override, OverrideKind, RampProfile
from domain.kpis import Reading
from domain.policy import Policy
from domain.windows import SymbolReadings, WindowReadings, parse_time
from ledger.application import Ledger, StreamState
from ledger.location import LedgerLocation

STREAM = "prod:bybit"
MINUTE_MS = 60_000
START_MS = parse_time("2026-01-05T14:00Z")
SYMBOLS = ("BTCUSDT", "ETHUSDT")
HEALTHY: dict[str, Reading] = {
    "edge_bps": 3.2,
    "maker_taker_ratio": 0.91,
    "risk_ratio": 0.22,
    "p95_latency_ms": 180.0,
    "anomaly_score": 0.4,
}
SLOW: dict[str, Reading] = {"p95_latency_ms": 361.0}
LOSING: dict[str, Reading] = {"edge_bps": 2.0, "risk_ratio": 0.45}


def answers(commands: list[str]) -> Iterator[str]:
    """Yield each command with what it says of the example, as a terminal would show it."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        ledger = Path(DEFAULT_LEDGER)
        ledger.parent.mkdir(parents=True)
        _make(ledger)
        for command in commands:
            yield f"$ {command}\n{_answer(shlex.split(command))}"


def _answer(words: list[str]) -> str:
    assert words[0] == "live"
    output = io.StringIO()
    code: object = 0
    with redirect_stdout(output), redirect_stderr(output), _without_settings():
        try:
            main(live, words[1:])
        except SystemExit as left:
            code = left.code
    return output.getvalue().replace("\r\n", "\n") + (f"(exit code {code})\n" if code else "")


@contextmanager
def _without_settings() -> Iterator[None]:
    """Take `LIVE_*` variables away for a while: the example is the same everywhere."""
    ours = [name for name in os.environ if name.startswith("LIVE_")]
    before = {name: os.environ.pop(name) for name in ours}
    try:
        yield
    finally:
        os.environ.update(before)


def _make(path: Path) -> None:
    with Ledger.open(LedgerLocation(path)) as ledger:
        stream = StreamState(STREAM)
        for command in _story():
            events = decide(stream.state.policy, stream.state, command)
            stream = ledger.append(stream, events, decided_at_ms=None)


def _story() -> Iterator[Command]:
    """Slow, losing, frozen, an operator's cap, a deploy, a recovery, a looser policy."""
    profile = RampProfile(name="B", max_notional=300.0, max_symbols=2)
    yield StartRun(
        run_id="run-1", ledger_id="example", env="prod", exchange="bybit", dry_run=False,
        interval_ms=MINUTE_MS, feed="redis", feed_kind="redis", code_version="0.1.0",
        started_at_ms=_at(0), host="desk",
    )  # fmt: skip
    yield AdoptPolicy(window=_at(0), policy=Policy(), symbols=SYMBOLS, profile=profile)
    for minute in range(4):
        yield _window(minute)
    for minute in range(4, 7):
        yield _window(minute, SLOW)
    yield _window(7, LOSING)
    yield _window(8, SLOW)
    for minute in range(9, 14):
        yield _window(minute)
    cap = Override(
        id="cap-1", kind=OverrideKind.CAP, actor="ann", reason="half size until looked at",
        applied_at_ms=_at(14.2), symbol="BTCUSDT", cap=0.5, expires_at_ms=_at(74.2),
    )  # fmt: skip
    yield ApplyOverride(override=cap)
    for minute in range(14, 40):
        yield _window(minute)
    yield PassWindows(until=_at(43))
    for minute in range(43, 46):
        yield _window(minute)
    yield ClearOverride(id="cap-1", at_ms=_at(46.5), actor="ann", reason="looked at")
    for minute in range(46, 70):
        yield _window(minute)
    looser = Policy(thresholds={**Policy().thresholds, "max_latency_ms": 400.0})
    yield AdoptPolicy(window=_at(70), policy=looser, symbols=SYMBOLS, profile=profile)
    for minute in range(70, 75):
        yield _window(minute)
    yield StopRun(run_id="run-1", reason="stopped by a signal", at_ms=_at(75.1))


def _at(minutes: float) -> int:
    return START_MS + round(minutes * MINUTE_MS)


def _window(minute: int, changed: dict[str, Reading] | None = None) -> ObserveWindow:
    """Return the command for a window; what is changed is the first symbol's."""
    symbols = {symbol: SymbolReadings(kpis=HEALTHY) for symbol in SYMBOLS}
    symbols[SYMBOLS[0]] = SymbolReadings(kpis=HEALTHY | (changed or {}))
    return ObserveWindow(readings=WindowReadings(start_ms=_at(minute), symbols=symbols))
