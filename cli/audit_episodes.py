"""
`live audit episodes`: the freezes and cooldowns, each with its cause and its way back.
"""

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
from cli.durations import count_text, duration_text
from cli.tables import Column, Kind, Table
from domain.windows import format_time
from ledger.reading import versions_between
from projections.episodes import Episode
from projections.ledger_episodes import episodes_of_stream
from projections.wording import cause_words

COLUMNS: Final[tuple[Column, ...]] = (
    Column("version", Kind.COUNT, lambda episode: episode.version),
    Column("position", Kind.COUNT, lambda episode: episode.position),
    Column("state", Kind.TEXT, lambda episode: episode.state),
    Column("throttle", Kind.NUMBER, lambda episode: episode.throttle),
    Column("started_at", Kind.TIME, lambda episode: episode.started_ms),
    Column("ended_at", Kind.TIME, lambda episode: episode.ended_ms),
    Column("open", Kind.FLAG, lambda episode: episode.is_open),
    Column("duration_ms", Kind.COUNT, lambda episode: episode.duration_ms),
    Column("previous_state", Kind.TEXT, lambda episode: episode.previous_state),
    Column("next_state", Kind.TEXT, lambda episode: episode.next_state),
    Column("cause", Kind.TEXT, lambda episode: episode.cause),
    Column("reasons", Kind.TEXTS, lambda episode: episode.reasons),
    Column("triggered_by", Kind.TEXT, lambda episode: episode.triggered_by),
    Column("kpi", Kind.TEXT, lambda episode: episode.kpi),
    Column("kpi_verdict", Kind.TEXT, lambda episode: episode.kpi_verdict),
    Column("value", Kind.NUMBER, lambda episode: episode.value),
    Column("comparator", Kind.TEXT, lambda episode: episode.comparator),
    Column("threshold", Kind.NUMBER, lambda episode: episode.threshold),
    Column("margin", Kind.NUMBER, lambda episode: episode.margin),
    Column("no_data_windows", Kind.COUNT, lambda episode: episode.no_data_windows),
    Column("windows", Kind.COUNT, lambda episode: episode.windows),
    Column("gap_windows", Kind.COUNT, lambda episode: episode.gap_windows),
    Column("windows_to_recover", Kind.COUNT, lambda episode: episode.windows_to_recover),
    Column("ended_by", Kind.TEXT, lambda episode: episode.ended_by),
    Column("end_reasons", Kind.TEXTS, lambda episode: episode.end_reasons),
    Column("overrides", Kind.TEXTS, lambda episode: episode.overrides),
)
"""The columns of the history's `episodes` view, for one stream."""


@click.command()
@audit_options
@symbol_option("Only what this symbol triggered.")
def episodes(symbol: str | None, **given: Any) -> None:
    """
    Show the freezes and cooldowns that lie in a span, or reach into it.

    A change from COOLDOWN to FROZEN ends the one and begins the other. Exit codes: 0 fine, 2 bad
    usage, 3 nothing is recorded there, 5 the ledger is damaged.
    """
    span, form = span_of(given), form_of(given)
    with open_ledger(given) as ledger:
        stream = audited(ledger, given)
        stream.check_symbol(symbol)
        stream.check_span(span)
        found = [
            episode
            for episode in episodes_in(stream, span)
            if symbol is None or episode.triggered_by == symbol
        ]
    if form is not None:
        write_form(Table("episodes", COLUMNS, found), form, given)
        return
    for episode in found:
        _print(episode)
    if not found:
        whose = "" if symbol is None else f" that {symbol} triggered"
        click.echo(f"no freeze and no cooldown{whose} from {span}")


def episodes_in(stream: Audited, span: Span) -> list[Episode]:
    """Return the episodes of which any part lies in the span, as far as is known now."""
    after, up_to = versions_between(stream.ledger, stream.id, span.from_ms, span.to_ms)
    found = episodes_of_stream(stream.ledger, stream.now, after=after, up_to=up_to)
    return [
        episode
        for episode in found
        if (span.to_ms is None or episode.started_ms < span.to_ms)
        and (span.from_ms is None or episode.ended_ms is None or episode.ended_ms > span.from_ms)
    ]


def _print(episode: Episode) -> None:
    end = "still open" if episode.ended_ms is None else f"to {format_time(episode.ended_ms)}"
    click.echo(
        f"{episode.state:8}  {format_time(episode.started_ms)} {end}  "
        f"{duration_text(episode.duration_ms)}, {count_text(episode.windows, 'window')}"
        + (f" ({episode.gap_windows} missing)" if episode.gap_windows else "")
        + f"  v{episode.version} p{episode.position}"
    )
    click.echo(f"    cause      {cause_words(episode.reasons, episode.triggered_by)}")
    if episode.ended_ms is not None:
        click.echo(f"    ended by   {', '.join(episode.end_reasons)} -> {episode.next_state}")
    for override in episode.overrides:
        click.echo(f"    meanwhile  {override}")
