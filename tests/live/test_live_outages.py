"""Redis comes and goes, and the ledger breaks: decisions go on, or everything is FROZEN."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_support import (
    DRIVER,
    BlackHole,
    LiveRedis,
    Run,
    artifact,
    assert_outputs_agree,
    command,
    events,
    hash_run,
    last_version,
    let_windows_pass,
    mock_run,
    recorded,
    running_redis,
    steady_policy,
    wait_for,
    windows,
)

from domain.events import GapObserved

STATE = "dev:bybit:live:state"


@pytest.fixture
def server() -> Iterator[LiveRedis]:
    with running_redis() as server:
        yield server


def test_a_run_begins_and_goes_on_without_redis_and_publishes_when_it_comes(
    server: LiveRedis, tmp_path: Path
) -> None:
    server.kill()
    with Run(tmp_path, *mock_run(server.url)) as run:
        let_windows_pass(tmp_path, 3)
        wait_for(lambda: artifact(tmp_path)["ledger"]["version"] >= 3, "artifacts")
        server.restart()
        published_after(server, tmp_path)
        run.says("answers again")
        assert run.stop() == 0
    assert run.output.count("Redis is down") == 1, run.output
    assert run.output.count("answers again") == 1, run.output
    assert_outputs_agree(tmp_path, server)


def await_artifacts(folder: Path, version: int) -> None:
    wait_for(lambda: artifact(folder)["ledger"]["version"] > version, "newer artifacts")


def published_after(server: LiveRedis, folder: Path) -> None:
    """Wait for a publication, and check that it was of the first window after Redis came back."""
    before = len(windows(folder))
    wait_for(lambda: server.get(STATE), "the state")
    assert len(windows(folder)) <= before + 2, "one window, and one that was under way"


def test_redis_killed_in_the_middle_is_said_once_and_missed_by_no_decision(
    server: LiveRedis, tmp_path: Path
) -> None:
    with Run(tmp_path, *mock_run(server.url, interval="0.5")) as run:
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        for turn in (1, 2):
            server.kill()
            let_windows_pass(tmp_path, 3)
            run.says_times("Redis is down", turn)
            await_artifacts(tmp_path, last_version(tmp_path))
            server.restart()
            published_after(server, tmp_path)
            run.says_times("answers again", turn)
        assert run.stop() == 0
    assert run.output.count("answers again") == 2, run.output
    assert not events(tmp_path, GapObserved), "an outage costs no window"
    assert_outputs_agree(tmp_path, server)


@pytest.mark.parametrize("nth", ["1", "3"])
def test_a_ledger_that_can_not_be_written_freezes_what_is_published(
    server: LiveRedis, tmp_path: Path, nth: str
) -> None:
    with Run(tmp_path, *mock_run(server.url)) as run:
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        assert run.stop() == 0
    before = last_version(tmp_path)
    with Run(tmp_path, "append", "damage", nth, *mock_run(server.url), program=[DRIVER]) as run:
        assert run.ended() == 5, run.output
        assert "disk I/O error" in run.output
    assert server.get(STATE) == "FROZEN"
    for symbol in ("BTCUSDT", "ETHUSDT"):
        assert server.get(f"dev:bybit:live:throttle:{symbol}") == "0.0"
    summary = server.summary()
    assert "disk I/O error" in summary["fault"]
    assert summary["state"] == "FROZEN"
    assert json.loads(summary["overrides"]) == []
    written = recorded(tmp_path)[before:]
    assert {type(record.event).__name__ for record in written} <= {
        *("RunStarted", "KpiObserved", "GapObserved", "StateTransitioned", "PolicyAdopted"),
        "SymbolThrottleChanged",
    }
    # Once it can be written again, its own state is published.
    server.client.delete("dev:bybit:live:lease")
    with Run(tmp_path, *mock_run(server.url, "--iterations", "1")) as run:
        assert run.ended() == 0, run.output
    assert server.summary()["fault"] == ""
    assert_outputs_agree(tmp_path, server)


def test_a_ledger_that_breaks_while_redis_is_down_ends_the_run_all_the_same(
    server: LiveRedis, tmp_path: Path
) -> None:
    server.kill()
    with Run(tmp_path, "append", "damage", "3", *mock_run(server.url), program=[DRIVER]) as run:
        assert run.ended() == 5, run.output
    server.restart()
    assert server.get(STATE) is None
    with Run(tmp_path, *mock_run(server.url, "--iterations", "1")) as run:
        assert run.ended() == 0, run.output
    assert_outputs_agree(tmp_path, server)


@pytest.mark.parametrize("feed", [(), ("--feed", "redis-stream:fills"), ("--feed", "mock://")])
def test_a_black_hole_is_asked_once_a_window_by_feed_and_publication_together(
    tmp_path: Path, feed: tuple[str, ...]
) -> None:
    with BlackHole() as hole:
        options = hash_run(hole.url, *feed, *steady_policy(tmp_path), symbols="BTC", interval="1")
        with Run(tmp_path, *options) as run:
            wait_for(lambda: len(windows(tmp_path)) >= 4, "four windows")
            asked = hole.accepted
            assert run.stop() == 0
        # Once at the start, once for each window up to the one under way now.
        assert asked <= 1 + len(windows(tmp_path)) + 1, run.output
        assert hole.accepted <= asked + 3, "what is left at the end is bounded, too"
    assert run.output.count("Redis is down") == 1, run.output
    assert artifact(tmp_path)["ledger"]["version"] == last_version(tmp_path)


def test_a_freeze_is_published_though_redis_was_away_before_in_the_same_window(
    server: LiveRedis, tmp_path: Path
) -> None:
    """The next window is half an hour away; what is asked now is in Redis now."""
    redis_process = server.client.info("server")["process_id"]
    os.kill(redis_process, signal.SIGSTOP)
    with Run(tmp_path, *mock_run(server.url, interval="3600")) as run:
        try:
            run.says("Redis is down")
        finally:
            os.kill(redis_process, signal.SIGCONT)
        words = ("--ledger", "l.sqlite", "--reason", "a test", "--by", "ann")
        frozen = command(tmp_path, "override", "freeze", *words)
        assert frozen.code == 0, frozen.err
        assert server.get(STATE) == "FROZEN"
        assert run.stop() == 0
