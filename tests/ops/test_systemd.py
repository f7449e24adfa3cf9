"""The unit is one that systemd accepts, hardened, and says of `live run` what is true of it."""

import re
import shutil
from pathlib import Path

import click
import pytest
from ops_support import OPS, run_program

from cli.run import run
from domain.errors import AnotherWriter, BadInput, CannotTell, LedgerDamaged

UNIT = OPS / "systemd/live-ledger@.service"
SETTINGS = OPS / "systemd/prod-bybit.env"


def directives() -> dict[str, list[str]]:
    """Return the unit's directives, a list of values by name."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    """The unit as it would be installed, with a program that is there on this machine."""
    (start,) = directives()["ExecStart"]
    text = UNIT.read_text(encoding="utf-8").replace(start.split()[0], shutil.which("true") or "")
    for name in ("live-ledger@.service", "live-ledger@prod-bybit.service"):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / "live-ledger@prod-bybit.service"


def test_systemd_accepts_the_unit(instance: Path) -> None:
    checked = run_program("systemd-analyze", "verify", "--man=no", instance)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_the_unit_is_hardened(instance: Path) -> None:
    # 10.0 is a service without any hardening; above the threshold the exit code isn't 0.
    checked = run_program(
        "systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=20", instance
    )
    assert checked.returncode == 0, checked.stdout


def test_what_no_restart_mends_is_not_restarted_and_the_rest_is() -> None:
    (prevented,) = directives()["RestartPreventExitStatus"]
    codes = {BadInput.exit_code, AnotherWriter.exit_code, LedgerDamaged.exit_code}
    assert {int(code) for code in prevented.split()} == codes
    assert CannotTell.exit_code not in codes
    assert directives()["Restart"] == ["on-failure"]
    assert float(directives()["RestartSec"][0]) >= 1, "no tight loop"


def test_every_variable_that_is_set_is_one_of_live_run() -> None:
    known = {str(option.envvar) for option in run.params if isinstance(option, click.Option)}
    settings = dict(re.findall(r"^(LIVE_\w+)=(.*)$", SETTINGS.read_text(), re.MULTILINE))
    set_by_unit = [value.partition("=")[0] for value in directives()["Environment"]]
    assert len(settings) > 4
    assert {*settings, *set_by_unit} <= known
    (program,) = directives()["ExecStart"]
    assert program.split()[1:] == ["run"]
    # They are values that the command takes.
    given = {name.removeprefix("LIVE_").lower(): value for name, value in settings.items()}
    assert given.pop("dead_man") == "1"
    run.make_context("run", [f"--{name.replace('_', '-')}={given[name]}" for name in given])


def test_no_secret_stands_in_the_unit_or_among_its_settings() -> None:
    for path in (UNIT, SETTINGS):
        assert not re.search(r"rediss?://", path.read_text(encoding="utf-8"))
    assert any(value.startswith("redis-url:") for value in directives()["LoadCredential"])
    assert directives()["Type"] == ["notify"]
    assert float(directives()["WatchdogSec"][0]) > 0
