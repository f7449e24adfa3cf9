"""
Make the golden ledgers: `PYTHONPATH=. python tests/golden/make_golden.py FOLDER`.

Those in this folder were made by it once, and stay as they are: see README.md. It is kept to show
what is in them, and to make further ones, under other names, when an event gets a new version.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from domain.commands import (
    AdoptPolicy,
    ApplyOverride,
    ClearOverride,
    Command,
    ExpireOverrides,
    ObserveClock,
    ObserveWindow,
    PassWindows,
    ReportExternalWrite,
    ReportFill,
    StartRun,
    StopRun,
)
from domain.controller import decide
from domain.events import Override, OverrideKind, RampProfile
from domain.kpis import Defect, Reading
from domain.policy import Policy
from domain.state import State
from domain.windows import SymbolReadings, WindowReadings
from ledger.application import Ledger, StreamState
from ledger.location import LedgerLocation

MINUTE_MS: Final = 60_000
ORIGIN_MS: Final = 1_767_571_200_000
"""2026-01-05T00:00Z."""

SYMBOLS: Final = ("BTCUSDT", "ETHUSDT", "SOL-PERP")
PROFILE: Final = RampProfile(name="A", max_notional=1_000_000.0, max_symbols=2)
QUICK: Final = Policy(min_warn_windows=2, min_ok_windows=3, unfreeze_after_ok_windows=4)
HEALTHY: Final[dict[str, Reading]] = {
    "edge_bps": 3.25,
    "maker_taker_ratio": 0.9,
    "risk_ratio": 0.2,
    "p95_latency_ms": 200.5,
    "anomaly_score": 1.1,
}
SLOW: Final[dict[str, Reading]] = {"p95_latency_ms": 350.00001}
CRITICAL: Final[dict[str, Reading]] = {"edge_bps": 2.0, "risk_ratio": 0.45}

VERSIONS_EVERY: Final = 7
"""Beside the last version's, the state of every seventh version is kept."""


def at(minutes: float) -> int:
    return ORIGIN_MS + round(minutes * MINUTE_MS)


def start(run: int, minutes: float, *, dry_run: bool = False) -> StartRun:
    return StartRun(
        run_id=f"run-{run}",
        ledger_id="golden",
        env="dev",
        exchange="bybit",
        dry_run=dry_run,
        interval_ms=MINUTE_MS,
        feed="file:golden.csv",
        feed_kind="file",
        code_version="0.1.0",
        started_at_ms=at(minutes),
        host="golden",
        process_id=run,
        fencing_token=run,
    )


def adopt(index: int, policy: Policy, symbols: tuple[str, ...] = SYMBOLS) -> AdoptPolicy:
    return AdoptPolicy(window=at(index), policy=policy, symbols=symbols, profile=PROFILE)


def window(index: int, changed: dict[str, Reading] | None = None, **settings: Any) -> ObserveWindow:
    """Return the command for a window; what is changed is the first symbol's."""
    symbols = {
        symbol: SymbolReadings(
            kpis=HEALTHY | ((changed or {}) if symbol == SYMBOLS[0] else {}),
            notional=1_000.25 + index,
            fills=index,
        )
        for symbol in SYMBOLS
    }
    readings = WindowReadings(
        start_ms=at(index), symbols=symbols, feed_position=f"{index}-0", feed_counts={"late": index}
    )
    return ObserveWindow(readings=readings, **settings)


def silent(index: int) -> ObserveWindow:
    return ObserveWindow(readings=WindowReadings(start_ms=at(index)))


def windows(first: int, last: int) -> list[Command]:
    return [window(index) for index in range(first, last + 1)]


def override(number: int, kind: OverrideKind, minutes: float, **settings: Any) -> ApplyOverride:
    return ApplyOverride(
        override=Override(
            id=f"override-{number}",
            kind=kind,
            actor="ann",
            reason="look at it first",
            applied_at_ms=at(minutes),
            **settings,
        )
    )


def foreign_write(number: int, symbol: str | None, found: str, expected: str) -> Command:
    key = "dev:bybit:live:" + ("state" if symbol is None else f"throttle:{symbol}")
    return ReportExternalWrite(
        id=f"redis-{number}", key=key, symbol=symbol, found=found, expected=expected,
        at_ms=at(10.5),
    )  # fmt: skip


