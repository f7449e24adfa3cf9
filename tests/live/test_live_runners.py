"""One runner per env and exchange, whatever dies, stops or wakes up; and outputs that agree."""

import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
from live_support import (
    DRIVER,
    LiveRedis,
    Market,
    Run,
    assert_outputs_agree,
    events,
    hash_run,
    last_version,
    mock_run,
    recorded,
    running_redis,
    wait_for,
    windows,
)
from redis import Redis

from domain.events import RunStarted

TOGETHER = 20
STATE = "dev:bybit:live:state"
LEASE = "dev:bybit:live:lease"
NAMES = ("state", "throttle:BTCUSDT", "throttle:ETHUSDT")


@pytest.fixture
def server() -> Iterator[LiveRedis]:
    with running_redis() as server:
        yield server


class Reader(threading.Thread):
    """A bot that looks at the keys all the time, as one look each: what it saw, changes only."""

    def __init__(self, server: LiveRedis, namespace: str) -> None:
        super().__init__(daemon=True)
        self.seen: list[dict[str, str]] = []
        self.looks = 0
        self._namespace = namespace
        self._client = Redis(port=server.port, decode_responses=True, protocol=2)
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.001):
            with self._client.pipeline() as look:
                look.hgetall(f"{self._namespace}summary")
                for name in NAMES:
                    look.get(self._namespace + name)
                answer: list[Any] = look.execute()
            summary, *values = answer
            told = {name: str(value) for name, value in zip(NAMES, values, strict=True)}
            told |= {name: summary.get(name, "") for name in ("ledger_id", "version", "fault")}
            told["summary.state"] = summary.get("state", "None")
            self.looks += 1
            if not self.seen or told != self.seen[-1]:
                self.seen.append(told)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()
        self._client.close()

    def assert_never_stale(self) -> None:
        """Check that versions never go back, and no ledger comes again once another followed."""
        assert self.looks > 100
        past: set[str] = set()
        ledger_id, version = "", 0
        for told in self.seen:
            assert told["state"] == told["summary.state"], told
            if told["state"] in {"FROZEN", "None"}:
                assert {told[name] for name in NAMES[1:]} <= {"0.0", "None"}, told
            if not told["ledger_id"]:
                continue
            if told["ledger_id"] != ledger_id:
                assert told["ledger_id"] not in past, f"{told} came after another ledger"
                past.add(ledger_id)
                ledger_id, version = told["ledger_id"], 0
            assert int(told["version"]) >= version, told
            version = int(told["version"])


def first_to_end(one: Run, two: Run) -> tuple[Run, Run]:
    """Wait until one of them has ended; return it, and the other one."""
    wait_for(
        lambda: one.process.poll() is not None or two.process.poll() is not None,
        "one of them to end",
    )
    return (one, two) if one.process.poll() is not None else (two, one)


def test_of_two_runners_started_together_exactly_one_decides_twenty_times(tmp_path: Path) -> None:
    for turn in range(TOGETHER):
        folder = tmp_path / str(turn)
        options = mock_run(None)
        with Run(folder, *options) as one, Run(folder, *options) as two:
            loser, winner = first_to_end(one, two)
            assert loser.ended() == 4, loser.output
            assert f"process {winner.process.pid} on {os.uname().nodename} since 20" in loser.output
            wait_for(partial(windows, folder), "a window")
            assert winner.stop() == 0
        runs = events(folder, RunStarted)
        assert [run.process_id for run in runs] == [winner.process.pid]


