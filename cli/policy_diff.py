"""
`live policy diff`: what one policy tightens and loosens of another, in words.
"""

from pathlib import Path

import click

from cli.options import json_option
from cli.setup import read_policy_file
from cli.texts import to_json
from domain.policy import Policy
from replay.policy_words import Difference, policy_differences


@click.command()
@click.argument("before", type=click.Path(path_type=Path), metavar="A")
@click.argument("after", type=click.Path(path_type=Path), metavar="B")
@json_option()
def diff(before: Path, after: Path, as_json: bool) -> None:
    """
    Say in words what policy B tightens and what it loosens of policy A.

    Loosening is any change that could mean more trading: the same comparison by which a run in
    prod asks for --adopt-policy. Exit codes: 0 fine, 2 bad usage or input.
    """
    policies = [
        read_policy_file(path, Policy(), named="live policy diff") for path in (before, after)
    ]
    found = policy_differences(policies[0], policies[1])
    if as_json:
        hashes = {"a": policies[0].hash, "b": policies[1].hash}
        click.echo(to_json({"policy_hash": hashes, "differences": found}))
        return
    if not found:
        click.echo(f"{before} and {after} are the same policy")
    for effect in ("tightens", "loosens"):
        _print(effect, [difference for difference in found if difference.effect == effect])


def _print(effect: str, found: list[Difference]) -> None:
    if found:
        click.secho(effect, bold=True)
    for difference in found:
        click.echo(f"  {difference.key}: {difference.text}")
