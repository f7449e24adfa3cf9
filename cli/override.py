"""
`live override`: an operator's word above the rules.

A request goes to the stream's runner through the ledger's inbox; only the runner writes the
ledger. Source: DESIGN.md section 1, Overrides.
"""

import getpass
import os
import time
import uuid
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

import click
import msgspec

from cli.options import (
    DEFAULT_ENV,
    DEFAULT_EXCHANGE,
    choose_stream,
    json_option,
    ledger_to_read,
    live_option,
    reads_ledger,
    redis_url_options,
)
from cli.publishing import end_hold, hold
from cli.secrets import hide_arguments, redis_url_of
from cli.texts import duration_ms_of, to_json, warn
from domain.errors import BadInput, CannotTell, CommandRefused
from domain.events import Override, OverrideKind
from domain.state import State
from domain.windows import format_time
from ledger.application import Ledger
from ledger.inbox import Answer, Clearance, Inbox, Request
from ledger.location import LedgerLocation
from ledger.lock import Holder, stream_holder
from ledger.streams import stream_key
from projections.views import OverrideView, override_view
from redis_link.url import parse_redis_url

ANSWER_SEC: Final = 5.0
POLL_SEC: Final = 0.02
TEXT_MAX: Final = 500

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Target(NamedTuple):
    """The stream that is meant, as it is now, and who runs it."""

    location: LedgerLocation
    stream_id: str
    state: State
    holder: Holder | None

    @property
    def inbox(self) -> Inbox:
        """Where its runner looks for requests."""
        return Inbox(self.location, self.stream_id)


class OverridesView(msgspec.Struct, frozen=True):
    """`live override list --json`: those in force, and the requests that no runner has taken."""

    in_force: tuple[OverrideView, ...]
    waiting: tuple[Request, ...]


@click.group()
def override() -> None:
    """
    Freeze, cap or unfreeze by hand; list and clear what is in force.

    Exit codes: 0 done, 2 bad usage or refused, 3 no runner answered, 5 the ledger is damaged.
    """


def _asks(command: _Command) -> _Command:
    """Give a command the options of every request."""
    for option in (
        redis_url_options,
        reads_ledger,
        live_option("--by", help="Who says so. [default: the user's name]"),
        click.option("--reason", required=True, help="Why; it is recorded and shown."),
    ):
        command = option(command)
    return command


def _for_a_symbol(command: _Command) -> _Command:
    return click.option("--symbol", help="One symbol only. [default: all]")(command)


def _for_a_time(command: _Command) -> _Command:
    return click.option(
        "--for", "duration", metavar="DURATION", help="How long: 90s, 30m, 2h, 1d. [default: until "
        "cleared]"
    )(command)  # fmt: skip


@override.command()
@_for_a_symbol
@_for_a_time
@_asks
def freeze(symbol: str | None, duration: str | None, reason: str, **given: Any) -> None:
    """
    FROZEN at once, or one symbol at 0.0, held until it expires or is cleared.

    If no runner takes it within 5 s, a hold is set in Redis itself, where a URL is given: nothing
    above FROZEN is published then. Exit codes: 0 in force, 2 bad usage or refused, 3 no runner.
    """
    _override(OverrideKind.FREEZE, symbol, duration, reason, None, given)


@override.command()
@click.argument("cap", type=float)
@_for_a_symbol
@_for_a_time
@_asks
def cap(cap: float, symbol: str | None, duration: str | None, reason: str, **given: Any) -> None:
    """
    Bound the effective throttle by CAP, from 0.0 to 1.0; the lowest cap wins.

    Exit codes: 0 in force, 2 bad usage or refused, 3 no runner answered.
    """
    _override(OverrideKind.CAP, symbol, duration, reason, cap, given)


@override.command()
@click.option("--confirm", is_flag=True, help="Say that it is safe to trade again.")
@_for_a_symbol
@_asks
def unfreeze(confirm: bool, symbol: str | None, reason: str, **given: Any) -> None:
    """
    ACTIVE at once, every symbol's freeze and every count forgotten; no rule is silenced.

    It needs a live runner, and is refused while a freeze override is in force. Exit codes: 0 done,
    2 bad usage or refused, 3 no runner answered.
    """
    if not confirm:
        raise BadInput("unfreeze lets the bot trade again at once; say so with --confirm")
    _override(OverrideKind.UNFREEZE, symbol, None, reason, None, given)


@override.command()
@click.argument("override_id", metavar="ID")
@_asks
def clear(override_id: str, reason: str, **given: Any) -> None:
    """
    End the override ID before it expires; `live override list` names those in force.

    Exit codes: 0 ended, 2 bad usage or refused, 3 no runner answered.
    """
    _hide_url(given)
    target = _target(given)
    now_ms = time.time_ns() // 1_000_000
    asked = Clearance(override_id, now_ms, _actor(given["by"]), _text("--reason", reason))
    _ask(target, Request(id=_request_id(now_ms), clearance=asked), given)


@override.command(name="list")
@reads_ledger
@json_option()
def list_overrides(as_json: bool, **given: Any) -> None:
    """
    List the overrides in force, and the requests that no runner has taken yet.

    Exit codes: 0 fine, 2 bad usage, 3 no data, 5 the ledger is damaged.
    """
    target = _target(given)
    waiting = tuple(target.inbox.pending())
    in_force = tuple(override_view(override) for override in target.state.overrides_in_force)
    if as_json:
        click.echo(to_json(OverridesView(in_force, waiting)))
        return
    for view in in_force:
        bound = "" if view.cap is None else f" {view.cap:g}"
        click.echo(
            f"{view.id}  {view.kind}{bound}  {view.symbol or 'all'}  by {view.actor}: "
            f"{view.reason}  since {view.applied_at}, until {view.expires_at or 'cleared'}"
        )
    for request in waiting:
        click.echo(f"{request.id}  waits for a runner")
    if not in_force and not waiting:
        click.echo("no override is in force")


