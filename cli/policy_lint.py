"""
`live policy lint`: what looks wrong in a policy, by itself and against data.
"""

from pathlib import Path
from typing import Final

import click

from cli.options import json_option, live_option, stream_options
from cli.setup import read_policy_file
from cli.sources import SourceOptions, open_source
from cli.texts import interval_ms_of, split_symbols, to_json
from domain.policy import Policy
from replay.policy_lint import DataReport, LintReport, lint_policy
from replay.recovery import Recovery

WINDOWS_TOLD_MAX: Final = 1e9


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("source", required=False)
@live_option("--symbols", metavar="A,B,...", help="Only these symbols of SOURCE, in this order.")
@live_option(
    "--interval-sec",
    type=float,
    help="A window's length. [default: the commonest step of a KPI file]",
)
@stream_options
@json_option()
@click.pass_context
def lint(
    context: click.Context,
    file: Path,
    source: str | None,
    symbols: str | None,
    interval_sec: float | None,
    env: str | None,
    exchange: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """
    Find what looks wrong in the policy FILE, by itself and against SOURCE, as of replay.

    States that can't be entered or left, thresholds that the data always or never breaches, KPIs
    that it lacks, and how long a recovery takes: docs/policy.md lists the findings. Exit codes:
    0 clean, 1 findings, 2 bad usage or input, 3 no data, 5 the ledger is damaged.
    """
    policy = read_policy_file(file, Policy(), named="live policy lint")
    if source is None:
        report = lint_policy(policy, None)
    else:
        options = SourceOptions(
            None if symbols is None else split_symbols(symbols),
            None if interval_sec is None else interval_ms_of(interval_sec),
            env,
            exchange,
            dry_run,
        )
        with open_source(source, options) as opened:
            report = lint_policy(policy, opened)
    if as_json:
        click.echo(to_json(report))
    else:
        _print(report)
    context.exit(1 if report.findings else 0)


def _print(report: LintReport) -> None:
    for finding in report.findings:
        click.echo(f"{finding.code:17} {finding.key + ': ' if finding.key else ''}{finding.text}")
    click.echo(f"{len(report.findings) or 'no'} finding{'s' * (len(report.findings) != 1)}")
    if report.data is not None:
        _print_data(report.data)
    interval_ms = 60_000 if report.data is None else report.data.interval_ms
    click.echo(
        "\nRecovery to expect on average, by how often a symbol's window is not OK "
        f"({interval_ms / 1000:g} s windows):"
    )
    for line in report.recovery:
        click.echo(_recovery_line(line, interval_ms))
    if report.data is not None:
        click.echo(
            "  The figures take one window for independent of the next; where bad ones come "
            "together,\n  recovery is quicker: believe the runs above first."
        )


def _print_data(data: DataReport) -> None:
    click.echo(
        f"\n{data.windows} windows of {data.interval_ms / 1000:g} s, {data.gap_windows} missing, "
        f"{_symbols(len(data.symbols))}; not OK {data.windows_not_ok_rate:.1%} of the windows, "
        f"{data.not_ok_rate:.1%} of the symbols' windows"
    )
    for run in data.runs:
        ended = "" if run.longest_end is None else f", ended {run.longest_end}"
        click.echo(
            f"{run.key}: {run.wanted} OK windows in a row were held {run.held} times; the longest "
            f"run was {run.longest}{ended}"
        )
    told = ", ".join(f"{state} {windows}" for state, windows in data.windows_in.items())
    click.echo(f"windows decided again: {told or 'none, the policy could not be started'}")


def _recovery_line(line: Recovery, interval_ms: int) -> str:
    own = " (this data)" if line.is_measured else ""
    return (
        f"  {_symbols(line.symbols)}, {line.rate:.1%}{own}: out of FROZEN "
        f"{_windows(line.unfreeze_windows)}{_time(line.unfreeze_windows, interval_ms)}, "
        f"out of COOLDOWN {_windows(line.cooldown_windows)}"
    )


def _symbols(count: int) -> str:
    return f"{count} symbol{'s' * (count != 1)}"


def _windows(windows: float | None) -> str:
    if windows is None or windows > WINDOWS_TOLD_MAX:
        return "never"
    return f"{windows:,.0f} windows"


def _time(windows: float | None, interval_ms: int) -> str:
    if windows is None or windows > WINDOWS_TOLD_MAX:
        return ""
    minutes = windows * interval_ms / 60_000
    if minutes < 120:
        return f" ({minutes:.0f} min)"
    return f" ({minutes / 60:.1f} h)" if minutes < 48 * 60 else f" ({minutes / 1440:,.1f} days)"
