"""
From the text of a SOURCE to its windows: a ledger, a bundle, or a KPI file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from cli.options import choose_stream
from cli.texts import warn
from domain.errors import BadInput
from domain.events import RampProfile
from ledger.application import Ledger
from ledger.bundle import open_bundle
from ledger.location import parse_location
from replay.source import BundleSource, LedgerSource, SeriesSource, Source

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
    with open_ledger_stream(text, options) as (ledger, stream_id):
        yield LedgerSource(ledger, stream_id, symbols=options.symbols, profile=profile)


@contextmanager
def open_ledger_stream(text: str, options: SourceOptions) -> Iterator[tuple[Ledger, str]]:
    """
    Give the ledger that the text names, and the stream in it that is meant.

    Raises:
        BadInput: if several streams could be, or the one that is has another interval.
        CannotTell: if the ledger or the stream isn't there.
    """
    with Ledger.open(parse_location(text), read_only=True) as ledger:
        stream_id = choose_stream(ledger, options.env, options.exchange, options.dry_run)
        recorded_ms = ledger.stream(stream_id).state.interval_ms
        if options.interval_ms not in (None, recorded_ms):
            raise BadInput(
                f"--interval-sec: the stream {stream_id} has windows of {recorded_ms / 1000:g} s, "
                "which can't be changed"
            )
        yield ledger, stream_id


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
