"""
`live accuracy`: shadow decisions against live ones over the same windows.

Source: LIVE_MODE_GUIDE.md, Production Checklist; issue 6.
"""

import click

from cli.options import NumberRange, choose_stream, json_option, ledger_to_read, reads_ledger
from cli.texts import to_json
from domain.errors import CannotTell
from ledger.application import Ledger
from ledger.streams import parse_stream_id, shadows_of, stream_key
from replay.beside import Agreement, Decisions, agree, decisions_of

MIN_WINDOWS = 48
"""The guide's checklist wants a shadow or dry run to be stable for so many."""
MIN_AGREEMENT = 0.95
DRY_RUN = "dry-run"


@click.command()
@reads_ledger
@click.option(
    "--shadow",
    "names",
    multiple=True,
    metavar="NAME",
    help="Only this shadow, or dry-run. [default: all shadows, and the dry run if there is one]",
)
@click.option(
    "--last", type=click.IntRange(1), metavar="N", help="Only the last N windows in common."
)
@click.option(
    "--min-windows",
    type=click.IntRange(1),
    default=MIN_WINDOWS,
    show_default=True,
    help="Fewer windows in common can't tell.",
)
@click.option(
    "--min-agreement",
    type=NumberRange(0.0, 1.0),
    default=MIN_AGREEMENT,
    show_default=True,
    help="The share of windows that must agree.",
)
@json_option()
@click.pass_context
def accuracy(
    context: click.Context,
    ledger: str | None,
    env: str | None,
    exchange: str | None,
    dry_run: bool,
    names: tuple[str, ...],
    last: int | None,
    min_windows: int,
    min_agreement: float,
    as_json: bool,
) -> None:
    """
    Compare what shadows, or a dry run, decided with the live decisions over the same windows.

    A window agrees if the global state and every symbol's effective throttle are the same. Missing
    windows don't count. Exit codes: 0 PASS, 1 FAIL, 2 bad usage or input, 3 can't tell (no shadow,
    or too few windows in common), 5 the ledger is damaged.
    """
    with Ledger.open(ledger_to_read(ledger), read_only=True) as opened:
        stream_id = choose_stream(opened, env, exchange, dry_run)
        live = _decisions(opened, stream_id, "live")
        found = [
            agree(live, _decisions(opened, other, name), last)
            for name, other in _beside(opened, stream_id, names).items()
        ]
    verdicts = [_verdict(one, min_windows, min_agreement) for one in found]
    if as_json:
        rows = [
            {"verdict": verdict, "share": one.share, "agreement": one}
            for one, verdict in zip(found, verdicts, strict=True)
        ]
        click.echo(to_json(rows))
    else:
        for one, verdict in zip(found, verdicts, strict=True):
            _print(one, verdict)
    context.exit(3 if "CAN'T TELL" in verdicts else int("FAIL" in verdicts))


def _beside(ledger: Ledger, stream_id: str, names: tuple[str, ...]) -> dict[str, str]:
    """Return the streams to hold against the controller's, by name."""
    ids = ledger.stream_ids()
    there = shadows_of(ids, stream_id)
    key = parse_stream_id(stream_id)
    dry_run = str(stream_key(key.env, key.exchange, dry_run=True))
    if not key.dry_run and dry_run in ids:
        there[DRY_RUN] = dry_run
    for name in names:
        if name not in there:
            known = ", ".join(there) or "none"
            raise CannotTell(f"{stream_id} has no shadow {name}; it has {known}")
    if not there:
        raise CannotTell(f"{stream_id} has no shadow; run it with --shadow FILE")
    return {name: other for name, other in there.items() if not names or name in names}


def _decisions(ledger: Ledger, stream_id: str, name: str) -> Decisions:
    events = (record.event for record in ledger.records(stream_id))
    return decisions_of(events, name, ledger.stream(stream_id).state.interval_ms)


def _verdict(one: Agreement, min_windows: int, min_agreement: float) -> str:
    if one.windows < min_windows:
        return "CAN'T TELL"
    return "PASS" if one.share >= min_agreement else "FAIL"


def _print(one: Agreement, verdict: str) -> None:
    click.echo(
        f"{verdict:10} {one.name}: {one.agreeing} of {one.windows} windows agree ({one.share:.1%})"
    )
    if one.windows:
        click.echo(
            f"           {one.first} to {one.last}; more trading in {one.looser}, less in "
            f"{one.tighter}"
        )
    if one.first_difference is not None:
        told = ", ".join(f"{pair} {count}" for pair, count in sorted(one.states.items()))
        click.echo(f"           first difference {one.first_difference}; live/shadow: {told}")
