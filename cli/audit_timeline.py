"""
`live audit timeline`: what happened, in order, in words.
"""

from collections.abc import Iterator
from typing import Any, Final

import click

from cli.audit_options import (
    Audited,
    Span,
    audit_options,
    audited,
    form_of,
    open_ledger,
    span_of,
    symbol_option,
    write_form,
)
from cli.tables import Column, Kind, Table
from domain.events import KpiObserved
from domain.windows import format_time
from ledger.reading import accounted_until, versions_between
from projections.timeline import TIMELINE_EVENTS, TimelineEntry, timeline_of

COLUMNS: Final[tuple[Column, ...]] = (
    Column("version", Kind.COUNT, lambda entry: entry.version),
    Column("position", Kind.COUNT, lambda entry: entry.position),
    Column("at", Kind.TIME, lambda entry: entry.at_ms),
    Column("kind", Kind.TEXT, lambda entry: entry.kind),
    Column("symbol", Kind.TEXT, lambda entry: entry.symbol),
    Column("text", Kind.TEXT, lambda entry: entry.text),
)


@click.command()
@audit_options
@symbol_option("What is about this symbol, and what is about all.")
@click.option("--violations", is_flag=True, help="Tell every window that was not OK, too.")
def timeline(symbol: str | None, violations: bool, **given: Any) -> None:
    """
    Tell what happened, in order, in words.

    Transitions, throttles, gaps, late windows, overrides, policies, runs, clock faults, foreign
    writes, fills while frozen; each line begins with its time, its version in the stream and its
    position in the ledger. Exit codes: 0 fine, 2 bad usage, 3 nothing is recorded there, 5 the
    ledger is damaged.
    """
    span, form = span_of(given), form_of(given)
    with open_ledger(given) as ledger:
        stream = audited(ledger, given)
        stream.check_symbol(symbol)
        stream.check_span(span)
        entries = (
            entry
            for entry in entries_in(stream, span, violations=violations)
            if symbol is None or entry.symbol in (None, symbol)
        )
        if form is not None:
            write_form(Table("timeline", COLUMNS, entries), form, given)
        elif not _print(entries):
            click.echo(f"nothing happened from {span}: every window left all as it was")


def entries_in(stream: Audited, span: Span, *, violations: bool) -> Iterator[TimelineEntry]:
    """Yield what happened in a span, windows that were not OK too if they are wanted."""
    ledger, stream_id = stream.ledger, stream.id
    after, up_to = versions_between(ledger, stream_id, span.from_ms, span.to_ms)
    kinds = (*TIMELINE_EVENTS, *([KpiObserved] if violations else []))
    records = ledger.placed_records(stream_id, after=after, up_to=up_to, kinds=kinds)

    def place_of(version: int) -> int:
        return accounted_until(ledger, stream_id, version) or stream.first_ms

    yield from timeline_of(records, place_of, from_ms=span.from_ms, to_ms=span.to_ms)


def _print(entries: Iterator[TimelineEntry]) -> bool:
    """Print a line an entry; return whether there was one."""
    is_any = False
    for entry in entries:
        is_any = True
        place = f"v{entry.version} p{entry.position}"
        click.echo(f"{format_time(entry.at_ms):24}  {place:16}  {entry.text}")
    return is_any
