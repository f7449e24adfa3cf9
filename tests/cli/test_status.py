"""`live status`: at a glance, and never believed past its time."""

import json
from pathlib import Path

import pytest
from support import live, row, write_jsonl


def test_a_fresh_state_is_shown_with_code_0(folder: Path) -> None:
    assert live("run", "--dry-run", "--feed", "mock://incident", "--iterations", "40").code == 0
    outcome = live("status")
    assert outcome.code == 0
    assert "dev:bybit (dry run)  FROZEN  0" in outcome.out
    assert "cause     BTCUSDT edge_bps=2.0 < 2.5, risk=0.45 > 0.40, since 20" in outcome.out
    assert "way back  0 of 24 OK windows in a row to leave FROZEN; last reset at 20" in outcome.out
    assert "STALE" not in outcome.out


def test_an_old_state_is_stale_with_code_3(folder: Path) -> None:
    path = write_jsonl(folder / "x.jsonl", [row(0), row(1)])
    live("run", "--feed", f"file:{path}", "--ledger", "l.sqlite")
    outcome = live("status", "--ledger", "l.sqlite")
    assert outcome.code == 3
    assert "STALE ACTIVE" in outcome.out
    assert "nothing may be believed past 2026-01-05T22:04:02Z" in outcome.err


def test_json_holds_the_same(folder: Path) -> None:
    live("run", "--dry-run")
    view = json.loads(live("status", "--json").out)
    assert view["stale"] is False
    assert view["summary"]["state"] == view["decision"]["state"] == "ACTIVE"
    assert view["summary"]["ledger"]["version"] == view["decision"]["ledger"]["version"]


@pytest.mark.parametrize(
    "command", ["run", "status", "gate", "report", "replay", "export", "override", "policy"]
)
def test_every_command_has_help_that_names_its_exit_codes(folder: Path, command: str) -> None:
    outcome = live(command, "--help")
    assert outcome.code == 0
    assert "Exit codes: " in " ".join(outcome.out.split())


def test_version_is_the_packages(folder: Path) -> None:
    from cli.version import code_version

    assert live("--version").out == f"live {code_version()}\n"
