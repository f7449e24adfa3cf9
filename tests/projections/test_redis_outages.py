"""A server that is away, slow, mute or refusing costs one bounded timeout and no exception."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from redis_proxy import Proxy, proxied
from redis_support import BTC, CRIT, KEYS, Server, Stream, connected, publishing

from projections.redis_control import Down, clear_hold, set_hold
from projections.redis_exchange import Outcome, Result
from projections.redis_keys import Publication
from projections.redis_publisher import RedisPublisher
from redis_link.client import BoundedRedis

TIMEOUT_SEC = 0.5
LIMIT_SEC = 1.5
"""A generous limit: machines that run tests are busy. Without a bound it would be many seconds."""


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with proxied(server.port) as proxy:
        yield proxy


@pytest.fixture
def connection(proxy: Proxy) -> Iterator[BoundedRedis]:
    with connected(proxy.url, timeout_sec=TIMEOUT_SEC) as connection:
        yield connection


@pytest.fixture
def publisher(connection: BoundedRedis) -> RedisPublisher:
    return RedisPublisher(connection, KEYS)


def timed(publisher: RedisPublisher, publication: Publication) -> Result:
    """Publish, within the limit."""
    began = time.monotonic()
    result = publisher.publish(publication)
    assert time.monotonic() - began < LIMIT_SEC
    return result


@pytest.mark.parametrize("mode", ["refuse", "reset", "hole", "slow"])
@pytest.mark.parametrize("is_connected", [False, True])
def test_an_outage_is_one_bounded_timeout_and_the_next_publication_goes_through(
    server: Server,
    proxy: Proxy,
    connection: BoundedRedis,
    publisher: RedisPublisher,
    mode: str,
    is_connected: bool,
) -> None:
    stream = Stream().window()
    if is_connected:
        assert publisher.publish(stream.publication()).outcome is Outcome.ACCEPTED
    proxy.mode = mode
    if mode == "refuse" and is_connected:
        connection.close()
    for _ in range(2):
        result = timed(publisher, stream.window().publication())
        assert result.outcome is Outcome.DOWN
        assert result.detail
    proxy.mode = "pass"
    newest = stream.window(BTCUSDT=CRIT).publication()
    assert publisher.publish(newest).outcome is Outcome.ACCEPTED
    assert server.summary()["version"] == str(newest.version)
    assert server.value("state") == "FROZEN"
    assert [line.split(" (")[0] for line in publisher.notices()] == [
        "Redis is down",
        "Redis answers again after 2 failures",
    ]
    assert publisher.notices() == []


def test_a_lost_reply_is_harmless(server: Server, proxy: Proxy, publisher: RedisPublisher) -> None:
    """The server executed it: the same again, and then an older one, change nothing."""
    stream = Stream().window()
    older = stream.publication()
    publisher.publish(older)
    proxy.mode = "reset"
    frozen = stream.window(BTCUSDT=CRIT).publication()
    assert publisher.publish(frozen).outcome is Outcome.DOWN
    assert server.value("state") == "FROZEN", "it was executed"
    proxy.mode = "pass"
    assert publisher.publish(frozen).outcome is Outcome.ACCEPTED
    assert publisher.publish(older).outcome is Outcome.NOT_NEWER
    assert publisher.read_foreign(frozen) == ()
    assert len(server.entries()) == 1


def test_transitions_of_an_outage_are_told_after_it(
    server: Server, proxy: Proxy, publisher: RedisPublisher
) -> None:
    stream = Stream().window()
    publisher.publish(stream.publication())
    proxy.mode = "reset"
    for symbols in ({BTC: CRIT}, {}, {BTC: CRIT}, {}):
        publisher.publish(stream.window(**symbols).publication())
        proxy.mode = "refuse"
    proxy.mode = "pass"
    publisher.publish(stream.window().publication())
    states = [fields["state"] for _, fields in server.entries()]
    assert states == ["FROZEN", "ACTIVE", "FROZEN", "ACTIVE"]


def test_a_server_that_was_killed_and_started_again_has_everything_with_the_next_window(
    server: Server,
) -> None:
    with publishing(server.url, timeout_sec=TIMEOUT_SEC) as publisher:
        stream = Stream().window()
        publisher.publish(stream.publication())
        server.kill()
        assert timed(publisher, stream.window().publication()).outcome is Outcome.DOWN
        server.start()
        assert server.summary() == {}
        result = publisher.publish(stream.window().publication())
        assert result.outcome is Outcome.ACCEPTED
        assert (server.value("state"), server.throttle(BTC)) == ("ACTIVE", "1.0")


def test_a_server_that_was_started_again_between_two_windows_is_no_outage(server: Server) -> None:
    with publishing(server.url) as publisher:
        stream = Stream().window()
        publisher.publish(stream.publication())
        server.kill()
        server.start()
        assert publisher.publish(stream.window().publication()).outcome is Outcome.ACCEPTED
        assert publisher.notices() == []


def test_a_server_that_stands_still_executes_late_and_harms_nothing(server: Server) -> None:
    with publishing(server.url, timeout_sec=TIMEOUT_SEC) as publisher:
        stream = Stream().window()
        publisher.publish(stream.publication())
        with server.suspended():
            late = timed(publisher, stream.window().publication())
            frozen = timed(publisher, stream.window(BTCUSDT=CRIT).publication())
            assert (late.outcome, frozen.outcome) == (Outcome.DOWN, Outcome.DOWN)
            newest = stream.publication()
        assert publisher.publish(newest).outcome is Outcome.ACCEPTED
        assert (server.value("state"), server.throttle(BTC)) == ("FROZEN", "0.0")


def test_no_server_at_all_is_down(server: Server) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{unused.getsockname()[1]}"
        with publishing(url) as publisher:
            result = publisher.publish(Stream().window().publication())
            assert result.outcome is Outcome.DOWN
            assert "refused" in result.detail
            assert isinstance(publisher.published_state(), Down)
            assert publisher.read_foreign(Stream().window().publication()) == ()
        with connected(url) as connection:
            assert isinstance(set_hold(connection, KEYS, "x", "1"), Down)
            assert isinstance(clear_hold(connection, KEYS, "1"), Down)


def test_a_name_that_hangs_is_down_within_the_bound(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = socket.getaddrinfo("127.0.0.1", server.port, type=socket.SOCK_STREAM)
    is_back = threading.Event()
    asked: list[str] = []

    def hang(host: str, *args: object, **options: object) -> object:
        asked.append(host)
        assert is_back.wait(60)
        return found

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with publishing(f"redis://redis.invalid:{server.port}", timeout_sec=0.2) as publisher:
        stream = Stream().window()
        for _ in range(3):
            result = timed(publisher, stream.publication())
            assert result == Result(Outcome.DOWN, "no answer within 0.2 s")
        assert asked == ["redis.invalid"], "one look-up at a time"
        is_back.set()
    with publishing(f"redis://redis.invalid:{server.port}") as publisher:
        assert publisher.publish(stream.publication()).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"*x\r\n", b"*1\r\n" * 50_000, b"$-7\r\n", b":5\r\n"],
)
def test_what_isnt_redis_is_down(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client, contextlib.suppress(ConnectionError):
                client.recv(1 << 20)
                client.sendall(answer)
                while client.recv(1 << 20):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        with publishing(
            f"redis://127.0.0.1:{listener.getsockname()[1]}", timeout_sec=TIMEOUT_SEC
        ) as publisher:
            assert timed(publisher, Stream().window().publication()).outcome is Outcome.DOWN
        thread.join()


def test_a_server_that_refuses_to_write_is_down_and_says_why(server: Server) -> None:
    server.admin.config_set("maxmemory", "1")
    try:
        with publishing(server.url) as publisher:
            result = publisher.publish(Stream().window().publication())
            assert result.outcome is Outcome.DOWN
            assert "refused: " in result.detail
            assert "memory" in result.detail
    finally:
        server.admin.config_set("maxmemory", "0")
    assert server.admin.keys("*") == []


def test_two_commands_in_one_exchange_share_one_timeout(
    proxy: Proxy, connection: BoundedRedis
) -> None:
    connection.ping()
    proxy.mode = "hole"
    began = time.monotonic()
    with connection.bounded():
        for _ in range(4):
            with pytest.raises(Exception, match="imeout"):
                connection.ping()
    assert time.monotonic() - began < LIMIT_SEC
