"""The files of ops/, and the system's programs that check and run them."""

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
OPS: Final = ROOT / "ops"
RULES: Final = OPS / "alerts/live_alerts.yml"
RULE_TESTS: Final = OPS / "alerts/tests"
RUNBOOK: Final = ROOT / "docs/runbook.md"
GUIDES: Final = (
    "LiveStateFrozen",
    "LiveThrottleLow",
    "LiveSymbolFrozen",
    "LiveKPIViolation",
    "LiveRedisDown",
)
PACKAGES: Final = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
    "systemd-analyze": "systemd",
}
"""By program: the Debian package that has it."""


def program(name: str) -> str:
    """Return a program's path; skip without it, or fail where LIVE_REQUIRE_SYSTEM is set."""
    found = shutil.which(name)
    if found is None:
        missing = f"{name} (Debian's package {PACKAGES[name]}) is not installed"
        assert "LIVE_REQUIRE_SYSTEM" not in os.environ, f"LIVE_REQUIRE_SYSTEM is set, and {missing}"
        pytest.skip(missing)
    return found


def run_program(name: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, its two outputs as one text."""
    return subprocess.run(
        [program(name), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )


def read_yaml(path: Path) -> Any:
    """Return what a file says."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    """Return all rules, in their order."""
    return [rule for group in _rule_groups() for rule in group["rules"]]


@functools.cache
def _rule_groups() -> list[dict[str, Any]]:
    return list(read_yaml(RULES)["groups"])


def rule_names() -> list[str]:
    """Return the alerts' names, in their order."""
    return [str(rule["alert"]) for rule in rules()]


def rule_file(path: Path, chosen: Sequence[dict[str, Any]]) -> Path:
    """Write a rule file with some rules."""
    content = {"groups": [{"name": "chosen", "rules": list(chosen)}]}
    # JSON is YAML, and quicker to write.
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
