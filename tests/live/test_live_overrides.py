"""Operators' words, from the command line through the inbox to Redis and the artifacts."""

import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from live_support import (
    DRIVER,
    LiveRedis,
    Run,
    artifact,
    assert_outputs_agree,
    command,
    events,
    let_windows_pass,
    mock_run,
    recorded,
    running_redis,
    steady_policy,
    wait_for,
    windows,
)
from redis_proxy import proxied
from support import Outcome, live, row, write_jsonl

from cli.override import override as override_group
from cli.publishing import hold
from domain.events import Override, OverrideApplied, OverrideEnded, OverrideKind
from ledger.inbox import Clearance, Inbox, Request
from ledger.location import LedgerLocation
from ledger.lock import stream_holder

STATE = "dev:bybit:live:state"
HOLD = "dev:bybit:live:hold"
BTC = "dev:bybit:live:throttle:BTCUSDT"
ETH = "dev:bybit:live:throttle:ETHUSDT"
WORDS = ("--ledger", "l.sqlite", "--reason", "a test", "--by", "ann")


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
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        wait_for(lambda: server.get(ETH) == "1.0", "1.0")
        yield run


def override(folder: Path, *words: str) -> Outcome:
    return command(folder, "override", *words, *WORDS)


def done(folder: Path, *words: str) -> str:
    """Ask for an override that must be granted; return its id."""
    outcome = override(folder, *words)
    assert outcome.code == 0, outcome.err
    return outcome.out.removeprefix("done: ").partition(",")[0]


def listed(folder: Path) -> dict[str, Any]:
    outcome = command(folder, "override", "list", "--ledger", "l.sqlite", "--json")
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def inbox_files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "l.sqlite.dev.bybit.inbox").iterdir())


def applied(folder: Path) -> list[str]:
    return [event.override.id for event in events(folder, OverrideApplied)]


def test_a_freeze_is_in_redis_before_its_command_returns_twenty_times(
    server: LiveRedis, tmp_path: Path
) -> None:
    took_ms: list[float] = []
    with Run(tmp_path, *mock_run(server.url)) as run:
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        for _ in range(20):
            began = time.monotonic()
            name = done_here(tmp_path, "freeze")
            assert server.get(STATE) == "FROZEN"
            assert name in server.summary()["overrides"]
            took_ms.append((time.monotonic() - began) * 1000)
            assert server.get(BTC) == server.get(ETH) == "0.0"
        assert run.stop() == 0
    assert len(events(tmp_path, OverrideApplied)) == 20
    assert inbox_files(tmp_path) == []
    assert_outputs_agree(tmp_path, server)
    print("freeze in Redis after ms:", *(f"{took:.0f}" for took in sorted(took_ms)))


def test_a_freeze_is_in_redis_before_its_command_returns_however_slow_redis_is(
    server: LiveRedis, tmp_path: Path
) -> None:
    options = mock_run(server.url, interval="0.5")
    with Run(tmp_path, "publish", "slow", "1", *options, program=[DRIVER]) as run:
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        done_here(tmp_path, "freeze")
        assert server.get(STATE) == "FROZEN"
        assert run.stop() == 0


def done_here(folder: Path, *words: str) -> str:
    """As `done`, in this process: twenty starts of Python would take longer than the test."""
    outcome = live("override", *words, "--ledger", folder / "l.sqlite", *WORDS[2:])
    assert outcome.code == 0, outcome.err
    return outcome.out.removeprefix("done: ").partition(",")[0]


