"""
An explanation as text for people.
"""

from collections.abc import Iterator

import click

from cli.durations import age_text, duration_text
from domain.kpis import KPI_BY_NAME
from domain.verdicts import format_threshold
from projections.explanation import Explanation, KpiView, SymbolExplanation
from projections.report import way_back
from projections.views import ViolationView
from projections.wording import cause_words

COLOURS = {"ACTIVE": "green", "COOLDOWN": "yellow", "FROZEN": "red"}


def show_explanation(view: Explanation, *, in_detail: bool) -> None:
    """Print the explanation, each symbol's KPIs too if it is to be in detail."""
    state = click.style(view.state, fg=COLOURS[view.state], bold=True)
    stale = click.style("STALE ", fg="red", bold=True) if view.stale else ""
    click.echo(f"{view.stream}  {stale}{state}  {view.throttle:g}  at {view.at}")
    for line in (*_global_lines(view), "", *_symbol_lines(view)):
        click.echo(line)
    if in_detail:
        for symbol in view.symbols:
            for line in ("", *_detail_lines(symbol)):
                click.echo(line)


def violation_lines(violations: tuple[ViolationView, ...]) -> Iterator[str]:
    """Yield each violation with its verdict, and how far beyond its threshold it lies."""
    for violation in violations:
        beyond = "" if violation.margin is None else f", {violation.margin:.6g} beyond"
        yield f"{violation.symbol} {violation.reason}  {violation.verdict}{beyond}"


def kpi_text(view: KpiView) -> str:
    """Return a KPI's value, its rule, its verdict and how far the two are apart."""
    kpi = KPI_BY_NAME[view.kpi]
    healthy = "at least" if view.breached_when == "<" else "at most"
    rule = f"{healthy} {format_threshold(kpi, view.threshold)}"
    if view.value is not None and view.headroom is not None:
        far = f"{abs(view.headroom):.6g} {'of room' if view.headroom >= 0 else 'beyond'}"
        return f"{view.value:<12.6g} {rule}: {view.verdict}, {far}"
    came = "absent" if view.arrived is None else f"{view.arrived} arrived"
    if view.excused:
        return f"no data      {rule}: {came}, excused by a waiver"
    if view.verdict is None:
        return f"no data      {rule}: {came}, not required"
    return f"no data      {rule}: {view.verdict}, {came} ({view.no_data_windows} windows)"


def _global_lines(view: Explanation) -> Iterator[str]:
    if view.since is None:
        yield "since       the ledger began"
    else:
        lasted = duration_text(round((view.for_sec or 0) * 1000))
        yield f"since       {view.since}, for {lasted}; {view.previous_state} before"
        yield f"cause       {cause_words(view.reasons, view.triggered_by)}"
    if view.deciding is not None:
        for line in violation_lines(view.deciding.violations):
            yield f"            {line}"
    missing = f", {view.missing_windows} missing since" if view.missing_windows else ""
    yield (
        f"window      {view.window.start} to {view.window.end}: {view.window.verdict}, "
        f"{age_text(view.age_sec)}{missing}"
    )
    for line in violation_lines(tuple(v for one in view.symbols for v in one.violations)):
        yield f"            {line}"
    if view.hysteresis.required is not None:
        yield f"way back    {way_back(view.state, view.hysteresis)}"
    for way in view.exits:
        when = "" if way.earliest is None else f", at the earliest {way.earliest}"
        note = "" if way.note is None else f"; {way.note}"
        yield f"to {way.to:9}{way.needs}{when}{note}"
        for blocked in way.blocked_by:
            yield f"            not while {blocked}"
    for override in view.overrides:
        bound = "" if override.cap is None else f" {override.cap:g}"
        yield (
            f"override    {override.kind}{bound} {override.symbol or 'all'} by {override.actor}: "
            f"{override.reason}, until {override.expires_at or 'it is cleared'}"
        )
    if view.clock_behind:
        yield "clock       behind the ledger: no window can be decided"


def _symbol_lines(view: Explanation) -> Iterator[str]:
    width = max(len(symbol.symbol) for symbol in view.symbols)
    yield f"{'symbol':{width}}  may trade  KPI-based  verdict  because"
    for symbol in view.symbols:
        because = "; ".join(symbol.limited_by) or "-"
        yield (
            f"{symbol.symbol:{width}}  {symbol.effective_throttle:9g}  "
            f"{symbol.per_symbol_throttle:9g}  {symbol.verdict or '-':7}  {because}"
        )
        if symbol.last_reset is not None:
            told = ", ".join(symbol.last_reset.reasons)
            yield f"{'':{width}}  last reset at {symbol.last_reset.window}: {told}"


def _detail_lines(symbol: SymbolExplanation) -> Iterator[str]:
    width = max((len(view.kpi) for view in symbol.kpis), default=0)
    yield f"{symbol.symbol}'s KPIs in the last window"
    for view in symbol.kpis:
        yield f"{view.kpi:{width}}  {kpi_text(view)}"
    if not symbol.kpis:
        yield "none: it wasn't among the symbols then"
