"""What the guide says of the Redis keys, against a run that publishes them."""

import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_support import (
    DRIVER,
    LiveRedis,
    Market,
    Run,
    artifact,
    assert_outputs_agree,
    command,
    events,
    hash_run,
    let_windows_pass,
    mock_run,
    python,
    running_redis,
    steady_policy,
    wait_for,
    windows,
)

from domain.events import RunStopped
from domain.windows import format_time

PROD = "prod:bybit:live:"
LEASE = "dev:bybit:live:lease"


@pytest.fixture(scope="module")
def one_server() -> Iterator[LiveRedis]:
    with running_redis() as server:
        yield server


@pytest.fixture
def server(one_server: LiveRedis) -> LiveRedis:
    one_server.client.flushall()
    return one_server


def test_the_lines_of_the_guide_answer_as_written_in_prod(
    server: LiveRedis, tmp_path: Path
) -> None:
    options = hash_run(server.url, "--env", "prod", "--exchange", "bybit", symbols="BTCUSDT")
    with (
        Market(server, "prod", ["BTCUSDT"]) as market,
        Run(tmp_path, *options, *steady_policy(tmp_path)) as run,
    ):
        wait_for(lambda: server.get(f"{PROD}state") == "ACTIVE", "ACTIVE")
        wait_for(lambda: server.get(f"{PROD}throttle:BTCUSDT") == "1.0", "1.0")
        for name in ("state", "throttle:BTCUSDT", "summary"):
            assert 3590 < server.client.ttl(PROD + name) <= 3600
        assert server.client.type(f"{PROD}state") == "string"
        assert server.client.type(f"{PROD}throttle:BTCUSDT") == "string"
        assert server.client.type(f"{PROD}summary") == "hash"
        # The runbook's Scenario 1: a freeze, its cause, and the symbol behind it.
        market.kpis["BTCUSDT"] = {"edge_bps": 2.0, "risk_ratio": 0.45}
        wait_for(lambda: server.get(f"{PROD}state") == "FROZEN", "FROZEN")
        assert server.get(f"{PROD}throttle:BTCUSDT") == "0.0"
        wait_for(lambda: artifact(tmp_path, "LIVE_DECISION.json")["state"] == "FROZEN", "artifact")
        decision = artifact(tmp_path, "LIVE_DECISION.json")
        assert decision["reasons"] == ["edge_bps=2.0 < 2.5", "risk=0.45 > 0.40"]
        assert decision["triggered_by"] == "BTCUSDT"
        assert run.stop() == 0
    assert_outputs_agree(tmp_path, server, "prod:bybit")


def test_the_summary_holds_the_kpis_and_what_a_reader_needs(
    server: LiveRedis, tmp_path: Path
) -> None:
    with Market(server, "dev", ["BTCUSDT", "ETHUSDT"]) as market:
        market.kpis["ETHUSDT"] = {"edge_bps": 2.75}
        with Run(tmp_path, *hash_run(server.url, *steady_policy(tmp_path))) as run:
            wait_for(lambda: server.summary().get("edge_bps") == "2.75", "the worst symbol's edge")
            summary = server.summary()
            assert summary["state"] == "ACTIVE"
            assert summary["symbols"] == "BTCUSDT,ETHUSDT"
            assert summary["risk_ratio"] == "0.22"
            assert summary["fault"] == ""
            assert int(summary["valid_until"]) > time.time() * 1000
            version = int(summary["version"])
            wait_for(lambda: int(server.summary()["version"]) > version, "the next window")
            assert run.stop() == 0
    assert_outputs_agree(tmp_path, server)


def test_lifetimes_are_renewed_with_each_window(server: LiveRedis, tmp_path: Path) -> None:
    with Run(tmp_path, *mock_run(server.url, "--ttl", "20")):
        wait_for(lambda: server.get("dev:bybit:live:state"), "the state")
        names = [f"dev:bybit:live:{name}" for name in ("state", "throttle:ETHUSDT", "summary")]
        for name in names:
            assert 0 < server.client.pttl(name) <= 20_000
            assert server.client.pexpire(name, 15_000)
        wait_for(
            lambda: all(server.client.pttl(name) > 15_000 for name in names), "all to be renewed"
        )


def test_dead_man_lets_what_a_bot_obeys_expire_with_valid_until(
    server: LiveRedis, tmp_path: Path
) -> None:
    with Run(tmp_path, *mock_run(server.url, "--dead-man")) as run:
        wait_for(lambda: server.get("dev:bybit:live:state"), "the state")
        run.kill()
    until_ms = int(server.summary()["valid_until"])
    names = ("state", "throttle:BTCUSDT", "throttle:ETHUSDT")
    for name in names:
        assert (
            0 < server.client.pttl(f"dev:bybit:live:{name}") <= until_ms - time.time() * 1000 + 50
        )
    wait_for(
        lambda: not any(server.get(f"dev:bybit:live:{name}") for name in names), "all to expire"
    )
    assert server.summary()["state"] == "ACTIVE", "what was published last can still be looked up"


