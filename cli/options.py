"""
Options that several commands share. Every option can come from a `LIVE_*` variable.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from cli.texts import warn
from domain.errors import BadInput, CannotTell
from ledger.application import Ledger, StreamState
from ledger.location import LedgerLocation, parse_location
from ledger.streams import controllers, stream_key

ARTIFACTS_FOLDER: Final = Path("artifacts/live/latest")
DEFAULT_LEDGER: Final = "artifacts/live/ledger.sqlite"
MOCK_LEDGER: Final = "artifacts/live/mock.sqlite"
DEFAULT_ENV: Final = "dev"
DEFAULT_EXCHANGE: Final = "bybit"

_Command = TypeVar("_Command", bound=Callable[..., Any])


class NumberRange(click.FloatRange):
    """A number in a range; NaN, which click lets through any range, is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, which may be infinite where the range is open."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"expected a number, was {value}", param, ctx)
        return number


def live_option(*names: str, **settings: Any) -> Callable[[_Command], _Command]:
    """Return a click option that a variable named after it can give: `--ttl`, `LIVE_TTL`."""
    variable = "LIVE_" + names[0].lstrip("-").replace("-", "_").upper()
    settings.setdefault("envvar", variable)
    settings.setdefault("show_envvar", True)
    return click.option(*names, **settings)


def stream_options(command: _Command) -> _Command:
    """Give a command the options that choose a stream in a ledger."""
    for option in (
        live_option("--dry-run", is_flag=True, help="The stream of a dry run."),
        live_option("--exchange", help="The stream's exchange, if there are several streams."),
        live_option("--env", help="The stream's environment, if there are several streams."),
    ):
        command = option(command)
    return command


def reads_ledger(command: _Command) -> _Command:
    """Give a command the options that choose a ledger and a stream in it."""
    choose = ledger_option(
        f"The ledger: a path or sqlite:///PATH. [default: {DEFAULT_LEDGER}, else {MOCK_LEDGER}]"
    )
    return choose(stream_options(command))


def ledger_option(text: str) -> Callable[[_Command], _Command]:
    """Return `--ledger`."""
    return live_option("--ledger", metavar="PATH|URL", help=text)


def redis_url_options(command: _Command) -> _Command:
    """Give a command the two ways to name a Redis server."""
    for option in (
        live_option(
            "--redis-url-file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="A file whose first line is the URL.",
        ),
        live_option(
            "--redis-url",
            metavar="URL",
            help="redis://, rediss:// or unix://; better from LIVE_REDIS_URL or a file than here.",
        ),
    ):
        command = option(command)
    return command


def artifacts_option() -> Callable[[_Command], _Command]:
    """Return `--artifacts`."""
    return live_option(
        "--artifacts",
        type=click.Path(file_okay=False, path_type=Path),
        default=ARTIFACTS_FOLDER,
        show_default=True,
        help="The folder of the LIVE_* files.",
    )


def json_option(text: str = "Print JSON.") -> Callable[[_Command], _Command]:
    """Return `--json`."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def ledger_to_read(given: str | None) -> LedgerLocation:
    """Return the ledger that was named, else the default one, else the mock feed's."""
    if given is not None:
        return parse_location(given)
    default = DEFAULT_LEDGER if Path(DEFAULT_LEDGER).exists() else MOCK_LEDGER
    return parse_location(default)


def choose_stream(ledger: Ledger, env: str | None, exchange: str | None, dry_run: bool) -> str:
    """
    Return the id of the stream that the options name, else of the only one there is.

    Raises:
        CannotTell: if it isn't there.
        BadInput: if there are several and none was named.
    """
    ids = controllers(ledger.stream_ids())
    if not ids:
        raise CannotTell(f"the ledger {ledger.location} is empty: no window has been decided yet")
    return choose_among(ids, f"the ledger {ledger.location}", env, exchange, dry_run)


def choose_among(
    ids: Sequence[str], place: str, env: str | None, exchange: str | None, dry_run: bool
) -> str:
    """
    Return the one of some streams that the options name; see `choose_stream`.

    Args:
        place: where the streams are, for messages.
    """
    if env is None and exchange is None and not dry_run:
        if len(ids) > 1:
            raise BadInput(
                f"{place} holds {', '.join(ids)}; choose one with --env, --exchange and --dry-run"
            )
        return ids[0]
    key = stream_key(env or DEFAULT_ENV, exchange or DEFAULT_EXCHANGE, dry_run=dry_run)
    if str(key) not in ids:
        raise CannotTell(f"{place} has no {key}; it holds {', '.join(ids)}")
    return str(key)


def read_stream(
    ledger: Ledger, env: str | None, exchange: str | None, dry_run: bool
) -> StreamState:
    """Return the chosen stream, folded, and say what was passed over; see `choose_stream`."""
    return fold_stream(ledger, choose_stream(ledger, env, exchange, dry_run))


def fold_stream(ledger: Ledger, stream_id: str) -> StreamState:
    """Return a stream folded, and say if a damaged snapshot was passed over."""
    stream = ledger.stream(stream_id)
    for notice in ledger.notices:
        warn(notice)
    return stream
