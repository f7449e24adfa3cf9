"""
`live rebuild`: what was derived from the ledger, made again from it.

Each is made beside the old one and put in its place at once. Source: DESIGN.md section 3.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cli.options import (
    artifacts_option,
    choose_stream,
    ledger_to_read,
    live_option,
    reads_ledger,
    redis_url_options,
)
from cli.run_options import TTL_SEC_MAX, RedisOptions
from cli.secrets import hide_arguments, redis_url_of
from cli.texts import warn
from domain.errors import BadInput, CannotTell
from ledger.application import Ledger
from ledger.streams import controllers
from projections.history_manifest import default_folder

if TYPE_CHECKING:
    from projections.history_writer import Progress

PARTS: Final = ("history", "artifacts", "redis")
"""In the order in which `all` makes them: what can't be published must not keep the rest."""


@click.command()
@click.argument("what", type=click.Choice([*PARTS, "all"]))
@reads_ledger
@live_option(
    "--history",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder of the Parquet history. [default: LEDGER.history beside the ledger]",
)
@artifacts_option()
@redis_url_options
@live_option(
    "--ttl",
    type=click.IntRange(min=1, max=TTL_SEC_MAX),
    default=3600,
    show_default=True,
    help="Lifetime of the Redis keys, in seconds.",
)
def rebuild(
    what: str,
    ledger: str | None,
    env: str | None,
    exchange: str | None,
    dry_run: bool,
    history: Path | None,
    artifacts: Path,
    redis_url: str | None,
    redis_url_file: Path | None,
    ttl: int,
) -> None:
    """
    Make history, artifacts, Redis keys or all of them again from the ledger.

    Readers see the old until the new is whole; interrupted, the old stays. The history is made of
    every stream of the ledger, unless one is chosen; all leaves Redis out where none is named.
    Exit codes: 0 made, 2 bad usage or can't be written, 3 no data, 4 another process is at it, 5
    the ledger is damaged.
    """
    url, warning = redis_url_of(redis_url, redis_url_file)
    if what == "redis" and url is None:
        raise BadInput("live rebuild redis: name a Redis with --redis-url or --redis-url-file")
    for told in (warning, None if url is None else hide_arguments(url)):
        warn(told)
    with Ledger.open(ledger_to_read(ledger), read_only=True) as opened:
        one = what != "history" or env is not None or exchange is not None or dry_run
        chosen = choose_stream(opened, env, exchange, dry_run) if one else None
        if what in {"history", "all"}:
            folder = history or default_folder(opened.location.path)
            _rebuild_history(opened, folder, chosen)
        if chosen is not None and what in {"artifacts", "all"}:
            _rebuild_artifacts(opened, artifacts, chosen)
        if chosen is not None and what in {"redis", "all"} and url is not None:
            from cli.export import publish_state  # noqa: PLC0415

            options = RedisOptions(url=url, ttl_sec=ttl)
            publish_state(options, opened, chosen, force=False)


def _rebuild_history(ledger: Ledger, folder: Path, chosen: str | None) -> None:
    from projections.history_writer import HistoryWriter  # noqa: PLC0415

    streams = controllers(ledger.stream_ids()) if chosen is None else [chosen]
    if not streams:
        raise CannotTell(f"the ledger {ledger.location} is empty: no window has been decided yet")
    for stream_id in streams:
        writer = HistoryWriter(folder, stream_id, now_ms=lambda: time.time_ns() // 1_000_000)
        with _progress(f"History of {stream_id}", ledger.last_version(stream_id)) as progress:
            made = writer.rebuild(ledger, progress=progress)
        rows = sum(file.rows for file in made.files)
        click.echo(
            f"history of {stream_id}: {rows} rows in {len(made.files)} files, up to version "
            f"{made.version}: {folder}"
        )


def _rebuild_artifacts(ledger: Ledger, folder: Path, stream_id: str) -> None:
    from projections.artifacts import write_artifacts  # noqa: PLC0415
    from projections.files import prepare_folder  # noqa: PLC0415

    stream = ledger.stream(stream_id)
    prepare_folder(folder)
    write_artifacts(ledger, stream, folder)
    click.echo(f"artifacts of {stream_id}, version {stream.version}: {folder}")


@contextmanager
def _progress(label: str, events: int) -> "Iterator[Progress | None]":
    """Give what shows progress, where there is a terminal to show it on."""
    if not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=events, label=label, file=sys.stderr) as bar:
        yield bar.update
