"""
From the text of a SOURCE to its windows: a ledger, a history's folder, a bundle, or a KPI
file.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from cli.options import choose_among, choose_stream
from cli.texts import warn
from domain.errors import BadInput
from domain.events import Event, RampProfile
from domain.state import State
from ledger.application import Ledger
from ledger.bundle import open_bundle
from ledger.location import parse_location
from replay.source import BundleSource, RecordedSource, SeriesSource, Source

if TYPE_CHECKING:
    from feeds.kpi_file import KpiFile

BUNDLE_SUFFIX: Final = ".zip"
KPI_FILE_SUFFIXES: Final = frozenset({".parquet", ".csv", ".jsonl", ".ndjson"})


class SourceOptions(msgspec.Struct, frozen=True):
    """Which symbols and stream of a source are meant; None and False for what it has."""

    symbols: tuple[str, ...] | None = None
    interval_ms: int | None = None
    env: str | None = None
    exchange: str | None = None
    dry_run: bool = False


@contextmanager
def open_source(
    text: str, options: SourceOptions, *, profile: RampProfile | None = None
) -> Iterator[Source]:
    """
    Give the source that the text names, for as long as it is used.

    Args:
        profile: limits to apply; None for the recorded ones, for a KPI file none.

    Raises:
        BadInput: if it can't be read, or what is in it doesn't fit the options.
        CannotTell: if it is a ledger that isn't there, or empty.
    """
    path = Path(text)
    if path.suffix.lower() in KPI_FILE_SUFFIXES:
        feed = open_kpi_file_told(path, options.symbols, options.interval_ms)
        yield SeriesSource(text, feed, profile=profile)
        return
    if path.suffix.lower() == BUNDLE_SUFFIX:
        yield open_bundle_source(path, options, profile)
        return
    with open_recorded(text, options) as stream:
        yield RecordedSource(
            text, stream.state, stream.events, symbols=options.symbols, profile=profile
        )


class RecordedStream(msgspec.Struct, frozen=True):
    """
    A stream's events, wherever they are kept.

    Attributes:
        ledger: where they are in one; None in a history.
        state: the fold of them.
        events: gives them from the beginning, each time it is called.
    """

    id: str
    ledger: Ledger | None
    state: State
    events: Callable[[], Iterator[Event]]


@contextmanager
def open_recorded(text: str, options: SourceOptions) -> Iterator[RecordedStream]:
    """
    Give the stream that is meant, of the ledger or the history's folder that the text names.

    Raises:
        BadInput: if several streams could be, or the one that is has another interval.
        CannotTell: if the ledger, the history or the stream isn't there.
    """
    with contextlib.ExitStack() as closing:
        if Path(text).is_dir():
            stream = _history_stream(Path(text), options)
        else:
            ledger = closing.enter_context(Ledger.open(parse_location(text), read_only=True))
            stream = _ledger_stream(ledger, options)
        recorded_ms = stream.state.interval_ms
        if options.interval_ms not in (None, recorded_ms):
            raise BadInput(
                f"--interval-sec: the stream {stream.id} has windows of {recorded_ms / 1000:g} s, "
                "which can't be changed"
            )
        yield stream


def _ledger_stream(ledger: Ledger, options: SourceOptions) -> RecordedStream:
    stream_id = choose_stream(ledger, options.env, options.exchange, options.dry_run)
    return RecordedStream(
        stream_id,
        ledger,
        ledger.stream(stream_id).state,
        lambda: (record.event for record in ledger.records(stream_id)),
    )


def _history_stream(folder: Path, options: SourceOptions) -> RecordedStream:
    from projections.history import open_history  # noqa: PLC0415
    from replay.history_events import events_of_history  # noqa: PLC0415

    history = open_history(folder)
    stream_id = choose_among(
        sorted(history.streams),
        f"the history {folder}",
        options.env,
        options.exchange,
        options.dry_run,
    )
    click.echo(history.streams[stream_id].told(), err=True)
    return RecordedStream(
        stream_id,
        None,
        history.streams[stream_id].state,
        lambda: events_of_history(history, stream_id),
    )


def open_bundle_source(
    path: Path, options: SourceOptions, profile: RampProfile | None
) -> BundleSource:
    """
    Return a bundle, checked whole; it is decided whole, too.

    Raises:
        BadInput: if it can't be read, or the options don't fit it.
    """
    if options.symbols is not None:
        raise BadInput(f"--symbols: {path} is a bundle, which begins in a state of all its symbols")
    bundle = open_bundle(path)
    source = BundleSource(bundle, profile=profile)
    if options.interval_ms not in (None, source.interval_ms):
        raise BadInput(
            f"--interval-sec: {path} has windows of {source.interval_ms / 1000:g} s, which can't "
            "be changed"
        )
    return source


def open_kpi_file_told(
    path: Path, symbols: tuple[str, ...] | None, interval_ms: int | None
) -> "KpiFile":
    """Return a KPI file, its interval, length and warnings told on stderr."""
    from feeds.kpi_file import open_kpi_file  # noqa: PLC0415

    feed = open_kpi_file(path, symbols=symbols, interval_ms=interval_ms)
    click.echo(f"interval {feed.interval_ms / 1000:g} s, {feed.window_count} windows", err=True)
    for warning in feed.warnings:
        warn(warning)
    return feed
