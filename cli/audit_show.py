"""
`live audit show`: one window whole, event by event.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import click
import msgspec

from cli.audit_options import (
    Audited,
    TimesCommand,
    audited,
    form_of,
    form_options,
    now_ms,
    open_ledger,
    symbol_option,
    write_form,
)
from cli.explained import kpi_text
from cli.options import reads_ledger
from cli.tables import Column, Kind, Table
from cli.times import parse_moment
from domain.errors import BadInput, CannotTell
from domain.events import GapObserved, KpiObserved, SymbolMemory, SymbolObservation
from domain.policy import Policy
from domain.windows import format_time
from ledger.application import Ledger
from ledger.codec import Record
from ledger.reading import accounted_until, first_version_from, observation_of, unit_of
from projections.explaining import kpis_of
from projections.timeline import kind_of, own_time, symbol_of
from projections.wording import in_words

POSITION_MAX: Final = 2**63 - 1

_VERSION: Final = re.compile(r"v([0-9]{1,15})")

COLUMNS: Final[tuple[Column, ...]] = (
    Column("version", Kind.COUNT, lambda shown: shown.record.version),
    Column("position", Kind.COUNT, lambda shown: shown.record.position),
    Column("at", Kind.TIME, lambda shown: shown.at_ms),
    Column("kind", Kind.TEXT, lambda shown: kind_of(shown.record.event)),
    Column("symbol", Kind.TEXT, lambda shown: symbol_of(shown.record.event)),
    Column("text", Kind.TEXT, lambda shown: in_words(shown.record.event)),
    Column("decided_at", Kind.TIME, lambda shown: shown.record.decided_at_ms),
    Column("event", Kind.JSON, lambda shown: msgspec.to_builtins(shown.record.event)),
)


class Shown(NamedTuple):
    """An event, and when it took effect in the stream's own time."""

    record: Record
    at_ms: int


@click.command(cls=TimesCommand)
@click.argument("what", metavar="WINDOW|POSITION")
@reads_ledger
@form_options
@symbol_option("Leave out what is about another symbol alone.")
def show(what: str, symbol: str | None, **given: Any) -> None:
    """
    Show one window whole, event by event.

    WINDOW is any time in it; a number is an event's position in the ledger, v and a number its
    version in the stream. What was done since the window before is shown with it. Exit codes: 0
    fine, 2 bad usage or no such event, 3 no such window, 5 the ledger is damaged.
    """
    form = form_of(given)
    with open_ledger(given) as ledger:
        if what.isdecimal():
            record = _at_position(ledger, int(what))
            stream, asked = audited(ledger, given, record.stream), record.version
        else:
            stream = audited(ledger, given)
            asked = _version_of(stream, what)
        stream.check_symbol(symbol)
        first, last = unit_of(ledger, stream.id, asked)
        shown = [
            Shown(record, _time_of(stream, record))
            for record in ledger.placed_records(stream.id, after=first - 1, up_to=last)
            if symbol is None or symbol_of(record.event) in (None, symbol)
        ]
        lines = [] if form is not None else list(_lines(stream, shown, asked, symbol))
    if form is not None:
        write_form(Table("window", COLUMNS, shown), form, given)
    for line in lines:
        click.echo(line)


def _at_position(ledger: Ledger, position: int) -> Record:
    found = (
        ledger.records_by_position(after=position - 1, limit=1)
        if 0 < position <= POSITION_MAX
        else []
    )
    if not found or found[0].position != position:
        raise BadInput(f"the ledger {ledger.location} has no position {position}")
    return found[0]


def _version_of(stream: Audited, what: str) -> int:
    """Return the version that is asked for, or that of a window's observation or gap."""
    named = _VERSION.fullmatch(what)
    if named is not None:
        version = int(named[1])
        if not 1 <= version <= stream.now.version:
            raise BadInput(f"{stream.id} has versions 1 to {stream.now.version}, not {version}")
        return version
    at_ms = parse_moment(what, now_ms=now_ms(), option="WINDOW")
    if not stream.first_ms <= at_ms < stream.last_ms:
        raise CannotTell(
            f"no window from {format_time(at_ms)} is recorded; {stream.id} holds windows from "
            f"{format_time(stream.first_ms)} to {format_time(stream.last_ms)}"
        )
    interval_ms = stream.now.state.interval_ms
    window = at_ms - at_ms % interval_ms
    observed = observation_of(stream.ledger, stream.id, window)
    if observed is not None:
        return observed.version
    # A missing window's gap stands before the window that came after it.
    following = first_version_from(stream.ledger, stream.id, window)
    gaps = stream.ledger.placed_records(
        stream.id, up_to=following - 1, kinds=(GapObserved,), backwards=True
    )
    return next(record.version for record in gaps)


def _time_of(stream: Audited, record: Record) -> int:
    own_ms = own_time(record.event)
    if own_ms is not None:
        return own_ms
    return accounted_until(stream.ledger, stream.id, record.version) or stream.first_ms


def _lines(stream: Audited, shown: list[Shown], asked: int, only: str | None) -> Iterator[str]:
    yield f"{stream.id}  {_title(shown)}"
    for record, at_ms in shown:
        mark = ">" if record.version == asked else " "
        place = f"v{record.version} p{record.position}"
        event = record.event
        yield f"{mark} {place:16}  {format_time(at_ms):24}  {kind_of(event)}: {in_words(event)}"
        if isinstance(event, KpiObserved):
            before = stream.ledger.stream(stream.id, version=record.version - 1).state
            for symbol in event.symbols:
                if only in (None, symbol.memory.symbol):
                    yield from _symbol_lines(before.policy, symbol)
            yield (
                f"    after it: {event.ok_windows} OK and {event.warn_windows} WARN windows in a "
                f"row; content {event.content}"
            )
        if isinstance(event, GapObserved):
            for memory in event.memories:
                if only in (None, memory.symbol):
                    yield f"    {_memory_text(memory)}"


def _title(shown: list[Shown]) -> str:
    for record, _ in shown:
        event = record.event
        if isinstance(event, KpiObserved):
            return f"window {format_time(event.window)} to {format_time(event.end_ms)}"
        if isinstance(event, GapObserved):
            return f"gap {format_time(event.window)} to {format_time(event.end_ms)}"
    return "since the last window"


def _symbol_lines(policy: Policy, symbol: SymbolObservation) -> Iterator[str]:
    arrived = symbol.readings
    notional = "" if arrived.notional is None else f", notional {arrived.notional:g}"
    fills = "" if arrived.fills is None else f", {arrived.fills} fills"
    yield f"    {_memory_text(symbol.memory)}: {symbol.verdict}{notional}{fills}"
    for view in kpis_of(policy, symbol):
        yield f"        {view.kpi:18} {kpi_text(view)}"


def _memory_text(memory: SymbolMemory) -> str:
    kept = [name for name in ("frozen", "probation", "halted") if getattr(memory, name)]
    told = f", {', '.join(kept)}" if kept else ""
    return f"{memory.symbol} KPI-based {memory.throttle:g}, {memory.ok_windows} OK in a row{told}"
