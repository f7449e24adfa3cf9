"""
The options that the audit's commands share: a range of time, a symbol, and a form for machines.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from cli.options import choose_stream, fold_stream, json_option, ledger_to_read, reads_ledger
from cli.tables import Form, Table, write_table
from cli.texts import warn
from cli.times import is_time_ago, parse_moment
from domain.errors import BadInput, CannotTell
from domain.windows import format_time
from ledger.application import Ledger, StreamState
from ledger.reading import first_observation, stream_at_time

_Command = TypeVar("_Command", bound=Callable[..., Any])

TIMES_HELP = "ISO, a date, -2h, today, yesterday 14:00, now; UTC unless it has an offset."


class Span(msgspec.Struct, frozen=True):
    """
    From one moment up to, not including, another, in ms UTC; None for as far as the ledger goes.
    """

    from_ms: int | None = None
    to_ms: int | None = None

    def __str__(self) -> str:
        """Return the span in words."""
        start = "the beginning" if self.from_ms is None else format_time(self.from_ms)
        return f"{start} to {'the end' if self.to_ms is None else format_time(self.to_ms)}"


class Audited(msgspec.Struct, frozen=True):
    """A stream that is looked into, as it is now, and the times of its windows."""

    ledger: Ledger
    now: StreamState
    first_ms: int
    last_ms: int

    @property
    def id(self) -> str:
        """The stream's id."""
        return self.now.id

    def check_span(self, span: Span) -> None:
        """
        Refuse a span in which nothing is recorded, and say if a part of it is not.

        Raises:
            CannotTell: naming what is recorded.
        """
        recorded = f"{self.id} holds windows from {format_time(self.first_ms)} to " + format_time(
            self.last_ms
        )
        starts_late = span.from_ms is not None and span.from_ms >= self.last_ms
        if starts_late or (span.to_ms is not None and span.to_ms <= self.first_ms):
            raise CannotTell(f"nothing is recorded from {span}; {recorded}")
        starts_early = span.from_ms is not None and span.from_ms < self.first_ms
        if starts_early or (span.to_ms is not None and span.to_ms > self.last_ms):
            warn(f"nothing is known of a part of it: {recorded}")

    def check_symbol(self, symbol: str | None) -> None:
        """
        Refuse a symbol that the stream never had.

        Raises:
            BadInput: naming those that it has or had.
        """
        state = self.now.state
        known = (*state.symbol_names, *(memory.symbol for memory in state.retired))
        if symbol is not None and symbol not in known:
            raise BadInput(f"--symbol: {self.id} has {', '.join(known)}, not {symbol}")


class TimesCommand(click.Command):
    """A command whose arguments may be times ago: `-2h` would else be taken for options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; the parser of times strips the space before a time ago."""
        return super().parse_args(ctx, [f" {arg}" if is_time_ago(arg) else arg for arg in args])


def now_ms() -> int:
    """Return milliseconds since the epoch, UTC."""
    return time.time_ns() // 1_000_000


def span_options(command: _Command) -> _Command:
    """Give a command `--from` and `--to`; see `span_of`."""
    for option in (
        click.option("--to", "to", metavar="TIME", help="Up to, not including. [default: the end]"),
        click.option("--from", "from_", metavar="TIME", help=f"{TIMES_HELP} [default: the start]"),
    ):
        command = option(command)
    return command


def symbol_option(text: str) -> Callable[[_Command], _Command]:
    """Return `--symbol`."""
    return click.option("--symbol", metavar="SYMBOL", help=text)


def form_options(command: _Command) -> _Command:
    """Give a command `--json`, `--csv`, `--parquet` and `--output`; see `form_of`."""
    return table_options(json_option("Write one JSON object a row.")(command))


def table_options(command: _Command) -> _Command:
    """Give a command the forms of a table alone: `--csv`, `--parquet`, and `--output`."""
    for option in (
        click.option(
            "--output",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Write there instead of to stdout.",
        ),
        click.option("--parquet", "as_parquet", is_flag=True, help="Write Parquet."),
        click.option("--csv", "as_csv", is_flag=True, help="Write CSV, no cell of it a formula."),
    ):
        command = option(command)
    return command


def audit_options(command: _Command) -> _Command:
    """Give a command the options of a ledger, a span and a form."""
    return reads_ledger(span_options(form_options(command)))


def span_of(given: dict[str, Any]) -> Span:
    """
    Return the span that the options name.

    Raises:
        BadInput: if a time is none, or the span is empty.
    """
    now = now_ms()
    moments = [
        None if text is None else parse_moment(text, now_ms=now, option=option)
        for option, text in (("--from", given["from_"]), ("--to", given["to"]))
    ]
    span = Span(*moments)
    if span.from_ms is not None and span.to_ms is not None and span.from_ms >= span.to_ms:
        raise BadInput(
            f"--from, --to: expected a start before the end, which is exclusive, was {span}"
            + ("; a date is its beginning" if span.from_ms == span.to_ms else "")
        )
    return span


def form_of(given: dict[str, Any]) -> Form | None:
    """
    Return the form asked for; None for text for people.

    Raises:
        BadInput: if several are asked for, or a file without a form.
    """
    forms = [form for form in Form if given[f"as_{form}"]]
    if len(forms) > 1:
        raise BadInput(f"expected one of {', '.join(f'--{form}' for form in forms)}")
    if not forms and given["output"] is not None:
        raise BadInput("--output: expected --json, --csv or --parquet with it")
    return forms[0] if forms else None


def write_form(table: Table, form: Form, given: dict[str, Any]) -> None:
    """Write the table as asked for, and say where to if it is a file."""
    write_table(table, form, given["output"])
    if given["output"] is not None:
        click.echo(f"written: {given['output']}", err=True)


def open_ledger(given: dict[str, Any]) -> Ledger:
    """Return the ledger that the options name, to be read."""
    return Ledger.open(ledger_to_read(given["ledger"]), read_only=True)


def audited(ledger: Ledger, given: dict[str, Any], stream_id: str | None = None) -> Audited:
    """
    Return the stream of an id, else the one that the options name.

    Raises:
        CannotTell: if it has no window yet.
    """
    if stream_id is None:
        stream_id = choose_stream(ledger, given["env"], given["exchange"], given["dry_run"])
    stream = fold_stream(ledger, stream_id)
    first = first_observation(ledger, stream_id)
    last_ms = stream.state.next_window
    if first is None or last_ms is None:
        raise CannotTell(f"{stream_id} has no window yet: nothing has happened")
    return Audited(ledger, stream, first.window, last_ms)


def known_at(stream: Audited, at_ms: int) -> StreamState:
    """
    Return the stream as it was known at a time.

    Raises:
        CannotTell: if no window had ended then.
    """
    known = stream_at_time(stream.ledger, stream.id, at_ms)
    if known.state.observed is None:
        raise CannotTell(
            f"nothing was known at {format_time(at_ms)}: {stream.id} begins with the window "
            f"from {format_time(stream.first_ms)} to "
            f"{format_time(stream.first_ms + stream.now.state.interval_ms)}"
        )
    return known
