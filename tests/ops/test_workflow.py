"""The workflow fits its schema, and its steps do what they say, run as GitHub runs them."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ops_support import ROOT, read_yaml

WORKFLOW = ROOT / ".github/workflows/live.yml"
BASH = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]
"""What `shell: bash` stands for."""


def job() -> dict[str, Any]:
    return dict(read_yaml(WORKFLOW)["jobs"]["live"])


def triggers() -> dict[str, Any]:
    # YAML 1.1 takes the key `on` for a truth value.
    return dict(read_yaml(WORKFLOW)[True])


def script(name: str) -> str:
    (found,) = [step["run"] for step in job()["steps"] if step.get("name") == name]
    return str(found)


class Steps:
    """The job's steps in a folder of their own; variables that aren't given have their defaults."""

    def __init__(self, folder: Path, **variables: str) -> None:
        defaults = {
            name: re.findall(r"\|\| '(.*)' }}", value)[0] for name, value in job()["env"].items()
        }
        self.folder = folder
        self.environment = {
            **defaults,
            **variables,
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
            "GATE": "outcome",
        }

    def run(self, name: str) -> int:
        done = subprocess.run(
            [*BASH, script(name)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            timeout=120,
            check=False,
        )
        return done.returncode

    @property
    def summary(self) -> str:
        return (self.folder / "summary.md").read_text(encoding="utf-8")


def test_the_workflow_fits_githubs_schema() -> None:
    checker = Path(sys.executable).parent / "check-jsonschema"
    checked = subprocess.run(
        [checker, "--builtin-schema", "vendor.github-workflows", WORKFLOW],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_it_can_be_started_with_the_guides_inputs() -> None:
    for trigger in ("workflow_dispatch", "workflow_call"):
        assert set(triggers()[trigger]["inputs"]) == {"profile", "symbols", "iterations"}
    assert triggers()["workflow_dispatch"]["inputs"]["profile"]["options"] == ["A", "B", "C"]
    assert read_yaml(WORKFLOW)["defaults"]["run"]["shell"] == "bash"


def test_no_input_is_put_into_a_script() -> None:
    scripts = [step["run"] for step in job()["steps"] if "run" in step]
    assert len(scripts) >= 5
    assert not [text for text in scripts if "${{" in text]


def test_a_healthy_run_passes_and_is_reported(tmp_path: Path) -> None:
    steps = Steps(tmp_path, LIVE_SYMBOLS="BTCUSDT,ETHUSDT", LIVE_RAMP_PROFILE="B")
    assert [steps.run(name) for name in ("Run", "Gate", "Report")] == [0, 0, 0]
    assert "gate: PASS" in steps.summary
    assert "# Live report: dev:bybit (dry run)" in steps.summary
    assert "ETHUSDT" in steps.summary
    assert "Windows: 12" in steps.summary
    assert steps.summary == (tmp_path / "live-report.md").read_text()


@pytest.mark.parametrize(
    ("variables", "step", "code"),
    [
        # 40 windows of the incident end in its CRIT phase.
        ({"LIVE_FEED": "mock://incident", "LIVE_ITERATIONS": "40"}, "Gate", 1),
        ({"LIVE_FEED": "mock://outage", "LIVE_ITERATIONS": "25"}, "Gate", 3),
        ({"LIVE_SYMBOLS": "no symbol"}, "Run", 2),
        ({"LIVE_RAMP_PROFILE": "Z"}, "Run", 2),
    ],
)
def test_the_first_step_that_fails_keeps_its_exit_code(
    tmp_path: Path, variables: dict[str, str], step: str, code: int
) -> None:
    steps = Steps(tmp_path, **variables)
    if step == "Gate":
        assert steps.run("Run") == 0
    assert steps.run(step) == code
    if step == "Gate":
        assert steps.run("Report") == 0, "what failed is reported too"
        assert "# Live report" in steps.summary