def test_two_machines_with_one_redis_have_one_runner(server: LiveRedis, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with Run(first, *mock_run(server.url)) as one:
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        for more in ((), ("--adopt",)):
            with Run(second, *mock_run(server.url, *more)) as two:
                assert two.ended() == 4, two.output
                assert f"process {one.process.pid}" in two.output
                assert not recorded(second)
        assert one.stop() == 0
    assert not server.client.exists(LEASE), "given back at the end"
    assert_outputs_agree(first, server)


def test_prod_refuses_another_ledgers_keys_unless_told_to_adopt_them(
    server: LiveRedis, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    options = hash_run(server.url, "--env", "prod", symbols="BTCUSDT")
    with Market(server, "prod", ["BTCUSDT"]):
        with Run(first, *options) as one:
            wait_for(lambda: server.get("prod:bybit:live:state"), "the state")
            assert one.stop() == 0
        with Run(second, *options) as two:
            assert two.ended() == 4, two.output
            assert "--adopt" in two.output
        with Run(second, *options, "--adopt") as two:
            wait_for(lambda: windows(second, "prod:bybit"), "a window")
            assert two.stop() == 0
    assert_outputs_agree(second, server, "prod:bybit")


def test_after_a_kill_the_other_machine_takes_over_once_the_lease_has_run_out(
    server: LiveRedis, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with Reader(server, "dev:bybit:live:") as reader:
        with Run(first, *mock_run(server.url)) as one:
            wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
            one.kill()
        with Run(second, *mock_run(server.url, "--adopt")) as two:
            assert two.ended() == 4, two.output
            assert "runs out in" in two.output
        server.client.pexpire(LEASE, 200)  # It would take some seconds.
        wait_for(lambda: not server.client.exists(LEASE), "the lease's end")
        with Run(second, *mock_run(server.url, "--adopt")) as two:
            wait_for(lambda: len(windows(second)) >= 2, "two windows")
            assert two.stop() == 0
    reader.assert_never_stale()
    assert_outputs_agree(second, server)


def test_a_runner_that_wakes_up_after_a_takeover_publishes_nothing_and_ends(
    server: LiveRedis, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    options = hash_run(server.url)
    with (
        Market(server, "dev", ["BTCUSDT", "ETHUSDT"]) as market,
        Reader(server, "dev:bybit:live:") as reader,
        Run(first, *options) as one,
    ):
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        one.signal(signal.SIGSTOP)
        before = server.summary()["version"]
        server.client.pexpire(LEASE, 200)  # It would take some seconds.
        wait_for(lambda: not server.client.exists(LEASE), "the lease's end")
        market.kpis["ETHUSDT"] = {"risk_ratio": 0.9}
        with Run(second, *options, "--adopt") as two:
            wait_for(lambda: server.get(STATE) == "FROZEN", "FROZEN by the second")
            market.kpis["ETHUSDT"] = {}
            taken = server.summary()["ledger_id"]
            one.signal(signal.SIGCONT)
            assert one.ended() == 4, one.output
            assert f"process {two.process.pid}" in one.output
            version = int(server.summary()["version"])
            wait_for(lambda: int(server.summary()["version"]) > version, "the second's next window")
            assert two.stop() == 0
    reader.assert_never_stale()
    ledgers = [told["ledger_id"] for told in reader.seen if told["ledger_id"]]
    first_of_second = ledgers.index(taken)
    assert set(ledgers[first_of_second:]) == {taken}
    states = [told["state"] for told in reader.seen if told["ledger_id"] == taken]
    assert "ACTIVE" not in states[states.index("FROZEN") :], "24 windows haven't passed"
    assert max(
        int(told["version"]) for told in reader.seen if told["ledger_id"] not in {"", taken}
    ) == int(before)
    assert_outputs_agree(second, server)


def test_a_restart_on_the_same_ledger_waits_for_no_lease(server: LiveRedis, tmp_path: Path) -> None:
    with Run(tmp_path, *mock_run(server.url)) as one:
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        one.kill()
    version = last_version(tmp_path)
    with Run(tmp_path, *mock_run(server.url)) as two:
        wait_for(lambda: int(server.summary()["version"]) > version, "a new window")
        assert two.stop() == 0
    assert_outputs_agree(tmp_path, server)


def test_a_restart_after_a_kill_in_the_first_window_waits_for_no_lease(
    server: LiveRedis, tmp_path: Path
) -> None:
    with Run(tmp_path, "append", "before", "1", *mock_run(server.url), program=[DRIVER]) as one:
        assert one.process.wait(30) == -signal.SIGKILL
    assert server.client.exists(LEASE)
    with Run(tmp_path, *mock_run(server.url, "--iterations", "1")) as two:
        assert two.ended() == 0, two.output
    assert_outputs_agree(tmp_path, server)


def test_a_restart_waits_for_no_lease_that_was_taken_once_redis_was_back(
    server: LiveRedis, tmp_path: Path
) -> None:
    server.kill()
    with Run(tmp_path, *mock_run(server.url)) as one:
        wait_for(lambda: windows(tmp_path), "a window")
        server.restart()
        wait_for(lambda: server.get(STATE), "a publication")
        lock = tmp_path / "l.sqlite.dev.bybit.lock"
        wait_for(lambda: "fencing_token" in lock.read_text(), "the token to be noted")
        one.kill()
    with Run(tmp_path, *mock_run(server.url, "--iterations", "1")) as two:
        assert two.ended() == 0, two.output
    assert_outputs_agree(tmp_path, server)


@pytest.mark.parametrize(
    ("step", "when", "nth"),
    [
        ("append", "before", 2),
        ("append", "after", 1),
        ("append", "after", 3),
        ("publish", "before", 1),
        ("publish", "before", 3),
        ("publish", "after", 2),
        ("artifacts", "before", 2),
        ("artifacts", "after", 2),
    ],
)
def test_after_a_kill_between_two_steps_of_a_window_a_restart_makes_all_outputs_agree(
    server: LiveRedis, tmp_path: Path, step: str, when: str, nth: int
) -> None:
    options = mock_run(server.url)
    with Run(tmp_path, step, when, str(nth), *options, program=[DRIVER]) as broken:
        assert broken.process.wait(30) == -signal.SIGKILL, broken.output
    killed_at = last_version(tmp_path)
    with Run(tmp_path, *options, "--iterations", "1") as run:
        assert run.ended() == 0, run.output
    versions = [record.version for record in recorded(tmp_path)]
    assert versions == list(range(1, len(versions) + 1))
    assert len(versions) > killed_at
    assert_outputs_agree(tmp_path, server)


def test_the_next_start_publishes_before_it_has_a_window(server: LiveRedis, tmp_path: Path) -> None:
    # Killed between the append and the publication of a freeze, at an interval of an hour the keys
    # would tell of ACTIVE for as long.
    with Run(tmp_path, *mock_run(server.url)) as run:
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        run.kill()
    server.client.delete(STATE)
    version = last_version(tmp_path)
    with Run(tmp_path, *mock_run(server.url)) as run:
        wait_for(lambda: server.get(STATE), "the state")
        assert run.stop() == 0
    assert last_version(tmp_path) > version
    assert_outputs_agree(tmp_path, server)
