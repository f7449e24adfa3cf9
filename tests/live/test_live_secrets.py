"""Where the server's address comes from, and that its password goes nowhere."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_support import (
    LiveRedis,
    Run,
    artifact,
    command,
    let_windows_pass,
    mock_run,
    running_redis,
    wait_for,
)
from webhook import running_webhook

CANARY = "canary-Zq7-secret"
STATE = "dev:bybit:live:state"


@pytest.fixture
def server() -> Iterator[LiveRedis]:
    with running_redis(password=CANARY) as server:
        yield server


def command_line(process_id: int) -> str:
    return Path(f"/proc/{process_id}/cmdline").read_bytes().decode()


def assert_hidden(folder: Path, server: LiveRedis, *but: Path) -> None:
    """Check that the password stands in no file but those, and in no key or value."""
    files = [path for path in folder.rglob("*") if path.is_file() and path not in but]
    assert len(files) > 4
    for path in files:
        assert CANARY.encode() not in path.read_bytes(), path
    assert CANARY not in server.everything()


def test_a_password_on_the_command_line_is_warned_about_and_hidden(
    server: LiveRedis, tmp_path: Path
) -> None:
    with Run(tmp_path, *mock_run(server.url)) as run:
        wait_for(lambda: "127.0.0.1" in command_line(run.process.pid), "its start")
        wait_for(lambda: CANARY not in command_line(run.process.pid), "the title")
        assert "127.0.0.1" in command_line(run.process.pid)
        run.says("a password on the command line")
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        # An outage must not tell it either.
        server.kill()
        run.says("Redis is down")
        server.restart()
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        assert run.stop() == 0
    assert CANARY not in run.output
    assert_hidden(tmp_path, server)


def test_a_wrong_password_is_told_without_the_password(server: LiveRedis, tmp_path: Path) -> None:
    wrong = server.url.replace(CANARY, f"{CANARY}-wrong")
    with Run(tmp_path, *mock_run(wrong)) as run:
        run.says("Redis is down")
        wait_for((tmp_path / "artifacts/live/latest/LIVE_SUMMARY.json").exists, "files")
        assert run.stop() == 0
    assert CANARY not in run.output
    assert server.get(STATE) is None
    assert_hidden(tmp_path, server)


def test_the_address_comes_from_a_variable_or_a_file(server: LiveRedis, tmp_path: Path) -> None:
    secret = tmp_path / "redis-url"
    secret.write_text(server.url + "\n")
    secret.chmod(0o600)
    with Run(tmp_path, *mock_run(None, "--redis-url-file", secret)) as run:
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        assert CANARY not in command_line(run.process.pid)
        assert run.stop() == 0
    assert "password" not in run.output
    server.client.flushall()
    with Run(tmp_path, *mock_run(None), env={"LIVE_REDIS_URL": server.url}) as run:
        wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
        assert run.stop() == 0
    assert "password" not in run.output
    assert artifact(tmp_path)["state"] == "ACTIVE"
    assert_hidden(tmp_path, server, secret)
    both = command(tmp_path, "run", "--redis-url", server.url, "--redis-url-file", secret)
    assert both.code == 2
    assert CANARY not in both.out + both.err


def test_commands_that_only_pass_by_hide_it_too(server: LiveRedis, tmp_path: Path) -> None:
    with Run(tmp_path, *mock_run(None, "--iterations", "1")) as run:
        assert run.ended() == 0
    url = ("--redis-url", server.url)
    done = command(tmp_path, "export", "--ledger", "l.sqlite", "--force", *url)
    assert done.code == 0, done.err
    assert "a password on the command line" in done.err
    assert CANARY not in done.out + done.err
    words = ("override", "freeze", "--ledger", "l.sqlite", "--reason", "a test", "--by", "ann")
    held = command(tmp_path, *words, *url)
    assert held.code == 3
    assert CANARY not in held.out + held.err
    assert server.get("dev:bybit:live:hold")
    assert "a password on the command line" in held.err
    assert_hidden(tmp_path, server)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{CANARY}@127.0.0.1:notaport/0",
        f"http://:{CANARY}@127.0.0.1/0",
        f"redis://:{CANARY}@127.0.0.1:6379/0?pass={CANARY}",
        f"redis://:{CANARY}@127.0.0.1:6379/x",
    ],
)
def test_an_address_that_is_none_is_refused_without_telling_it(tmp_path: Path, url: str) -> None:
    refused = command(tmp_path, *["run", *map(str, mock_run(url))])
    assert refused.code == 2, refused.err
    assert CANARY not in refused.out + refused.err


def test_a_feeds_password_is_hidden_as_well(tmp_path: Path) -> None:
    feed = f"ws://ann:{CANARY}@127.0.0.1:9/kpis?token={CANARY}"
    options = mock_run(None)
    options[options.index("mock://healthy")] = feed
    with Run(tmp_path, *options) as run:
        wait_for(lambda: "127.0.0.1" in command_line(run.process.pid), "its start")
        wait_for(lambda: CANARY not in command_line(run.process.pid), "the title")
        wait_for((tmp_path / "artifacts/live/latest/LIVE_SUMMARY.json").exists, "files")
        assert run.stop() == 0
    assert CANARY not in run.output
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("mode", ["ok", "fail"])
def test_where_notifications_go_is_hidden_as_a_whole(tmp_path: Path, mode: str) -> None:
    with running_webhook() as webhook:
        webhook.mode = mode
        url = webhook.url(f"{CANARY}/hook", f"?+X-Token={CANARY}")
        other = f"slack://{CANARY}/B1234/C1234567890"
        options = mock_run(None, "--alert-policy", "dev=WARN", "--notify", f"{other},{url}")
        with Run(tmp_path, *options) as run:
            wait_for(lambda: "l.sqlite" in command_line(run.process.pid), "its start")
            wait_for(lambda: CANARY not in command_line(run.process.pid), "the title")
            run.says("a password on the command line")
            assert run.ended() == 2, "a Slack token has another form"
        assert CANARY not in run.output
        with Run(tmp_path, *mock_run(None, "--alert-policy", "dev=WARN", "--notify", url)) as run:
            wait_for(lambda: "json://***" in command_line(run.process.pid), "the title")
            assert CANARY not in command_line(run.process.pid)
            let_windows_pass(tmp_path)
            words = ("override", "freeze", "--ledger", "l.sqlite", "--reason", "a test")
            assert command(tmp_path, *words).code == 0
            webhook.waits_for(lambda: webhook.asked >= 1, "the message")
            if mode == "fail":
                run.says("notifications to json://127.0.0.1")
            assert run.stop() == 0
        tried = command(tmp_path, "notify", "test", "--notify", url)
        assert tried.code == (0 if mode == "ok" else 3)
        assert "json://127.0.0.1" in tried.out
        assert CANARY not in run.output + tried.out + tried.err + repr(webhook.taken)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path


def test_a_bad_address_of_notifications_is_refused_without_telling_it(tmp_path: Path) -> None:
    for url in (f"json://{CANARY}:notaport/", f"nosuch://{CANARY}", CANARY):
        for args in (("run", *map(str, mock_run(None))), ("notify", "test")):
            refused = command(tmp_path, *args, "--notify", url)
            assert refused.code == 2
            assert "--notify: URL 1 of 1: " in refused.err
            assert CANARY not in refused.out + refused.err
