"""
`live audit bundle`: a stretch of a stream in a ZIP file, for people and to be decided again.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from cli.audit_episodes import episodes_in
from cli.audit_options import Audited, Span, audited, open_ledger, span_of, span_options
from cli.audit_plot import drawn, picture_in
from cli.audit_timeline import entries_in
from cli.options import reads_ledger
from cli.tables import written_atomically
from cli.version import code_version
from domain.errors import BadInput, CannotTell
from domain.events import PolicyAdopted
from domain.state import FOLD_VERSION, State
from domain.windows import format_time
from ledger.application import StreamState
from ledger.bundle import (
    EVENTS,
    FORMAT_VERSION,
    STATE_BEFORE,
    BundleManifest,
    BundleWriter,
    event_lines,
    state_bytes,
)
from ledger.reading import units_between
from projections.report import escape, report_of
from projections.views import LedgerPlace, decision_of, summary_of
from projections.wording import cause_words

POLICIES: Final = "policies.json"
REPORT: Final = "report.md"
PLOT: Final = "plot.svg"


class Stretch(msgspec.Struct, frozen=True):
    """All that belongs to the windows of a span: the states at its ends, and the events between."""

    before: StreamState
    after: StreamState
    first_position: int
    last_position: int

    @property
    def span(self) -> Span:
        """From the first window's start to the last one's end."""
        before, after = self.before.state, self.after.state
        assert after.window is not None
        return Span(before.next_window, after.window + after.interval_ms)


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@reads_ledger
@span_options
def bundle(file: Path, **given: Any) -> None:
    """
    Put the windows of a span into FILE, a ZIP: events, policies, history, report and plot.

    `live replay FILE` decides them again on any machine, from the state before them. A manifest
    names every file with its SHA-256. The same stretch gives the same bytes. Exit codes: 0 fine, 2
    bad usage, 3 nothing is recorded there, 5 the ledger or its history is damaged.
    """
    if file.suffix.lower() != ".zip":
        raise BadInput(f"FILE: expected the ending .zip, was {file}")
    asked = span_of(given)
    with open_ledger(given) as ledger:
        stream = audited(ledger, given)
        stream.check_span(asked)
        stretch = _stretch(stream, asked)
        with written_atomically(file) as output:
            manifest = _write(BundleWriter(output), stream, stretch)
    for note in manifest.notes:
        click.echo(note, err=True)
    count = manifest.last_version - manifest.first_version + 1
    click.echo(
        f"written: {file}: {count} events, windows from {manifest.from_window} to "
        f"{manifest.to_window}",
        err=True,
    )


def _stretch(stream: Audited, asked: Span) -> Stretch:
    """
    Return the stretch that was asked for.

    Raises:
        CannotTell: if no window starts in it.
    """
    ledger = stream.ledger
    after, up_to = units_between(ledger, stream.id, asked.from_ms, asked.to_ms)
    if up_to <= after:
        raise CannotTell(f"no window of {stream.id} starts in the span from {asked}")
    positions = [
        next(iter(ledger.placed_rows(stream.id, after=version - 1, up_to=version))).id
        for version in (after + 1, up_to)
    ]
    before = ledger.stream(stream.id, version=after) if after else StreamState(stream.id)
    return Stretch(before, ledger.stream(stream.id, version=up_to), *positions)


def _write(writer: BundleWriter, stream: Audited, stretch: Stretch) -> BundleManifest:
    """Write all files, and return the manifest."""
    notes: list[str] = []
    after, up_to = stretch.before.version, stretch.after.version
    rows = stream.ledger.placed_rows(stream.id, after=after, up_to=up_to)
    writer.add(EVENTS, event_lines(rows))
    writer.add(STATE_BEFORE, [state_bytes(stretch.before.state)])
    writer.add(POLICIES, [_policies(stream, stretch)])
    for name, content in _history(stream, stretch):
        writer.add(name, [content])
    span = stretch.span
    if span.from_ms is None:
        span = Span(stream.first_ms, span.to_ms)
    writer.add(REPORT, [_report(stream, stretch, span)])
    try:
        writer.add(PLOT, [drawn(picture_in(stream, span), ".svg")])
    except BadInput as missing:
        notes.append(f"no {PLOT}: {missing}")
    assert span.from_ms is not None
    assert span.to_ms is not None
    return writer.finish(
        BundleManifest(
            format=FORMAT_VERSION,
            stream=stream.id,
            ledger_id=stretch.after.state.ledger_id,
            interval_ms=stretch.after.state.interval_ms,
            first_version=after + 1,
            last_version=up_to,
            first_position=stretch.first_position,
            last_position=stretch.last_position,
            from_window=format_time(span.from_ms),
            to_window=format_time(span.to_ms),
            fold_version=FOLD_VERSION,
            code_version=code_version(),
            notes=tuple(notes),
        )
    )


def _policies(stream: Audited, stretch: Stretch) -> bytes:
    """Return the policy in force before, and those that were adopted meanwhile, as JSON."""
    adopted = stream.ledger.placed_records(
        stream.id, after=stretch.before.version, up_to=stretch.after.version, kinds=[PolicyAdopted]
    )
    found = [] if not stretch.before.state.symbols else [_policy_before(stretch.before.state)]
    found += [
        {"version": record.version, **msgspec.to_builtins(record.event)} for record in adopted
    ]
    return msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"


def _policy_before(state: State) -> dict[str, Any]:
    return {
        "version": None,
        "policy": msgspec.to_builtins(state.policy),
        "policy_hash": state.policy_hash,
        "symbols": state.symbol_names,
        "profile": msgspec.to_builtins(state.profile),
    }


def _history(stream: Audited, stretch: Stretch) -> Iterator[tuple[str, bytes]]:
    """Yield the history's rows of just these events, a Parquet file a table that has any."""
    import pyarrow.compute as pc  # noqa: PLC0415 - only a bundle, a plot and SQL need it
    import pyarrow.parquet as pq  # noqa: PLC0415

    from projections.history import open_history  # noqa: PLC0415
    from projections.history_manifest import default_folder  # noqa: PLC0415
    from projections.history_schema import TABLES  # noqa: PLC0415

    folder = default_folder(stream.ledger.location.path)
    history = open_history(folder, ledger=stream.ledger, stream_id=stream.id)
    version = pc.field("ledger_version")
    chosen = (version > stretch.before.version) & (version <= stretch.after.version)
    for name in TABLES:
        rows = history.table(name, where=chosen)
        if rows.num_rows:
            content = io.BytesIO()
            pq.write_table(rows, content, compression="zstd")
            yield f"history/{name}.parquet", content.getvalue()


def _report(stream: Audited, stretch: Stretch, span: Span) -> bytes:
    """Return the state at the end, the episodes and the timeline, for people, as Markdown."""
    state, last = stretch.after.state, stretch.after
    place = LedgerPlace(last.id, last.version, stretch.last_position)
    parts = []
    if state.observed is not None:
        parts.append(report_of(summary_of(state, place), decision_of(state, place)))
    parts.append("## Episodes\n")
    for episode in episodes_in(stream, span):
        ended = "still open" if episode.ended_ms is None else f"to {format_time(episode.ended_ms)}"
        cause = escape(cause_words(episode.reasons, episode.triggered_by))
        parts.append(f"- **{episode.state}** {format_time(episode.started_ms)} {ended}: {cause}")
    parts.append("\n## Timeline\n")
    parts += [
        f"- `v{entry.version}` {format_time(entry.at_ms)}: {escape(entry.text)}"
        for entry in entries_in(stream, span, violations=False)
    ]
    return ("\n".join(parts) + "\n").encode()
