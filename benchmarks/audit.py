"""
What people ask after an incident, of a year's ledger: as a function, and as a whole command.

The peer of a function is the fold from the start that it does without; the year has 525,600
windows unless `--windows` says otherwise.
"""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import market
from benchmarks.measuring import ROOT, Figure, Scale, seconds
from cli.audit_episodes import episodes_in
from cli.audit_options import Audited, Span
from cli.audit_timeline import entries_in
from domain.windows import format_time
from ledger.application import Ledger
from ledger.location import LedgerLocation
from ledger.reading import stream_at_time
from projections.explaining import explain

AIM_QUERY_MS = 100.0
AIM_COMMAND_SEC = 1.0
TURNS = 7
DAY_MS = 86_400_000


def measure(scale: Scale) -> list[Figure]:
    path = scale.folder / "year.sqlite"
    market.fill(path, scale.windows)
    last_ms = market.ORIGIN_MS + scale.windows * market.INTERVAL_MS
    with Ledger.open(LedgerLocation(path)) as ledger:
        last = ledger.last_version(market.STREAM)
        plain_sec = seconds(lambda: ledger.stream(market.STREAM, version=last))
        filled_sec = seconds(lambda: list(ledger.fill_in_snapshots(market.STREAM, up_to=last)))
        stream = ledger.stream(market.STREAM)
        ledger.take_state_snapshot(stream)
        audited = Audited(ledger, stream, market.ORIGIN_MS, last_ms)
    middle_ms = market.ORIGIN_MS + scale.windows // 2 * market.INTERVAL_MS + 30_000
    day = Span(max(market.ORIGIN_MS, middle_ms - DAY_MS), middle_ms)
    with Ledger.open(LedgerLocation(path), read_only=True) as ledger:
        audited = Audited(ledger, stream, market.ORIGIN_MS, last_ms)
        figures = [
            _query(what, work, plain_sec)
            for what, work in (
                ("explain, now", partial(_explain, ledger, None)),
                ("explain --at, in the middle", partial(_explain, ledger, middle_ms)),
                ("timeline of a day", lambda: list(entries_in(audited, day, violations=False))),
                ("  with violations", lambda: list(entries_in(audited, day, violations=True))),
                ("episodes of it all", lambda: episodes_in(audited, Span())),
            )
        ]
    figures.append(
        Figure(
            what="all snapshots of the year, in steps", ours=filled_sec, unit="s", better="lower",
            peer=plain_sec, peer_name="fold from the start",
        )
    )  # fmt: skip
    return figures + _commands(path, middle_ms, day)


def _explain(ledger: Ledger, at_ms: int | None) -> object:
    if at_ms is None:
        stream = ledger.stream(market.STREAM)
        assert stream.state.next_window is not None
        return explain(ledger, stream, stream.state.next_window)
    return explain(ledger, stream_at_time(ledger, market.STREAM, at_ms), at_ms)


def _query(what: str, work: Callable[[], object], plain_sec: float) -> Figure:
    taken_sec = median(seconds(work) for _ in range(TURNS))
    return Figure(
        what=f"{what} (fold from the start: {plain_sec * 1e3:,.0f} ms)", ours=taken_sec * 1e3,
        unit="ms", better="lower", aim=AIM_QUERY_MS,
    )  # fmt: skip


def _commands(path: Path, middle_ms: int, day: Span) -> list[Figure]:
    assert day.from_ms is not None
    assert day.to_ms is not None
    span = ("--from", format_time(day.from_ms), "--to", format_time(day.to_ms))
    at = ("--at", format_time(middle_ms))
    questions = (
        ("explain",),
        ("explain", *at),
        ("explain", *at, "--what-if", "edge_bps=1", "--symbol", market.SYMBOLS[0]),
        ("audit", "timeline", *span),
        ("audit", "timeline", *span, "--parquet"),
        ("audit", "episodes"),
        ("audit", "show", format_time(middle_ms)),
        ("audit", "diff", format_time(day.from_ms), format_time(day.to_ms)),
    )
    return [
        Figure(
            what=f"live {_shown(question)}",
            ours=median(seconds(partial(_run, path, question)) for _ in range(TURNS)),
            unit="s",
            better="lower",
            aim=AIM_COMMAND_SEC,
        )
        for question in questions
    ]


def _shown(question: tuple[str, ...]) -> str:
    """Return a command without its times."""
    return " ".join(word for word in question if "T" not in word or word == "--to")


def _run(path: Path, question: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "cli.main", *question, "--ledger", str(path)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
    # An old ledger is stale now (3), which takes as long to say.
    assert done.returncode in (0, 3), done.stderr.decode()
    assert done.stdout
