"""
`live gate`: PASS, FAIL or can't tell, for CI.

Source: LIVE_MODE_GUIDE.md, CI Gate; DESIGN.md section 3, Exit codes.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from cli.options import ARTIFACTS_FOLDER, DEFAULT_EXCHANGE, json_option, live_option
from cli.setup import PROD
from cli.texts import to_json
from domain.kpis import KPIS
from ledger.streams import stream_key
from projections.gate import (
    ArtifactsRead,
    Check,
    GateLimits,
    GateResult,
    Outcome,
    check_limits,
    judge,
    read_artifacts,
)

DEFAULT_MAX_AGE_SEC: Final = 3_600.0
READ_ATTEMPTS: Final = 10
PAUSE_SEC: Final = 0.05

_COLOURS: Final = {Outcome.PASS: "green", Outcome.FAIL: "red", Outcome.UNKNOWN: "yellow"}
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _threshold_options(command: _Command) -> _Command:
    """Give the command an option for each KPI, in the guide's spelling and the dashed one."""
    for kpi in reversed(KPIS):
        name = kpi.gate_option
        spellings = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
        bound = "lowest" if kpi.breached_when == "<" else "highest"
        command = live_option(
            *spellings,
            name,
            type=float,
            default=kpi.threshold,
            show_default=True,
            help=f"The {bound} {kpi.name} that passes.",
        )(command)
    return command


@click.command()
@live_option(
    "--path",
    type=click.Path(file_okay=False, path_type=Path),
    default=ARTIFACTS_FOLDER,
    show_default=True,
    help="The folder of the LIVE_* files.",
)
@_threshold_options
@live_option(
    "--max-age",
    "--max_age",
    type=float,
    default=DEFAULT_MAX_AGE_SEC,
    show_default=True,
    help="Seconds since the last window ended, beyond which it is stale; 0 for any age.",
)
@live_option(
    "--env",
    help="The environment that the artifacts must be of; prod refuses those of a mock feed. "
    "[default: any]",
)
@json_option()
def gate(path: Path, max_age: float, env: str | None, as_json: bool, **thresholds: float) -> None:
    """
    Check the latest artifacts against thresholds, for CI.

    A value equal to its threshold passes. Every check is printed, whatever the outcome. Files
    that are missing, stale, from the future, of different versions or of another --env, and
    required KPIs without data, are "can't tell", which outweighs FAIL. Exit codes: 0 PASS,
    1 FAIL, 2 bad usage, 3 can't tell.
    """
    limits = check_limits(
        GateLimits(
            thresholds={kpi.name: thresholds[kpi.gate_option] for kpi in KPIS},
            max_age_sec=max_age,
            env=None if env is None else stream_key(env, DEFAULT_EXCHANGE, dry_run=False).env,
            refuses_mock=env == PROD,
        )
    )
    found = read_settled(path)
    result = judge(found, limits, now_ms=time.time_ns() // 1_000_000)
    if as_json:
        _print(to_json(result))
    else:
        _print(_told(result))
    raise click.exceptions.Exit(result.exit_code)


def read_settled(folder: Path, *, sleep: Callable[[float], None] = time.sleep) -> ArtifactsRead:
    """
    Return the artifacts, read again for up to half a second while they aren't whole.

    A runner renames three files one after the other: whoever reads in that moment finds two
    versions, or in a new folder not all of the files.
    """
    found = read_artifacts(folder)
    for _ in range(READ_ATTEMPTS - 1):
        if found.is_whole:
            break
        sleep(PAUSE_SEC)
        found = read_artifacts(folder)
    return found


def _told(result: GateResult) -> str:
    """Return a line for each check, aligned, and the outcome as the last one."""
    outcomes = max(len(check.outcome) for check in result.checks)
    subjects = max(len(_subject(check)) for check in result.checks)
    lines = [
        f"{click.style(f'{check.outcome:{outcomes}}', fg=_COLOURS[check.outcome])}  "
        f"{_subject(check):{subjects}}  {check.sentence}"
        for check in result.checks
    ]
    return "\n".join([*lines, f"gate: {_conclusion(result)}"])


def _conclusion(result: GateResult) -> str:
    """Return `PASS`, `FAIL (2 of 14 checks)` or `CAN'T TELL (1 of 14 checks; 2 FAIL)`."""
    checks, failed = len(result.checks), result.count(Outcome.FAIL)
    match result.outcome:
        case Outcome.PASS:
            told = ""
        case Outcome.FAIL:
            told = f" ({failed} of {checks} checks)"
        case Outcome.UNKNOWN:
            others = f"; {failed} FAIL" if failed else ""
            told = f" ({result.count(Outcome.UNKNOWN)} of {checks} checks{others})"
    name = "CAN'T TELL" if result.outcome is Outcome.UNKNOWN else result.outcome.value
    return click.style(name, fg=_COLOURS[result.outcome], bold=True) + told


def _subject(check: Check) -> str:
    return check.subject or "-"


def _print(text: str) -> None:
    """Print, and keep the exit code for the verdict even if the reader of a pipe is gone."""
    try:
        click.echo(text)
    except BrokenPipeError:
        # What is left in the buffer goes nowhere, so that Python doesn't complain as it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