def incident() -> list[Command]:
    """Slow, critical, recovered with a waiver's help, a gap, late windows, a policy, a restart."""
    absent: dict[str, Reading] = {"edge_bps": Defect.NAN, "anomaly_score": Defect.STALE}
    malformed: dict[str, Reading] = {"maker_taker_ratio": 1.5, "risk_ratio": Defect.INFINITE}
    no_fills = SymbolReadings(kpis={"risk_ratio": 0.0, "p95_latency_ms": 90.0})
    quiet = [
        ObserveWindow(
            readings=WindowReadings(start_ms=at(index), symbols=dict.fromkeys(SYMBOLS, no_fills))
        )
        for index in range(9, 17)
    ]
    return [
        start(1, 0), adopt(0, QUICK), *windows(0, 2), window(3, SLOW), window(4, SLOW),
        *windows(5, 6), window(7, CRITICAL), window(8, CRITICAL | SLOW), *quiet, *windows(17, 20),
        window(21, absent), window(22, malformed), silent(23), *windows(24, 28),
        window(3, recorded_content="as recorded"),
        window(26, {"edge_bps": 3.5}, recorded_content="as recorded"),
        PassWindows(until=at(40)),
        adopt(40, Policy(symbols={"ETHUSDT": {"max_risk": 0.15}}), ("ETHUSDT", "BTCUSDT")),
        *windows(40, 41),
        adopt(42, QUICK), *windows(42, 46),
        StopRun(run_id="run-1", reason="stopped by a signal", at_ms=at(47.5)),
        start(2, 48), PassWindows(until=at(48)), *windows(48, 52),
    ]  # fmt: skip


def operators() -> list[Command]:
    """Freezes, caps and unfreezes, by people and through Redis; a clock; a disobedient bot."""
    freeze, cap, unfreeze = OverrideKind.FREEZE, OverrideKind.CAP, OverrideKind.UNFREEZE
    return [
        start(1, 0), adopt(0, QUICK), *windows(0, 2),
        override(1, freeze, 3.2, expires_at_ms=at(5.5)), *windows(3, 4),
        ExpireOverrides(at_ms=at(5.6)), *windows(5, 6),
        override(2, unfreeze, 7.1), window(7),
        override(3, freeze, 8.1, symbol="ETHUSDT"),
        override(4, cap, 8.2, cap=0.25, expires_at_ms=at(9.5)), window(8),
        ClearOverride(id="override-3", at_ms=at(9.1), actor="bob", reason="it was the feed"),
        window(9), override(5, unfreeze, 10.1, symbol="ETHUSDT"),
        foreign_write(1, None, "FROZEN", "ACTIVE"), foreign_write(2, "BTCUSDT", "0.1", "1.0"),
        foreign_write(3, "BTCUSDT", "1.0", "0.1"), foreign_write(4, None, "???", "FROZEN"),
        ReportFill(
            symbol="BTCUSDT", filled_at_ms=at(10.9), frozen_since_ms=at(10.5), notional=512.5,
            grace_ms=5_000,
        ),
        *windows(10, 11), ObserveClock(window=at(2)), *windows(12, 14),
        ClearOverride(id="redis-1", at_ms=at(15.1), actor="ann"), *windows(15, 19),
        StopRun(run_id="run-1", reason="the windows asked for are decided", at_ms=at(20)),
    ]  # fmt: skip


def two_streams() -> dict[str, list[Command]]:
    """A run and a dry run of the same market."""
    dry: list[Command] = [start(2, 0, dry_run=True), adopt(0, Policy()), *windows(0, 4)]
    wet: list[Command] = [start(1, 0), adopt(0, QUICK), *windows(0, 3), window(4, CRITICAL)]
    return {"dev:bybit": wet, "dev:bybit:dry-run": dry}


LEDGERS: Final[dict[str, dict[str, list[Command]]]] = {
    "incident-1": {"dev:bybit": incident()},
    "operators-1": {"dev:bybit": operators()},
    "two-streams-1": two_streams(),
}


def make(path: Path, streams: dict[str, list[Command]]) -> None:
    """Make one ledger, and beside it what its streams fold to."""
    with Ledger.open(LedgerLocation(path)) as ledger:
        for stream_id, commands in streams.items():
            _tell(ledger, StreamState(stream_id), commands)
        expected = {stream_id: _states(ledger, stream_id) for stream_id in streams}
    text = json.dumps(expected, indent=1, ensure_ascii=False) + "\n"
    path.with_suffix(".json").write_text(text, encoding="utf-8")


def _tell(ledger: Ledger, stream: StreamState, commands: Iterable[Command]) -> None:
    for number, command in enumerate(commands):
        events = decide(stream.state.policy, stream.state, command)
        assert events, f"{stream.id}: {command} leads to nothing"
        stream = ledger.append(stream, events, decided_at_ms=at(number))


def _states(ledger: Ledger, stream_id: str) -> dict[str, Any]:
    last = ledger.last_version(stream_id)
    versions = [*range(VERSIONS_EVERY, last, VERSIONS_EVERY), last]
    return {
        str(version): state_as_json(ledger.stream(stream_id, version=version).state)
        for version in versions
    }


def state_as_json(state: State) -> Any:
    """Return the state as plain values, as JSON would have them."""
    return msgspec.json.decode(msgspec.json.encode(state))


if __name__ == "__main__":
    for name, content in LEDGERS.items():
        target = Path(sys.argv[1]) / f"{name}.sqlite"
        if target.exists():
            sys.exit(f"{target} is there; a golden ledger is never made again")
        make(target, content)