def test_freeze_cap_unfreeze_clear_and_list_do_what_they_say(
    server: LiveRedis, run: Run, tmp_path: Path
) -> None:
    # One symbol.
    eth = done(tmp_path, "freeze", "--symbol", "ETHUSDT")
    assert (server.get(STATE), server.get(BTC), server.get(ETH)) == ("ACTIVE", "1.0", "0.0")
    # The lowest cap wins, and a freeze goes before it.
    caps = [done(tmp_path, "cap", cap) for cap in ("0.5", "0.25", "0.75")]
    assert (server.get(BTC), server.get(ETH)) == ("0.25", "0.0")
    assert [view["id"] for view in listed(tmp_path)["in_force"]] == [eth, *caps]
    # Shown everywhere.
    shown = {view["id"] for view in json.loads(server.summary()["overrides"])}
    assert shown == {eth, *caps}
    wait_for(lambda: len(artifact(tmp_path)["overrides"]) == 4, "the artifact")
    report = command(tmp_path, "report", "--ledger", "l.sqlite").out
    status = command(tmp_path, "status", "--ledger", "l.sqlite").out
    for text in (report, status):
        assert "ann" in text and "a test" in text
    # Not while a freeze is in force, and not without a word of confirmation.
    refused = override(tmp_path, "unfreeze", "--confirm")
    assert refused.code == 2 and eth in refused.err
    refused = override(tmp_path, "unfreeze")
    assert refused.code == 2 and "--confirm" in refused.err
    done(tmp_path, "clear", caps[1])
    assert server.get(BTC) == "0.5"
    for name in (eth, caps[0], caps[2]):
        done(tmp_path, "clear", name)
    wait_for(lambda: server.get(BTC) == server.get(ETH) == "1.0", "1.0 again")
    assert listed(tmp_path) == {"in_force": [], "waiting": []}
    # Cleared twice, unknown, out of range.
    assert override(tmp_path, "clear", eth).code == 2
    assert override(tmp_path, "cap", "1.5").code == 2
    assert override(tmp_path, "freeze", "--symbol", "DOGEUSDT").code == 2
    assert run.stop() == 0
    assert_outputs_agree(tmp_path, server)


def test_an_override_for_a_time_ends_by_itself(server: LiveRedis, run: Run, tmp_path: Path) -> None:
    done_here(tmp_path, "freeze", "--for", "5s")
    done_here(tmp_path, "cap", "0.25", "--for", "6s", "--symbol", "ETHUSDT")
    assert (server.get(STATE), server.get(ETH)) == ("FROZEN", "0.0")
    wait_for(lambda: server.get(STATE) == "ACTIVE", "the end of the freeze")
    wait_for(lambda: server.get(ETH) == "1.0", "the end of the cap")
    assert run.stop() == 0
    assert {event.ended_by for event in events(tmp_path, OverrideEnded)} == {"expiry"}
    assert_outputs_agree(tmp_path, server)


def test_unfreeze_lets_a_frozen_controller_trade_at_once(server: LiveRedis, tmp_path: Path) -> None:
    # By the guide's own hysteresis, which would take 24 windows.
    with Run(tmp_path, *mock_run(server.url)) as run:
        wait_for(lambda: server.get(STATE), "the state")
        done(tmp_path, "clear", done(tmp_path, "freeze"))
        assert server.get(STATE) == "FROZEN"
        done(tmp_path, "unfreeze", "--confirm")
        assert server.get(STATE) == "ACTIVE"
        assert run.stop() == 0
    refused = override(tmp_path, "unfreeze", "--confirm")
    assert refused.code == 2 and "no runner" in refused.err
    assert inbox_files(tmp_path) == []


def test_without_a_runner_a_freeze_waits_and_holds_redis(
    server: LiveRedis, run: Run, tmp_path: Path
) -> None:
    run.kill()
    waits = override(tmp_path, "freeze")
    assert waits.code == 3 and "no --redis-url" in waits.err
    assert server.get(STATE) == "ACTIVE"
    waits = override(tmp_path, "freeze", "--redis-url", server.url)
    assert waits.code == 3, waits.err
    assert "hold" in waits.err
    assert "ann" in str(server.get(HOLD)) and "a test" in str(server.get(HOLD))
    assert server.get(STATE) == "FROZEN"
    assert server.get(BTC) == server.get(ETH) == "0.0"
    assert len(listed(tmp_path)["waiting"]) == 2
    for words in (("cap", "0.5"), ("clear", "nobody")):
        assert override(tmp_path, *words).code == 3
    assert len(listed(tmp_path)["waiting"]) == 2, "only a freeze waits"
    with Run(tmp_path, *mock_run(server.url)) as later:
        wait_for(lambda: len(applied(tmp_path)) == 2, "both to be applied")
        wait_for(lambda: server.get(HOLD) is None, "the end of the hold")
        assert server.get(STATE) == "FROZEN"
        for name in applied(tmp_path):
            done(tmp_path, "clear", name)
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        assert later.stop() == 0
    assert server.summary()["fault"] == ""
    assert_outputs_agree(tmp_path, server)


