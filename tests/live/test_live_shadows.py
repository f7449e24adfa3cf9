"""A shadow beside a live run: it hears operators, survives kills, and publishes nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_support import (
    LiveRedis,
    Run,
    command,
    events,
    mock_run,
    running_redis,
    steady_policy,
    wait_for,
    windows,
)

from domain.events import OverrideApplied

SHADOW = "dev:bybit:shadow-steady"


@pytest.fixture(scope="module")
def server() -> Iterator[LiveRedis]:
    with running_redis() as server:
        yield server


def test_a_shadow_follows_a_live_run_through_a_freeze_and_a_kill_and_publishes_nothing(
    server: LiveRedis, tmp_path: Path
) -> None:
    policy = steady_policy(tmp_path)
    options = mock_run(server.url, *policy, "--shadow", tmp_path / "steady.json")
    with Run(tmp_path, *options) as run:
        wait_for(lambda: len(windows(tmp_path, SHADOW)) >= 2, "two windows of the shadow")
        frozen = command(
            tmp_path, "override", "freeze", "--ledger", "l.sqlite", "--reason", "t", "--by", "ann"
        )
        assert frozen.code == 0, frozen.err
        wait_for(lambda: events(tmp_path, OverrideApplied, SHADOW), "the freeze in the shadow")
        assert server.get("dev:bybit:live:state") == "FROZEN"
        run.kill()
    seen = len(windows(tmp_path, SHADOW))
    with Run(tmp_path, *options) as run:
        wait_for(lambda: len(windows(tmp_path, SHADOW)) > seen + 2, "windows after the kill")
        assert run.stop() == 0
    assert "shadow-" not in server.everything()
    live, shadow = windows(tmp_path), windows(tmp_path, SHADOW)
    assert [event.window for event in shadow] == [event.window for event in live]
    assert [event.verdict for event in shadow] == [event.verdict for event in live]
    assert len(events(tmp_path, OverrideApplied, SHADOW)) == 1
    listed = command(tmp_path, "accuracy", "--ledger", "l.sqlite", "--min-windows", "3")
    assert listed.code == 0, listed.out
    assert "PASS       steady: " in listed.out