def _override(
    kind: OverrideKind,
    symbol: str | None,
    duration: str | None,
    reason: str,
    cap: float | None,
    given: dict[str, Any],
) -> None:
    """Ask the runner for an override and say what became of it."""
    _hide_url(given)
    target = _target(given)
    now_ms = time.time_ns() // 1_000_000
    asked = Override(
        id=_request_id(now_ms),
        kind=kind,
        actor=_actor(given["by"]),
        reason=_text("--reason", reason),
        applied_at_ms=now_ms,
        symbol=symbol,
        cap=cap,
        expires_at_ms=None if duration is None else now_ms + duration_ms_of(duration),
    )
    if symbol is not None and target.state.symbols and symbol not in target.state.symbol_names:
        known = ", ".join(target.state.symbol_names)
        raise BadInput(f"--symbol: {target.stream_id} has {known}, not {symbol}")
    if cap is not None and not 0.0 <= cap <= 1.0:
        raise BadInput(f"expected a cap from 0.0 to 1.0, was {cap}")
    lapses_ms = None
    if kind is OverrideKind.UNFREEZE:
        if target.holder is None:
            raise CommandRefused(
                f"no runner holds {target.stream_id}: an unfreeze needs one that watches what it "
                "lets loose"
            )
        lapses_ms = now_ms + round(ANSWER_SEC * 1000)
    _ask(target, Request(id=asked.id, override=asked, valid_until_ms=lapses_ms), given)


def _ask(target: Target, request: Request, given: dict[str, Any]) -> None:
    """Leave a request, wait for the answer, and say it."""
    target.inbox.put(request)
    answer = _await_answer(target, request) or _unanswered(target, request, given)
    if answer.refused is not None:
        raise CommandRefused(answer.refused)
    recorded = f"{request.id}, recorded as version {answer.version} of {target.stream_id}"
    click.echo(f"done: {answer.note or recorded}")


def _await_answer(target: Target, request: Request) -> Answer | None:
    """Return the runner's answer, None if none came; where there is no runner nobody waits."""
    deadline = time.monotonic() + (0.0 if target.holder is None else ANSWER_SEC)
    while (answer := target.inbox.take_answer(request)) is None:
        if time.monotonic() >= deadline:
            return None
        time.sleep(POLL_SEC)
    return answer


def _unanswered(target: Target, request: Request, given: dict[str, Any]) -> Answer:
    """
    Do what can be done without a runner, and say so; or return an answer that came meanwhile.

    Raises:
        CannotTell: saying who didn't answer, and what was done.
    """
    asked = request.override
    who = "no runner holds the stream" if target.holder is None else f"{target.holder} is silent"
    if asked is None or asked.kind is not OverrideKind.FREEZE:
        if not target.inbox.withdraw(request):
            raise CannotTell(
                f"{who}; the request was taken, see what became of it: live override list"
            )
        raise CannotTell(f"{who}; the request was taken back and nothing is changed")
    waits = f"{who}; the freeze waits in the inbox ({request.id}) for the next start"
    text = f"freeze by {asked.actor} at {format_time(asked.applied_at_ms)}: {asked.reason}"
    url, _warning = redis_url_of(given["redis_url"], given["redis_url_file"])
    if url is None:
        raise CannotTell(f"{waits}; no --redis-url was given, so what is published stays")
    told = hold(url, target.stream_id, text, request.id)
    answer = target.inbox.take_answer(request)
    if answer is None:
        raise CannotTell(f"{waits}; {told}")
    # The runner took it while the hold was being set, so that nobody else would end it.
    end_hold(url, target.stream_id, request.id)
    return answer


def _hide_url(given: dict[str, Any]) -> None:
    """Warn about a secret in the arguments, and take it out of sight while an answer is awaited."""
    url, warning = redis_url_of(given["redis_url"], given["redis_url_file"])
    for told in (warning, None if url is None else hide_arguments(url)):
        warn(told)
    if url is not None:
        parse_redis_url(url, env=given["env"] or DEFAULT_ENV)


def _target(given: dict[str, Any]) -> Target:
    location = ledger_to_read(given["ledger"])
    try:
        with Ledger.open(location, read_only=True) as ledger:
            stream_id = choose_stream(ledger, given["env"], given["exchange"], given["dry_run"])
            state = ledger.stream(stream_id).state
    except CannotTell:
        # A runner that has decided no window yet has written nothing, and can be told all the same.
        key = stream_key(
            given["env"] or DEFAULT_ENV,
            given["exchange"] or DEFAULT_EXCHANGE,
            dry_run=given["dry_run"],
        )
        holder = stream_holder(location, str(key))
        if holder is None:
            raise
        return Target(location, str(key), State(), holder)
    return Target(location, stream_id, state, stream_holder(location, stream_id))


def _actor(by: str | None) -> str:
    if by is None:
        try:
            by = getpass.getuser()
        except (KeyError, OSError):
            by = f"uid {os.getuid()}"
    return _text("--by", by)


def _text(option: str, text: str) -> str:
    """Return text that people typed, on one line."""
    text = " ".join(text.split())
    if not text or len(text) > TEXT_MAX or not text.isprintable():
        raise BadInput(f"{option}: expected 1 to {TEXT_MAX} printable characters")
    return text


def _request_id(now_ms: int) -> str:
    """Return an id that sorts by time."""
    return f"{now_ms:013d}-{uuid.uuid4().hex[:8]}"
