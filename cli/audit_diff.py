"""
`live audit diff`: policies, symbols and states at two times, compared.
"""

from typing import Any, Final

import click

from cli.audit_options import (
    TimesCommand,
    audited,
    form_of,
    form_options,
    known_at,
    now_ms,
    open_ledger,
    symbol_option,
    write_form,
)
from cli.options import reads_ledger
from cli.tables import Column, Kind, Table
from cli.texts import warn
from cli.times import parse_moment
from domain.errors import BadInput
from domain.windows import format_time
from projections.comparing import Difference, compare

COLUMNS: Final[tuple[Column, ...]] = (
    Column("section", Kind.TEXT, lambda difference: difference.section),
    Column("key", Kind.TEXT, lambda difference: difference.key),
    Column("before", Kind.TEXT, lambda difference: difference.before),
    Column("after", Kind.TEXT, lambda difference: difference.after),
    Column("loosens", Kind.FLAG, lambda difference: difference.loosens),
)


@click.command(cls=TimesCommand)
@click.argument("first", metavar="T1")
@click.argument("second", metavar="T2")
@reads_ledger
@form_options
@symbol_option("Leave out what is about another symbol alone.")
def diff(first: str, second: str, symbol: str | None, **given: Any) -> None:
    """
    Compare policies, symbols and states at two times, each as it was known then.

    T1 and T2 are ISO times, dates, -2h, yesterday 14:00, now. Exit codes: 0 fine, also
    where nothing differs, 2 bad usage, 3 nothing was known then, 5 the ledger is damaged.
    """
    form, asked_ms = form_of(given), now_ms()
    times = [
        parse_moment(text, now_ms=asked_ms, option=name)
        for name, text in (("T1", first), ("T2", second))
    ]
    if times[0] > times[1]:
        raise BadInput(
            f"T1, T2: expected the earlier first, was {format_time(times[0])}, then "
            f"{format_time(times[1])}"
        )
    with open_ledger(given) as ledger:
        stream = audited(ledger, given)
        stream.check_symbol(symbol)
        before, after = (known_at(stream, time_ms) for time_ms in times)
    if times[1] > stream.last_ms:
        warn(f"{stream.id} ends {format_time(stream.last_ms)}: nothing is known after that")
    found = list(compare(before.state, after.state, symbol))
    if form is not None:
        write_form(Table("diff", COLUMNS, found), form, given)
        return
    click.echo(
        f"{stream.id}  {format_time(times[0])} (v{before.version}) to "
        f"{format_time(times[1])} (v{after.version})"
    )
    for difference in found:
        click.echo(_line(difference))
    if not found:
        click.echo("nothing differs")


def _line(difference: Difference) -> str:
    loosens = "  (loosens)" if difference.loosens else ""
    before = "-" if difference.before is None else difference.before
    after = "-" if difference.after is None else difference.after
    return f"{difference.section:9} {difference.key}: {before} -> {after}{loosens}"
