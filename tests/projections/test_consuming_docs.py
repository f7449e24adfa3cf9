"""docs/consuming.md does what it says: its program is run, its redis-cli lines are answered."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis_support import BTC, CRIT, KEYS, Server, Stream, publishing, running_server

from projections.redis_exchange import Outcome

TEXT = (Path(__file__).parents[2] / "docs" / "consuming.md").read_text(encoding="utf-8")
PROGRAM = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
GUIDE = """
redis-cli GET prod:bybit:live:state
# → "ACTIVE"
redis-cli GET prod:bybit:live:throttle:BTCUSDT
# → "1.0"
"""
"""LIVE_MODE_GUIDE.md, Redis Keys."""


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.admin.flushall()
    return running


@pytest.fixture
def throttle(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., float]]:
    """The documented program's function."""
    monkeypatch.setenv("REDIS_URL", server.url)
    (program,) = PROGRAM
    names: dict[str, Any] = {}
    exec(compile(program, "consuming.md", "exec"), names)
    yield names["throttle"]
    names["live"].close()


def answers(server: Server, text: str) -> list[tuple[str, str]]:
    """Return each redis-cli line's answer, and what is said of it."""
    return [
        (repr(server.run(*shlex.split(line))).replace("'", '"'), told)
        for line, told in re.findall(r"redis-cli (.*)\n# → (.*)", text)
    ]


@pytest.mark.parametrize("text", [GUIDE, TEXT])
def test_every_redis_cli_line_is_answered_as_written(server: Server, text: str) -> None:
    with publishing(server.url) as publisher:
        publisher.publish(Stream().window().publication())
    found = answers(server, text)
    assert len(found) >= 2
    assert [answer for answer, _ in found] == [told for _, told in found]


def test_the_guides_runbook_line_is_answered_when_frozen(server: Server) -> None:
    stream = Stream().window(BTCUSDT=CRIT)
    with publishing(server.url) as publisher:
        publisher.publish(stream.publication())
        text = 'redis-cli GET prod:bybit:live:state\n# → "FROZEN"\n'
        assert answers(server, text) == [('"FROZEN"', '"FROZEN"')]
        # "Manual Unfreeze": taken, and taken back with the next window.
        bypass = 'SET prod:bybit:live:state "ACTIVE" EX 3600'
        server.run(*shlex.split(bypass))
        assert server.value("state") == "ACTIVE"
        result = publisher.publish(stream.window(BTCUSDT=CRIT).publication())
        assert (result.outcome, result.foreign[0].found) == (Outcome.ACCEPTED, "ACTIVE")
        assert server.value("state") == "FROZEN"


def test_the_documented_panic_line_holds(server: Server) -> None:
    stream = Stream().window()
    with publishing(server.url) as publisher:
        publisher.publish(stream.publication())
        (line,) = re.findall(r"redis-cli (SET .*)", TEXT)
        server.run(*shlex.split(line))
        assert publisher.publish(stream.window().publication()).outcome is Outcome.FOREIGN
        assert server.value("state") == "FROZEN"


def test_the_documented_bot_obeys(server: Server, throttle: Callable[[str], float]) -> None:
    stream = Stream(BTC).window()
    assert throttle(BTC) == 0.0, "before anything is published"
    with publishing(server.url) as publisher:
        publisher.publish(stream.publication())
        assert throttle(BTC) == 1.0
        assert throttle("ETHUSDT") == 0.0, "of a symbol that isn't there"
        publisher.publish(stream.window(BTCUSDT=CRIT).publication())
        assert throttle(BTC) == 0.0
        publisher.publish(stream.window().publication(valid_until_ms=server.now_ms() + 60_000))
        assert throttle(BTC) == 1.0


def test_the_documented_bot_stops_where_it_cant_tell(
    server: Server, throttle: Callable[[str], float]
) -> None:
    stream = Stream(BTC).window()
    with publishing(server.url, allow_stale=True) as publisher:
        publisher.publish(stream.publication())
        for value in ("", "nan", "-1", "lots"):
            server.admin.set(KEYS.throttle(BTC), value)
            assert throttle(BTC) == 0.0
        server.admin.set(KEYS.throttle(BTC), "7")
        assert throttle(BTC) == 1.0
        for valid_until in (str(server.now_ms() - 1), "nan", "soon", ""):
            server.admin.hset(KEYS.summary, "valid_until", valid_until)
            assert throttle(BTC) == 0.0
        server.admin.delete(KEYS.summary)
        assert throttle(BTC) == 0.0
    server.kill()
    try:
        assert throttle(BTC) == 0.0
    finally:
        server.start()


def test_the_documented_bot_needs_no_more_than_its_documented_user(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (rules,) = re.findall(r"ACL SETUSER live_bot (.*?)\n```", TEXT, re.DOTALL)
    server.run("ACL", "SETUSER", "live_bot", *rules.split())
    with publishing(server.url) as publisher:
        publisher.publish(Stream(BTC).window().publication())
    with Redis(port=server.port, username="live_bot", password="PASSWORD") as bot:
        assert bot.get(KEYS.throttle(BTC)) == b"1.0"
        assert bot.hget(KEYS.summary, "version") is not None
        with pytest.raises(Exception, match=r"(?i)permission"):
            bot.set(KEYS.throttle(BTC), "1.0")
    server.run("ACL", "DELUSER", "live_bot")


def test_every_key_and_field_that_is_written_is_documented(server: Server) -> None:
    documented = set(re.findall(r"`([a-z_0-9:{}]+)`", TEXT))
    with publishing(server.url) as publisher:
        publisher.acquire_lease("here", 60_000)
        publisher.publish(Stream(BTC).window(BTCUSDT=CRIT).publication())
    for name in [*server.names(), *server.summary(), *server.entries()[0][1]]:
        general = re.sub(r"(?<=count:).*", "{name}", name.replace(BTC, "{symbol}"))
        assert general in documented
