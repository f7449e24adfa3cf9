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
import msgspec
from click.core import ParameterSource

from cli.junit import Case, Kind, write_junit
from cli.options import ARTIFACTS_FOLDER, DEFAULT_ENV, DEFAULT_EXCHANGE, json_option, live_option
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
    merge_results,
    read_artifacts,
)

DEFAULT_MAX_AGE_SEC: Final = 3_600.0
READ_ATTEMPTS: Final = 10
PAUSE_SEC: Final = 0.05

DEFAULT_WINDOWS: Final = 60

_COLOURS: Final = {Outcome.PASS: "green", Outcome.FAIL: "red", Outcome.UNKNOWN: "yellow"}
_Command = TypeVar("_Command", bound=Callable[..., Any])


class HistoryQuestion(msgspec.Struct, frozen=True):
    """Which windows of which stream of which history are asked for."""

    folder: Path
    env: str | None
    exchange: str | None
    dry_run: bool
    windows: int
    min_ok_share: float

    @property
    def stream_id(self) -> str | None:
        """The stream that was named; None for the only one."""
        if self.env is None and self.exchange is None and not self.dry_run:
            return None
        key = stream_key(
            self.env or DEFAULT_ENV, self.exchange or DEFAULT_EXCHANGE, dry_run=self.dry_run
        )
        return str(key)


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
@live_option("--exchange", help="The history's exchange, if it has several streams.")
@live_option("--dry-run", is_flag=True, help="The history's stream of a dry run.")
@click.option(
    "--history",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Check the last --windows of a history instead of the artifacts; both if --path is given.",
)
@live_option(
    "--windows",
    type=int,
    default=DEFAULT_WINDOWS,
    show_default=True,
    help="How many windows of the history are checked; missing ones are among them.",
)
@live_option(
    "--min-ok-share",
    type=float,
    default=1.0,
    show_default=True,
    help="The share of the windows that must keep a threshold.",
)
@click.option(
    "--junit",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the checks as JUnit XML too.",
)
@json_option()
def gate(
    path: Path,
    max_age: float,
    env: str | None,
    exchange: str | None,
    dry_run: bool,
    history: Path | None,
    windows: int,
    min_ok_share: float,
    junit: Path | None,
    as_json: bool,
    **thresholds: float,
) -> None:
    """
    Check the latest artifacts, or a history's last windows, against thresholds, for CI.

    A value equal to its threshold passes. Every check is printed, whatever the outcome. Files
    that are missing, stale, from the future, of different versions or of another --env, windows
    that are missing, and required KPIs without data, are "can't tell", which outweighs FAIL. Exit
    codes: 0 PASS, 1 FAIL, 2 bad usage, 3 can't tell, 5 the history is damaged.
    """
    limits = check_limits(
        GateLimits(
            thresholds={kpi.name: thresholds[kpi.gate_option] for kpi in KPIS},
            max_age_sec=max_age,
            env=None if env is None else stream_key(env, DEFAULT_EXCHANGE, dry_run=False).env,
            refuses_mock=env == PROD,
        )
    )
    now_ms = time.time_ns() // 1_000_000
    results: dict[str, GateResult] = {}
    if history is not None:
        asked = HistoryQuestion(history, env, exchange, dry_run, windows, min_ok_share)
        results["live gate --history"] = _judge_history(asked, limits, now_ms)
    if history is None or _is_given("path"):
        results["live gate"] = judge(read_settled(path), limits, now_ms=now_ms)
    if junit is not None:
        suites = {name: map(_case, result.checks) for name, result in results.items()}
        write_junit(junit, suites, option="--junit")
    result = merge_results(*results.values())
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


def _judge_history(asked: "HistoryQuestion", limits: GateLimits, now_ms: int) -> GateResult:
    """Return what the history's last windows come to; only now pyarrow is imported."""
    from projections.history import open_history  # noqa: PLC0415
    from projections.history_gate import (  # noqa: PLC0415
        HistoryLimits,
        check_history_limits,
        judge_history,
    )

    history_limits = check_history_limits(
        HistoryLimits(gate=limits, windows=asked.windows, min_ok_share=asked.min_ok_share)
    )
    return judge_history(
        open_history(asked.folder, stream_id=asked.stream_id), history_limits, now_ms=now_ms
    )


def _is_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source in {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}


def _case(check: Check) -> Case:
    name = check.name if check.subject is None else f"{check.subject} {check.name}"
    problem: dict[Outcome, Kind] = {Outcome.FAIL: "failure", Outcome.UNKNOWN: "error"}
    return Case(name, problem.get(check.outcome), check.sentence)


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
