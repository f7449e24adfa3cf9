"""
`live explain`: why the state is what it is, or was, and what would have to happen to leave it.

Source: issue 5, `live explain`.
"""

from typing import Any, Final, NamedTuple

import click
from msgspec.structs import replace

from cli.audit_options import (
    TIMES_HELP,
    audited,
    form_of,
    known_at,
    now_ms,
    open_ledger,
    symbol_option,
    table_options,
    write_form,
)
from cli.explained import show_explanation
from cli.options import json_option, reads_ledger
from cli.tables import Column, Form, Kind, Table
from cli.texts import to_json
from cli.times import parse_moment
from domain.errors import BadInput, CannotTell
from domain.windows import parse_time
from projections.explaining import explain as explain_stream
from projections.explanation import Explanation, KpiView, SymbolExplanation


class ExplainedKpi(NamedTuple):
    """A row of the explanation as a table: a KPI of a symbol."""

    view: Explanation
    symbol: SymbolExplanation
    kpi: KpiView


COLUMNS: Final[tuple[Column, ...]] = (
    Column("version", Kind.COUNT, lambda row: row.view.ledger.version),
    Column("position", Kind.COUNT, lambda row: row.view.ledger.position),
    Column("at", Kind.TIME, lambda row: parse_time(row.view.at)),
    Column("stale", Kind.FLAG, lambda row: row.view.stale),
    Column("window_start", Kind.TIME, lambda row: parse_time(row.view.window.start)),
    Column("state", Kind.TEXT, lambda row: row.view.state),
    Column("symbol", Kind.TEXT, lambda row: row.symbol.symbol),
    Column("per_symbol_throttle", Kind.NUMBER, lambda row: row.symbol.per_symbol_throttle),
    Column("effective_throttle", Kind.NUMBER, lambda row: row.symbol.effective_throttle),
    Column("kpi", Kind.TEXT, lambda row: row.kpi.kpi),
    Column("value", Kind.NUMBER, lambda row: row.kpi.value),
    Column("arrived", Kind.TEXT, lambda row: row.kpi.arrived),
    Column("breached_when", Kind.TEXT, lambda row: row.kpi.breached_when),
    Column("threshold", Kind.NUMBER, lambda row: row.kpi.threshold),
    Column("headroom", Kind.NUMBER, lambda row: row.kpi.headroom),
    Column("verdict", Kind.TEXT, lambda row: row.kpi.verdict),
    Column("excused", Kind.FLAG, lambda row: row.kpi.excused),
    Column("no_data_windows", Kind.COUNT, lambda row: row.kpi.no_data_windows),
)


@click.command()
@reads_ledger
@click.option("--at", metavar="TIME", help=f"{TIMES_HELP} [default: now]")
@symbol_option("This symbol alone, with each of its KPIs.")
@click.option(
    "--what-if",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Decide that window again with another KPI value (none for absent), threshold or count "
    "of the policy, and what followed. Several may be given.",
)
@click.option(
    "--windows",
    type=click.IntRange(min=0, max=1_000_000),
    help="How many windows after it a what-if replays. [default: 1440]",
)
@table_options
@json_option("Print JSON, all of it; CSV and Parquet have a row a symbol and KPI.")
def explain(
    at: str | None,
    symbol: str | None,
    changes: tuple[str, ...],
    windows: int | None,
    **given: Any,
) -> None:
    """
    Say why the state is what it is, or was, and what would have to happen to leave it.

    As it was known then: windows that had ended, and what was done up to that time. STALE means
    that the last window was too old then to be believed. With --what-if a value is that of
    --symbol, else of the symbol that the window was not OK for; a threshold is everybody's, or
    that of --symbol. Exit codes: 0 fine, 2 bad usage, 3 stale or nothing was known, 5 the ledger
    is damaged.
    """
    if windows is not None and not changes:
        raise BadInput("--windows: expected --what-if with it")
    form = form_of(given)
    if form is Form.JSON and given["output"] is not None:
        raise BadInput("--output: expected --csv or --parquet with it")
    if changes and form in (Form.CSV, Form.PARQUET):
        raise BadInput(f"--{form}: expected no --what-if with it; --json has all of that")
    with open_ledger(given) as ledger:
        stream = audited(ledger, given)
        stream.check_symbol(symbol)
        asked_ms = now_ms()
        at_ms = asked_ms if at is None else parse_moment(at, now_ms=asked_ms, option="--at")
        known = stream.now if at is None else known_at(stream, at_ms)
        if changes:
            from cli.what_if import explain_what_if  # noqa: PLC0415 - only who asks for it

            explain_what_if(stream, known, changes, symbol, windows, as_json=form is Form.JSON)
            return
        view = explain_stream(ledger, known, at_ms)
    if symbol is not None:
        view = of_symbol(view, symbol)
    match form:
        case None:
            show_explanation(view, in_detail=symbol is not None)
        case Form.JSON:
            click.echo(to_json(view))
        case _:
            rows = [ExplainedKpi(view, one, kpi) for one in view.symbols for kpi in one.kpis]
            write_form(Table("explanation", COLUMNS, rows), form, given)
    if view.stale:
        raise CannotTell(
            f"STALE at {view.at}: the last window known then ended {view.window.end}; "
            f"nothing is to be believed past {view.valid_until}"
        )


def of_symbol(view: Explanation, symbol: str) -> Explanation:
    """
    Return the explanation with one symbol alone.

    Raises:
        BadInput: if the stream didn't have it then.
    """
    found = tuple(one for one in view.symbols if one.symbol == symbol)
    if not found:
        had = ", ".join(one.symbol for one in view.symbols)
        raise BadInput(f"--symbol: {view.stream} had {had} at {view.at}, not {symbol}")
    return replace(view, symbols=found)
