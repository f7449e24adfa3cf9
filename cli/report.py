"""
`live report`: the artifacts once more, byte for byte, from the ledger alone.
"""

from pathlib import Path

import click

from cli.options import artifacts_option, json_option, ledger_to_read, read_stream, reads_ledger
from cli.texts import to_json
from ledger.application import Ledger
from projections.artifacts import REPORT, write_artifacts
from projections.files import prepare_folder


@click.command()
@reads_ledger
@artifacts_option()
@json_option()
def report(
    ledger: str | None,
    env: str | None,
    exchange: str | None,
    dry_run: bool,
    artifacts: Path,
    as_json: bool,
) -> None:
    """
    Make the LIVE_* artifacts again from the ledger, and print the report.

    The same ledger gives the same bytes. Exit codes: 0 fine, 2 bad usage or the folder can't be
    written, 3 no data, 5 the ledger is damaged.
    """
    with Ledger.open(ledger_to_read(ledger), read_only=True) as opened:
        stream = read_stream(opened, env, exchange, dry_run)
        prepare_folder(artifacts)
        made = write_artifacts(opened, stream, artifacts)
    if as_json:
        click.echo(to_json({"summary": made.summary, "decision": made.decision}))
    else:
        click.echo(made.report, nl=False)
    click.echo(f"written: {artifacts / REPORT} and its two JSON files", err=True)
