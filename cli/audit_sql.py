"""
`live audit sql`: one SELECT over the history, within bounds of memory and time.

DuckDB bounds most of what a query needs. One function that makes gigabytes, or takes for ever by
itself, it neither bounds nor interrupts: so the operating system bounds the process, and a query
that doesn't heed its interruption ends it.
"""

import contextlib
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cli.audit_options import form_of, form_options
from cli.options import NumberRange, ledger_option, ledger_to_read, live_option
from cli.texts import warn
from domain.errors import BadInput
from ledger.application import Ledger
from projections.history_manifest import default_folder

if TYPE_CHECKING:
    from projections.history import History

STATEMENT_BYTES_MAX: Final = 1 << 20
MEMORY_MB: Final = 1_024
TIMEOUT_SEC: Final = 30.0
ROWS_TOLD: Final = 1_000

SLACK_MB: Final = 1_024
"""What the process may map beside a query's memory: code, threads, what rows are written from."""

GRACE_SEC: Final = 3.0
"""How long an interrupted query may take to end before the process does."""


@click.command()
@click.argument("statement", required=False)
@click.option("--tables", "wants_tables", is_flag=True, help="List tables, views and columns.")
@live_option(
    "--history",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder of the history. [default: LEDGER.history beside the ledger]",
)
@ledger_option(
    "The ledger, for what the history doesn't hold yet; none if only --history is given."
)
@form_options
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    help=f"At most so many rows. [default: {ROWS_TOLD}; all as JSON, CSV or Parquet]",
)
@click.option(
    "--memory-mb",
    type=click.IntRange(min=64, max=1 << 20),
    default=MEMORY_MB,
    show_default=True,
    help="How much memory the query may use.",
)
@click.option(
    "--timeout-sec",
    type=NumberRange(min=0.1, max=86_400),
    default=TIMEOUT_SEC,
    show_default=True,
    help="How long the query may take.",
)
def sql(statement: str | None, wants_tables: bool, **given: Any) -> None:
    """
    Run one SELECT over the history: STATEMENT, or what - reads from stdin.

    It reads the history's tables and nothing else: no files, no network, no settings. Exit codes:
    0 fine, 2 refused, wrong or too large, 3 no history, 5 the history or the ledger is damaged.
    """
    if wants_tables:
        _tell_tables()
        return
    if statement is None:
        raise BadInput("expected a SELECT, - for stdin, or --tables")
    form = form_of(given)
    text = _statement(statement)
    from projections.history_sql import admit, answering  # noqa: PLC0415
    from projections.history_views import Limits, add_views, database  # noqa: PLC0415

    with (
        contextlib.closing(database(Limits(memory_mb=given["memory_mb"]))) as connection,
        contextlib.ExitStack() as bounds,
    ):
        names = admit(connection, text)
        history = _open(given["history"], given["ledger"])
        add_views(connection, history, names, is_locked=True)
        bounds.enter_context(_bounded_memory(given["memory_mb"]))
        bounds.enter_context(_bounded_time(given["timeout_sec"] + GRACE_SEC))
        bounds.enter_context(_interrupted_by_user(connection.interrupt))
        from cli.answers import tell_answer, write_answer  # noqa: PLC0415

        with answering(connection, text, timeout_sec=given["timeout_sec"]) as answer:
            if form is None:
                tell_answer(answer, rows_max=given["rows"] or ROWS_TOLD)
            else:
                write_answer(answer, form, given["output"], rows_max=given["rows"])
    if given["output"] is not None:
        click.echo(f"written: {given['output']}", err=True)


def _statement(given: str) -> str:
    """Return the statement that was given, or that stdin holds."""
    if given != "-":
        return given
    data = sys.stdin.buffer.read(STATEMENT_BYTES_MAX + 1)
    if len(data) > STATEMENT_BYTES_MAX:
        raise BadInput(f"stdin: expected a statement of at most {STATEMENT_BYTES_MAX} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"stdin: expected UTF-8: {error}") from None


def _open(folder: Path | None, ledger: str | None) -> "History":
    """Return the history, up to the ledger's end if there is one to read; say if it isn't."""
    from projections.history import open_history  # noqa: PLC0415

    if folder is not None and ledger is None:
        history = open_history(folder)
        for stream in history.streams.values():
            click.echo(f"{stream.told()}; without --ledger, that is all", err=True)
        return history
    with Ledger.open(ledger_to_read(ledger), read_only=True) as opened:
        for notice in opened.notices:
            warn(notice)
        return open_history(folder or default_folder(opened.location.path), ledger=opened)


@contextlib.contextmanager
def _bounded_memory(memory_mb: int) -> Iterator[None]:
    """Let the process have so much memory more, and some for what surrounds a query."""
    before, most = resource.getrlimit(resource.RLIMIT_AS)
    mapped = _mapped_bytes()
    if mapped is None:
        yield
        return
    bound = mapped + (memory_mb + SLACK_MB) * (1 << 20)
    for limit in (before, most):
        bound = bound if limit == resource.RLIM_INFINITY else min(bound, limit)
    resource.setrlimit(resource.RLIMIT_AS, (bound, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))


def _mapped_bytes() -> int | None:
    """Return how much memory the process has mapped; None where the system doesn't tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return None
    return pages * resource.getpagesize()


@contextlib.contextmanager
def _interrupted_by_user(interrupt: Callable[[], None]) -> Iterator[None]:
    """
    Let Ctrl-C reach a query that keeps the main thread, in which Python would handle it.

    Python's own handler then raises KeyboardInterrupt as ever.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    before = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)

    def listen() -> None:
        while numbers := os.read(told, 64):
            if signal.SIGINT in numbers:
                interrupt()
        os.close(told)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(tell)
        # What it interrupts is closed after this, and mustn't be before.
        thread.join()


@contextlib.contextmanager
def _bounded_time(seconds: float) -> Iterator[None]:
    """End the process if what is done in here takes longer; nothing less would end it."""

    def give_up() -> None:
        with contextlib.suppress(OSError):
            os.write(2, b"Error: stopped: the query took too long, and could not be interrupted\n")
        os._exit(BadInput.exit_code)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _tell_tables() -> None:
    """Print every table with its columns, their types and meanings, and the views."""
    from projections.history_queries import MEANINGS  # noqa: PLC0415
    from projections.history_schema import TABLES  # noqa: PLC0415

    for table, schema in TABLES.items():
        click.echo(f"{table}")
        for field in schema:
            meaning = (field.metadata or {})[b"meaning"].decode()
            click.echo(f"  {field.name:26} {field.type!s:22} {meaning}")
        click.echo()
    for view, meaning in MEANINGS.items():
        click.echo(f"{view:12} {meaning}")
