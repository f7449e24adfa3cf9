"""
`live policy test`: run scenario files, and report as a test runner does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from cli.junit import Case, write_junit
from cli.options import json_option
from cli.setup import read_policy_file
from cli.texts import to_json
from domain.errors import BadInput
from domain.policy import Policy
from replay.scenario import Outcome, Scenario, run_scenario
from replay.scenario_file import parse_scenarios

FILE_BYTES_MAX: Final = 1 << 20


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILES..."
)
@click.option(
    "--policy",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Decide by this policy instead of the one that a scenario file names.",
)
@click.option(
    "--junit",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the outcomes as JUnit XML too.",
)
@json_option()
@click.pass_context
def test(
    context: click.Context,
    files: tuple[Path, ...],
    policy: Path | None,
    junit: Path | None,
    as_json: bool,
) -> None:
    """
    Run the scenarios of FILES (YAML): do the rules make of these windows what is expected?

    All files are read before the first scenario runs. docs/policy.md has the format. Exit codes:
    0 all passed, 1 a scenario failed, 2 bad usage or input.
    """
    base = None if policy is None else read_policy_file(policy, Policy(), named="live policy test")
    scenarios = {str(path): _read(path, base) for path in files}
    outcomes = {
        file: [run_scenario(scenario) for scenario in found] for file, found in scenarios.items()
    }
    if junit is not None:
        suites = {file: map(_case, found) for file, found in outcomes.items()}
        write_junit(junit, suites, option="--junit")
    if as_json:
        click.echo(to_json([_plain(file, one) for file, all_ in outcomes.items() for one in all_]))
    else:
        _print(outcomes)
    failed = any(outcome.failures for found in outcomes.values() for outcome in found)
    context.exit(1 if failed else 0)


def _read(path: Path, policy: Policy | None) -> list[Scenario]:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise BadInput(f"{path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: expected UTF-8: {error}") from None
    if len(data) > FILE_BYTES_MAX:
        raise BadInput(f"{path}: expected at most {FILE_BYTES_MAX} bytes, was more")
    return parse_scenarios(
        text,
        source=str(path),
        # A policy that a file names lies beside it, wherever the command is run.
        read_policy=lambda name: read_policy_file(path.parent / name, Policy(), named=str(path)),
        policy=policy,
    )


def _case(outcome: Outcome) -> Case:
    told = [f"{failure.place}: {failure.text}" for failure in outcome.failures]
    return Case(outcome.scenario.name, "failure" if told else None, "\n".join(told))


def _print(outcomes: dict[str, list[Outcome]]) -> None:
    for file, found in outcomes.items():
        click.echo(file)
        for outcome in found:
            click.echo(f"  {'FAIL' if outcome.failures else 'ok  '}  {outcome.scenario.name}")
            for failure in outcome.failures:
                click.echo(f"        {failure.place}: {failure.text}")
    passed, failed = _count([outcome for found in outcomes.values() for outcome in found])
    click.echo(f"{passed} passed, {failed} failed")


def _plain(file: str, outcome: Outcome) -> dict[str, object]:
    return {
        "file": file,
        "name": outcome.scenario.name,
        "passed": not outcome.failures,
        "failures": outcome.failures,
    }


def _count(outcomes: Sequence[Outcome]) -> tuple[int, int]:
    failed = sum(bool(outcome.failures) for outcome in outcomes)
    return len(outcomes) - failed, failed
