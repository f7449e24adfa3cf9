"""
`live status`: the state at a glance, and whether it can still be believed.

Source: DESIGN.md section 3 (`valid_until`) and section 4.
"""

import time
from typing import Final

import click
import msgspec

from cli.durations import age_text
from cli.options import json_option, ledger_to_read, read_stream, reads_ledger
from cli.texts import to_json
from domain.errors import CannotTell
from domain.windows import format_time
from ledger.application import Ledger
from projections.artifacts import artifacts_of
from projections.freshness import is_stale, valid_until_ms
from projections.report import way_back
from projections.views import Decision, Summary

_COLOURS: Final = {"ACTIVE": "green", "COOLDOWN": "yellow", "FROZEN": "red"}


class StatusView(msgspec.Struct, frozen=True):
    """`live status --json`: past `valid_until` the state is stale and nothing may be believed."""

    stale: bool
    valid_until: str
    age_sec: float
    summary: Summary
    decision: Decision


@click.command()
@reads_ledger
@json_option()
def status(
    ledger: str | None, env: str | None, exchange: str | None, dry_run: bool, as_json: bool
) -> None:
    """
    Show the state, its cause, the way back and the throttles.

    STALE means that the last window is too old to be believed: over two intervals and the run's
    --lateness past its end. Exit codes: 0 fine, 2 bad usage, 3 stale or no data, 5 the ledger is
    damaged.
    """
    with Ledger.open(ledger_to_read(ledger), read_only=True) as opened:
        stream = read_stream(opened, env, exchange, dry_run)
        artifacts = artifacts_of(opened, stream)
    observed = stream.state.observed
    assert observed is not None
    now_ms = time.time_ns() // 1_000_000
    view = StatusView(
        stale=is_stale(stream.state, now_ms),
        valid_until=format_time(valid_until_ms(stream.state)),
        age_sec=(now_ms - observed.end_ms) / 1000,
        summary=artifacts.summary,
        decision=artifacts.decision,
    )
    if as_json:
        click.echo(to_json(view))
    else:
        _show(view)
    if view.stale:
        raise CannotTell(
            f"STALE: the last window ended {age_text(view.age_sec)}; "
            f"nothing may be believed past {view.valid_until}"
        )


def _show(view: StatusView) -> None:
    summary, decision = view.summary, view.decision
    dry_run = " (dry run)" if summary.dry_run else ""
    state = click.style(summary.state, fg=_COLOURS[summary.state], bold=True)
    stale = click.style("STALE ", fg="red", bold=True) if view.stale else ""
    click.echo(f"{summary.env}:{summary.exchange}{dry_run}  {stale}{state}  {summary.throttle:g}")
    click.echo(
        f"window    {summary.window.start} to {summary.window.end}: "
        f"{summary.window.verdict}, {age_text(view.age_sec)}"
    )
    if decision.since is not None:
        who = f"{decision.triggered_by} " if decision.triggered_by else ""
        click.echo(f"cause     {who}{', '.join(decision.reasons)}, since {decision.since}")
    click.echo(f"way back  {way_back(decision.state, decision.hysteresis)}")
    for override in summary.overrides:
        until = override.expires_at or "cleared"
        bound = "" if override.cap is None else f" {override.cap:g}"
        click.echo(
            f"override  {override.kind}{bound} {override.symbol or 'all'} by {override.actor}: "
            f"{override.reason}, until {until}"
        )
    width = max(len(symbol) for symbol in summary.symbols)
    click.echo(f"\n{'symbol':{width}}  may trade  KPI-based  violations")
    for symbol in summary.symbols:
        told = ", ".join(v.reason for v in summary.violations if v.symbol == symbol) or "-"
        click.echo(
            f"{symbol:{width}}  {summary.effective_throttle[symbol]:9g}  "
            f"{summary.per_symbol_throttle[symbol]:9g}  {told}"
        )