def test_a_silent_runner_is_held_and_takes_the_freeze_when_it_wakes(
    server: LiveRedis, run: Run, tmp_path: Path
) -> None:
    run.signal(signal.SIGSTOP)
    waits = override(tmp_path, "freeze", "--redis-url", server.url)
    assert waits.code == 3, waits.err
    assert str(run.process.pid) in waits.err
    assert (server.get(STATE), server.get(ETH)) == ("FROZEN", "0.0")
    run.signal(signal.SIGCONT)
    wait_for(lambda: applied(tmp_path), "the freeze")
    wait_for(lambda: server.get(HOLD) is None, "the end of the hold")
    assert server.get(STATE) == "FROZEN"
    assert run.stop() == 0
    assert_outputs_agree(tmp_path, server)


def test_a_freeze_that_ran_out_before_the_next_start_leaves_no_hold(
    server: LiveRedis, run: Run, tmp_path: Path
) -> None:
    run.kill()
    assert override(tmp_path, "freeze", "--for", "1s", "--redis-url", server.url).code == 3
    assert server.get(HOLD) is not None
    time.sleep(1.0)
    with Run(tmp_path, *mock_run(server.url)) as later:
        wait_for(lambda: not listed(tmp_path)["waiting"], "it to be read")
        let_windows_pass(tmp_path)
        assert server.get(HOLD) is None
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        assert later.stop() == 0


def test_a_hold_for_another_ledgers_stream_is_ended_by_its_own_request_alone(
    server: LiveRedis, run: Run, tmp_path: Path
) -> None:
    """The other ledger's runner is gone for good; ours takes freezes and clearances meanwhile."""
    other = tmp_path / "other"
    with Run(other, *mock_run(None, "--iterations", "1")) as once:
        assert once.ended() == 0
    waits = override(other, "freeze", "--redis-url", server.url)
    assert waits.code == 3
    theirs = listed(other)["waiting"][0]["id"]
    ours = done(tmp_path, "freeze")
    assert theirs in str(server.get(HOLD)) and ours not in str(server.get(HOLD))
    done(tmp_path, "clear", ours)
    assert theirs in str(server.get(HOLD))
    let_windows_pass(tmp_path, 3)
    assert (server.get(STATE), server.get(BTC)) == ("FROZEN", "0.0")
    assert theirs in server.summary()["fault"], "so that one knows what to clear"
    # An explicit clear ends it, whichever ledger the freeze is of; nothing else is recorded.
    cleared = override(tmp_path, "clear", theirs)
    assert cleared.code == 0, cleared.err
    assert f"the hold of {theirs} in Redis is ended" in cleared.out
    assert server.get(HOLD) is None
    wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
    assert override(tmp_path, "clear", theirs).code == 2
    assert run.stop() == 0
    assert_outputs_agree(tmp_path, server)


