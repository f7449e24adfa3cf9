"""Others write to the keys: less trading is adopted, more is put right, what is gone comes back."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from live_support import (
    LiveRedis,
    Run,
    assert_outputs_agree,
    command,
    events,
    let_windows_pass,
    mock_run,
    running_redis,
    steady_policy,
    wait_for,
    windows,
)

from domain.events import ExternalWriteDetected, OverrideApplied, OverrideKind

STATE = "dev:bybit:live:state"
BTC = "dev:bybit:live:throttle:BTCUSDT"
ETH = "dev:bybit:live:throttle:ETHUSDT"


@pytest.fixture(scope="module")
def one_server() -> Iterator[LiveRedis]:
    with running_redis() as server:
        yield server


@pytest.fixture
def server(one_server: LiveRedis) -> LiveRedis:
    one_server.client.flushall()
    return one_server


@pytest.fixture
def run(server: LiveRedis, tmp_path: Path) -> Iterator[Run]:
    """A run that is ACTIVE."""
    with Run(tmp_path, *mock_run(server.url, *steady_policy(tmp_path))) as run:
        wait_for(lambda: server.get(STATE) == "ACTIVE" and server.get(ETH) == "1.0", "ACTIVE")
        yield run


def clear(folder: Path, name: str) -> None:
    words = ("clear", name, "--ledger", "l.sqlite", "--reason", "it is over", "--by", "ann")
    outcome = command(folder, "override", *words)
    assert outcome.code == 0, outcome.err


def test_the_panic_is_adopted_as_a_freeze_until_it_is_cleared(
    server: LiveRedis, run: Run, tmp_path: Path
) -> None:
    server.client.set(STATE, "FROZEN")
    wait_for(lambda: events(tmp_path, OverrideApplied), "the freeze")
    wait_for(lambda: server.get(BTC) == server.get(ETH) == "0.0", "0.0")
    let_windows_pass(tmp_path)
    assert server.get(STATE) == "FROZEN"
    assert 0 < server.client.ttl(STATE) <= 3600, "it lives as long as every other key again"
    (adopted,) = events(tmp_path, OverrideApplied)
    assert (adopted.override.kind, adopted.override.actor) == (OverrideKind.FREEZE, "redis")
    status = command(tmp_path, "override", "list", "--ledger", "l.sqlite")
    assert "by redis" in status.out
    clear(tmp_path, adopted.override.id)
    wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
    let_windows_pass(tmp_path)
    assert server.get(STATE) == "ACTIVE"
    assert run.stop() == 0
    assert len(events(tmp_path, OverrideApplied)) == 1
    assert not events(tmp_path, ExternalWriteDetected)
    assert_outputs_agree(tmp_path, server)


def test_the_bypass_of_the_guide_is_reported_and_put_right_at_the_next_window(
    server: LiveRedis, tmp_path: Path
) -> None:
    with Run(tmp_path, *mock_run(server.url)) as run:
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        words = ("freeze", "--ledger", "l.sqlite", "--reason", "a test", "--by", "ann")
        assert command(tmp_path, "override", *words).code == 0
        assert server.get(STATE) == "FROZEN"
        server.client.set(STATE, "ACTIVE", ex=3600)
        wait_for(lambda: server.get(STATE) == "FROZEN", "the ledger's value")
        let_windows_pass(tmp_path)
        server.client.set(ETH, "1.0")
        wait_for(lambda: server.get(ETH) == "0.0", "the ledger's value")
        assert run.stop() == 0
    detected = events(tmp_path, ExternalWriteDetected)
    assert [(event.key, event.found, event.expected) for event in detected] == [
        (STATE, "ACTIVE", "FROZEN"),
        (ETH, "1.0", "0.0"),
    ]
    assert len(events(tmp_path, OverrideApplied)) == 1
    assert "ACTIVE" in run.output and STATE in run.output
    assert_outputs_agree(tmp_path, server)


def test_a_missing_key_comes_back_without_an_event(
    server: LiveRedis, run: Run, tmp_path: Path
) -> None:
    for name in (STATE, ETH, "dev:bybit:live:summary"):
        server.client.delete(name)
        wait_for(partial(server.client.exists, name), name)
    server.client.flushall()
    wait_for(lambda: server.get(STATE) == "ACTIVE" and server.get(BTC) == "1.0", "all of it")
    assert run.stop() == 0
    assert not events(tmp_path, ExternalWriteDetected)
    assert not events(tmp_path, OverrideApplied)
    assert_outputs_agree(tmp_path, server)


def test_a_lowered_throttle_is_adopted_as_a_cap_and_a_raised_one_is_not(
    server: LiveRedis, run: Run, tmp_path: Path
) -> None:
    server.client.set(ETH, "0.25")
    wait_for(lambda: events(tmp_path, OverrideApplied), "the cap")
    let_windows_pass(tmp_path)
    assert (server.get(STATE), server.get(BTC), server.get(ETH)) == ("ACTIVE", "1.0", "0.25")
    server.client.set(ETH, "0.75")
    wait_for(lambda: events(tmp_path, ExternalWriteDetected), "the report")
    wait_for(lambda: server.get(ETH) == "0.25", "the cap again")
    (cap,) = events(tmp_path, OverrideApplied)
    assert (cap.override.kind, cap.override.symbol, cap.override.cap) == (
        OverrideKind.CAP,
        "ETHUSDT",
        0.25,
    )
    clear(tmp_path, cap.override.id)
    wait_for(lambda: server.get(ETH) == "1.0", "1.0")
    assert run.stop() == 0
    assert_outputs_agree(tmp_path, server)


def test_what_can_not_be_read_is_reported_and_put_right(
    server: LiveRedis, run: Run, tmp_path: Path
) -> None:
    server.client.set(STATE, "HALT")
    wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
    let_windows_pass(tmp_path)
    with server.client.pipeline() as both:
        both.delete(ETH)
        both.rpush(ETH, "0.0")
        both.execute()
    wait_for(lambda: server.client.type(ETH) == "string", "a string")
    assert run.stop() == 0
    assert [event.found for event in events(tmp_path, ExternalWriteDetected)] == [
        "HALT",
        "(not a string)",
    ]
    assert_outputs_agree(tmp_path, server)


def test_a_panic_while_no_runner_was_there_is_adopted_at_the_next_start(
    server: LiveRedis, run: Run, tmp_path: Path
) -> None:
    run.kill()
    server.client.set(STATE, "FROZEN")
    with Run(tmp_path, *mock_run(server.url)) as later:
        wait_for(lambda: events(tmp_path, OverrideApplied), "the freeze")
        let_windows_pass(tmp_path)
        assert server.get(STATE) == "FROZEN"
        assert later.stop() == 0
    assert_outputs_agree(tmp_path, server)


def test_a_new_ledger_begins_in_the_state_that_is_published(
    server: LiveRedis, run: Run, tmp_path: Path
) -> None:
    words = ("freeze", "--ledger", "l.sqlite", "--reason", "a test", "--by", "ann")
    assert command(tmp_path, "override", *words).code == 0
    assert run.stop() == 0
    new = tmp_path / "new"
    with Run(new, *mock_run(server.url)) as other:
        wait_for(lambda: windows(new), "a window")
        wait_for(lambda: server.summary()["position"] != "", "a publication")
        assert server.get(STATE) == "FROZEN"
        assert other.stop() == 0
    assert server.get(STATE) == "FROZEN"
    assert_outputs_agree(new, server)