def test_on_exit_freeze_leaves_frozen_and_the_cause(server: LiveRedis, tmp_path: Path) -> None:
    with Run(tmp_path, *mock_run(server.url, "--on-exit", "freeze")) as run:
        wait_for(lambda: server.get("dev:bybit:live:state") == "ACTIVE", "ACTIVE")
        assert run.stop() == 0
    assert server.get("dev:bybit:live:state") == "FROZEN"
    assert server.get("dev:bybit:live:throttle:ETHUSDT") == "0.0"
    assert "ended" in server.summary()["fault"]
    # The next run goes on from the ledger, and publishes what it decides.
    with Run(tmp_path, *mock_run(server.url)) as run:
        wait_for(lambda: server.get("dev:bybit:live:throttle:ETHUSDT") != "0.0", "a new decision")
        assert run.stop() == 0
    assert server.summary()["fault"] == ""
    assert_outputs_agree(tmp_path, server)


@pytest.mark.parametrize(
    ("step", "nth"), [("publish", "3"), ("append", "3"), ("artifacts", "2"), ("leave", "1")]
)
def test_on_exit_freeze_is_published_after_a_second_interrupt_at_any_step(
    server: LiveRedis, tmp_path: Path, step: str, nth: str
) -> None:
    options = mock_run(server.url, "--on-exit", "freeze", "--iterations", "4")
    with Run(tmp_path, step, "interrupt", nth, *options, program=[DRIVER]) as run:
        assert run.ended() == 130, run.output
    assert "stopping after this window" in run.output
    assert server.get("dev:bybit:live:state") == "FROZEN"
    assert server.get("dev:bybit:live:throttle:ETHUSDT") == "0.0"
    assert "ended" in server.summary()["fault"]


def test_a_terminal_that_is_closed_ends_a_run_in_order(server: LiveRedis, tmp_path: Path) -> None:
    with Run(tmp_path, *mock_run(server.url, "--on-exit", "freeze")) as run:
        wait_for(lambda: server.get("dev:bybit:live:state") == "ACTIVE", "ACTIVE")
        run.signal(signal.SIGHUP)
        assert run.ended() == 0
    assert server.get("dev:bybit:live:state") == "FROZEN"
    assert len(events(tmp_path, RunStopped)) == 1


def test_a_dry_run_publishes_nothing(server: LiveRedis, tmp_path: Path) -> None:
    with Run(tmp_path, *mock_run(server.url, "--dry-run")) as run:
        wait_for(lambda: len(windows(tmp_path, "dev:bybit:dry-run")) >= 2, "two windows")
        assert run.stop() == 0
    assert server.client.dbsize() == 0
    refused = command(tmp_path, "export", "--ledger", "l.sqlite", "--redis-url", server.url)
    assert refused.code == 3
    assert server.client.dbsize() == 0


def test_export_publishes_what_was_lost_while_it_may_be_believed(
    server: LiveRedis, tmp_path: Path
) -> None:
    with Run(tmp_path, *mock_run(server.url)) as run:
        wait_for(lambda: server.get("dev:bybit:live:state") == "ACTIVE", "ACTIVE")
        assert run.stop() == 0
    before = server.summary()
    exports = [
        ("-m", "cli.main", "export", "--ledger", "l.sqlite"),
        ("-m", "tools.live.export_live_summary", "--ledger", "l.sqlite"),
    ]
    for words in exports:
        server.client.flushall()
        done = python(tmp_path, *words, "--force", env={"LIVE_REDIS_URL": server.url})
        assert done.code == 0, done.err
        assert server.get("dev:bybit:live:state") == "ACTIVE"
        assert server.summary() == before
        # Again is as good as once.
        done = python(tmp_path, *words, "--force", "--redis-url", server.url)
        assert done.code == 0, done.err
    server.client.flushall()
    wait_for(lambda: time.time() * 1000 > int(before["valid_until"]), "valid_until")
    for words in exports:
        stale = python(tmp_path, *words, "--redis-url", server.url)
        assert stale.code == 3, stale.out + stale.err
        assert "valid_until" in stale.err
        assert server.client.dbsize() == 0


@pytest.mark.parametrize("lateness", ["30", "0.5"])
def test_valid_until_allows_for_the_lateness_that_the_run_was_told(
    server: LiveRedis, tmp_path: Path, lateness: str
) -> None:
    options = ["--lateness", lateness, "--iterations", "1"]
    with Run(tmp_path, *mock_run(server.url, *options, interval="2")) as run:
        assert run.ended() == 0, run.output
    expected = windows(tmp_path)[-1].end_ms + 2 * 2_000 + round(float(lateness) * 1_000)
    assert server.summary()["valid_until"] == str(expected)
    # The ledger alone tells it to whoever publishes or looks again.
    server.client.flushall()
    words = ("export", "--ledger", "l.sqlite", "--redis-url", server.url, "--force")
    assert command(tmp_path, *words).code == 0
    assert server.summary()["valid_until"] == str(expected)
    told = json.loads(command(tmp_path, "status", "--ledger", "l.sqlite", "--json").out)
    assert told["valid_until"] == format_time(expected)