def test_a_freeze_that_is_taken_while_its_hold_is_being_set_leaves_no_hold(
    server: LiveRedis, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_hold(*args: str) -> str:
        run.signal(signal.SIGCONT)
        wait_for(lambda: [name for name in inbox_files(tmp_path) if "answer" in name], "an answer")
        # Only now, when the runner has ended whatever hold there was.
        let_windows_pass(tmp_path, 1)
        return hold(*args)

    monkeypatch.setattr("cli.override.hold", slow_hold)
    run.signal(signal.SIGSTOP)
    done_here(tmp_path, "freeze", "--redis-url", server.url)
    assert server.get(HOLD) is None
    assert server.get(STATE) == "FROZEN"
    assert run.stop() == 0


def test_a_hold_that_could_not_be_ended_in_time_is_ended_when_redis_is_back(
    server: LiveRedis, tmp_path: Path
) -> None:
    with (
        proxied(server.port) as proxy,
        Run(tmp_path, *mock_run(proxy.url, *steady_policy(tmp_path))) as run,
    ):
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        run.signal(signal.SIGSTOP)
        assert override(tmp_path, "freeze", "--redis-url", server.url).code == 3
        proxy.mode = "hole"
        run.signal(signal.SIGCONT)
        wait_for(lambda: not listed(tmp_path)["waiting"], "the freeze to be taken")
        assert server.get(HOLD) is not None
        proxy.mode = "pass"
        wait_for(lambda: server.get(HOLD) is None, "the end of the hold")
        assert server.get(STATE) == "FROZEN"
        assert run.stop() == 0
    assert_outputs_agree(tmp_path, server)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_request_that_a_killed_runner_had_applied_is_not_applied_twice(
    server: LiveRedis, tmp_path: Path, when: str
) -> None:
    options = mock_run(server.url, *steady_policy(tmp_path))
    with Run(tmp_path, "answer", when, "1", *options, program=[DRIVER]) as broken:
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        inbox = Inbox(LedgerLocation(tmp_path / "l.sqlite"), "dev:bybit")
        freeze = Override(
            id="1-first", kind=OverrideKind.FREEZE, actor="ann", reason="a test", applied_at_ms=1
        )
        inbox.put(Request(id=freeze.id, override=freeze))
        assert broken.process.wait(30) == -signal.SIGKILL
    assert applied(tmp_path) == ["1-first"]
    location = LedgerLocation(tmp_path / "l.sqlite")
    with Run(tmp_path, *options) as run:
        wait_for(lambda: stream_holder(location, "dev:bybit"), "a runner that holds the stream")
        wait_for(lambda: server.get(STATE) == "FROZEN", "FROZEN")
        wait_for(lambda: not inbox.pending(), "the answer")
        done(tmp_path, "clear", "1-first")
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        assert run.stop() == 0
    assert applied(tmp_path) == ["1-first"]
    assert len(events(tmp_path, OverrideEnded)) == 1
    assert_outputs_agree(tmp_path, server)


def test_a_clearance_that_was_done_but_not_answered_is_done(
    server: LiveRedis, tmp_path: Path
) -> None:
    options = mock_run(server.url, *steady_policy(tmp_path))
    with Run(tmp_path, "answer", "before", "2", *options, program=[DRIVER]) as broken:
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        name = done(tmp_path, "freeze")
        inbox = Inbox(LedgerLocation(tmp_path / "l.sqlite"), "dev:bybit")
        asked = Request(id="9-clear", clearance=Clearance(name, 1, "ann", "a test"))
        inbox.put(asked)
        assert broken.process.wait(30) == -signal.SIGKILL
    assert [event.id for event in events(tmp_path, OverrideEnded)] == [name]
    with Run(tmp_path, *options) as run:
        wait_for(lambda: not inbox.pending(), "the answer")
        answer = inbox.take_answer(asked)
        assert answer is not None and answer.refused is None
        assert run.stop() == 0


def test_what_is_no_request_is_set_aside(server: LiveRedis, run: Run, tmp_path: Path) -> None:
    done(tmp_path, "clear", done(tmp_path, "freeze"))
    folder = tmp_path / "l.sqlite.dev.bybit.inbox"
    noise = random.Random(0)
    files = {
        "0-noise": noise.randbytes(500),
        "0-empty": b"",
        "0-neither": b'{"id": "0-neither"}',
        "0-deep": b'{"id": "0-deep", "more": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        "0-large": b'{"id": "0-large", "more": "' + b"x" * 70_000 + b'"}',
        "0-zeros": bytes(100),
    }
    for name, content in files.items():
        (folder / f"{name}.request.json").write_bytes(content)
    wait_for(lambda: not listed(tmp_path)["waiting"], "all to be set aside")
    done(tmp_path, "clear", done(tmp_path, "freeze"))
    assert run.stop() == 0
    assert len(applied(tmp_path)) == 2
    assert [name for name in inbox_files(tmp_path) if name.endswith(".request.json")] == []


def test_a_request_under_another_name_is_not_taken_over_and_over(
    server: LiveRedis, run: Run, tmp_path: Path
) -> None:
    done(tmp_path, "clear", done(tmp_path, "freeze"))
    folder = tmp_path / "l.sqlite.dev.bybit.inbox"
    cap = Override(
        id="../outside", kind=OverrideKind.CAP, actor="ann", reason="", applied_at_ms=1, cap=0.5
    )
    content = msgspec.json.encode(Request(id=cap.id, override=cap))
    (folder / "5-copied.request.json").write_bytes(content)
    (folder / "6-folder.request.json").mkdir()
    wait_for(lambda: not listed(tmp_path)["waiting"], "it to be set aside")
    done(tmp_path, "clear", done(tmp_path, "freeze"))
    assert run.stop() == 0
    assert len(applied(tmp_path)) == 2
    assert not list(tmp_path.glob("outside*"))


def test_a_freeze_reaches_a_runner_that_has_decided_no_window_yet(
    server: LiveRedis, tmp_path: Path
) -> None:
    options = mock_run(server.url, interval="3600")
    with Run(tmp_path, *options) as run:
        wait_for(lambda: list(tmp_path.glob("*.lock")), "the runner")
        wait_for(lambda: server.client.exists("dev:bybit:live:lease"), "the lease")
        name = done(tmp_path, "freeze")
        assert server.get(STATE) == "FROZEN"
        assert run.stop() == 0
    assert applied(tmp_path) == [name]


def test_every_request_says_why(tmp_path: Path) -> None:
    for name in override_group.commands.keys() - {"list"}:
        words = [name, *(["0.5"] if name == "cap" else ["x"] if name == "clear" else [])]
        refused = command(tmp_path, "override", *words)
        assert refused.code == 2 and "--reason" in refused.err


def test_a_file_that_is_played_at_a_pace_hears_overrides_while_it_waits(
    server: LiveRedis, tmp_path: Path
) -> None:
    file = write_jsonl(tmp_path / "kpis.jsonl", [row(0), row(1)])
    options = ["--feed", f"file:{file}", "--ledger", "l.sqlite", "--redis-url", server.url]
    with Run(tmp_path, *options, "--speed", "0.001") as run:
        run.says("2 windows")
        name = done(tmp_path, "freeze")
        assert server.get(STATE) == "FROZEN"
        assert applied(tmp_path) == [name]
        assert not windows(tmp_path), "its first window takes 1,000 minutes"
        assert run.stop() == 0
    assert inbox_files(tmp_path) == []


def test_a_file_that_is_played_as_fast_as_can_be_hears_overrides_between_windows(
    tmp_path: Path,
) -> None:
    file = write_jsonl(tmp_path / "kpis.jsonl", [row(index) for index in range(4)])
    options = ["run", "--feed", f"file:{file}", "--ledger", "l.sqlite"]
    assert command(tmp_path, *options, "--iterations", "1").code == 0
    waiting = override(tmp_path, "freeze")
    assert waiting.code == 3
    assert command(tmp_path, *options).code == 0
    assert [name in waiting.err for name in applied(tmp_path)] == [True]
    kinds = [type(record.event).__name__ for record in recorded(tmp_path)]
    assert kinds.index("OverrideApplied") < len(kinds) - 1 - kinds[::-1].index("KpiObserved")
    assert not listed(tmp_path)["waiting"]