def test_export_before_valid_until_needs_no_force(server: LiveRedis, tmp_path: Path) -> None:
    with Run(tmp_path, *mock_run(server.url, "--iterations", "1", interval="2")) as run:
        assert run.ended() == 0
    server.client.flushall()
    done = command(tmp_path, "export", "--ledger", "l.sqlite", "--redis-url", server.url)
    assert done.code == 0, done.err
    assert server.get("dev:bybit:live:state") == "ACTIVE"
    assert_outputs_agree(tmp_path, server)


def test_export_takes_over_from_a_runner_that_was_killed_here_and_gives_the_lease_back(
    server: LiveRedis, tmp_path: Path
) -> None:
    options = mock_run(server.url, "--lateness", "600")
    with Run(tmp_path, *options) as run:
        wait_for(lambda: server.get("dev:bybit:live:state") == "ACTIVE", "ACTIVE")
        run.kill()
    server.client.delete("dev:bybit:live:state", "dev:bybit:live:summary")
    server.client.persist(LEASE)
    words = ("export", "--ledger", "l.sqlite", "--redis-url", server.url)
    done = command(tmp_path, *words)
    assert done.code == 0, done.err
    assert server.get("dev:bybit:live:state") == "ACTIVE"
    assert not server.client.exists(LEASE)
    with Run(tmp_path, *options, "--iterations", "1") as run:
        assert run.ended() == 0, run.output
    assert_outputs_agree(tmp_path, server)


def test_export_of_a_copied_ledger_leaves_the_lease_to_the_runner_that_lives(
    server: LiveRedis, tmp_path: Path
) -> None:
    here, copied = tmp_path / "here", tmp_path / "copied"
    words = ("export", "--ledger", "l.sqlite", "--redis-url", server.url, "--force")
    with Run(here, *mock_run(server.url)) as run:
        wait_for(lambda: server.get("dev:bybit:live:state") == "ACTIVE", "ACTIVE")
        token = server.client.hget(LEASE, "token")
        shutil.copytree(here, copied)
        # The copy's lock is free, and its file names a process that is there.
        for _ in range(2):
            refused = command(copied, *words)
            assert (refused.code, "FENCED" in refused.err) == (4, True), refused.err
        assert command(here, *words).code == 4, "beside a runner it is refused as well"
        assert server.client.hget(LEASE, "token") == token
        let_windows_pass(here)
        assert run.stop() == 0
    assert_outputs_agree(here, server)


def test_a_runner_of_another_machine_may_live_so_that_its_lease_is_left(
    server: LiveRedis, tmp_path: Path
) -> None:
    with Run(tmp_path, *mock_run(server.url)) as run:
        wait_for(lambda: server.get("dev:bybit:live:state") == "ACTIVE", "ACTIVE")
        run.kill()
    server.client.persist(LEASE)
    lock = tmp_path / "l.sqlite.dev.bybit.lock"
    holder = json.loads(lock.read_text())
    lock.write_text(json.dumps(holder | {"host": "elsewhere"}))
    words = ("export", "--ledger", "l.sqlite", "--redis-url", server.url, "--force")
    assert command(tmp_path, *words).code == 4
    assert server.client.exists(LEASE)
    server.client.delete(LEASE)


def test_export_leaves_another_ledgers_keys_alone(server: LiveRedis, tmp_path: Path) -> None:
    for name in ("mine", "other"):
        with Run(tmp_path / name, *mock_run(None, "--iterations", "1")) as run:
            assert run.ended() == 0
    words = ("export", "--ledger", "l.sqlite", "--force", "--redis-url", server.url)
    assert command(tmp_path / "mine", *words).code == 0
    mine = server.summary()
    refused = command(tmp_path / "other", *words)
    assert refused.code == 4, refused.out + refused.err
    assert mine["ledger_id"] in refused.err
    assert server.summary() == mine
    assert command(tmp_path / "other", *words, "--adopt").code == 0
    assert server.summary()["ledger_id"] != mine["ledger_id"]


def test_export_without_a_server_can_not_tell(tmp_path: Path) -> None:
    with Run(tmp_path, *mock_run(None, "--iterations", "1")) as run:
        assert run.ended() == 0
    down = command(
        tmp_path, "export", "--ledger", "l.sqlite", "--force", "--redis-url", "redis://127.0.0.1:1"
    )
    assert down.code == 3, down.err
    assert "DOWN" in down.err
    assert command(tmp_path, "export", "--ledger", "l.sqlite").code == 2


def test_a_removed_symbol_goes_to_zero(server: LiveRedis, tmp_path: Path) -> None:
    with Run(tmp_path, *mock_run(server.url)) as run:
        wait_for(lambda: server.get("dev:bybit:live:throttle:ETHUSDT") == "1.0", "ETHUSDT at 1.0")
        assert run.stop() == 0
    with Run(tmp_path, *mock_run(server.url, symbols="BTCUSDT")) as run:
        wait_for(lambda: server.get("dev:bybit:live:throttle:ETHUSDT") == "0.0", "ETHUSDT at 0.0")
        wait_for(lambda: server.summary()["symbols"] == "BTCUSDT", "the symbols")
        assert run.stop() == 0
    assert_outputs_agree(tmp_path, server)
