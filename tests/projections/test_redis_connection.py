"""URLs, certificates, users, and that no secret is ever told."""

import re
import socket
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, RedisError
from redis_proxy import Authority, proxied
from redis_support import BTC, CRIT, KEYS, Server, Stream, connected, publishing, wait_until

from domain.errors import BadInput
from projections.redis_control import clear_hold, set_hold
from projections.redis_exchange import Outcome
from projections.redis_publisher import RedisPublisher
from redis_link.client import open_redis

CANARY = "canary/p@ss:word?#1"
QUOTED = quote(CANARY, safe="")
CONSUMING = Path(__file__).parents[2] / "docs" / "consuming.md"


def outcome_of(url: str, *, env: str = "prod") -> tuple[Outcome, str]:
    with connected(url, env=env, timeout_sec=5.0) as connection:
        result = RedisPublisher(connection, KEYS).publish(Stream().window().publication())
        return result.outcome, result.detail


def test_tls_with_a_known_authority_works_in_prod(server: Server, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "known")
    with proxied(server.port, authority.context()) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}?ssl_ca_certs={authority.file}"
        assert outcome_of(url) == (Outcome.ACCEPTED, "")
        assert server.value("state") == "ACTIVE"


def test_session_tickets_that_come_after_the_greeting_are_no_data(
    server: Server, tmp_path: Path
) -> None:
    """Whether they come before a new connection is looked at or just then is chance."""
    authority = Authority(tmp_path, "known")
    with proxied(server.port, authority.context()) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}?ssl_ca_certs={authority.file}"
        for _ in range(50):
            with connected(url, env="prod", timeout_sec=5.0) as connection:
                assert connection.ping()


def test_tls_with_an_unknown_authority_is_down(server: Server, tmp_path: Path) -> None:
    known, unknown = Authority(tmp_path, "known"), Authority(tmp_path, "unknown")
    with proxied(server.port, unknown.context()) as proxy:
        for options in (f"?ssl_ca_certs={known.file}", ""):
            outcome, detail = outcome_of(f"rediss://127.0.0.1:{proxy.port}{options}")
            assert outcome is Outcome.DOWN
            assert "CERTIFICATE_VERIFY_FAILED" in detail
    assert server.value("state") is None


def test_tls_for_another_host_is_down(server: Server, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "known")
    with proxied(server.port, authority.context()) as proxy:
        url = f"rediss://localhost:{proxy.port}?ssl_ca_certs={authority.file}"
        outcome, detail = outcome_of(url)
        assert (outcome, "Hostname mismatch" in detail) == (Outcome.DOWN, True)
        unchecked = f"{url}&ssl_check_hostname=false"
        assert outcome_of(unchecked, env="dev")[0] is Outcome.ACCEPTED


def test_tls_with_its_checks_switched_off_works_except_in_prod(
    server: Server, tmp_path: Path
) -> None:
    with proxied(server.port, Authority(tmp_path, "unknown").context()) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}?ssl_cert_reqs=none"
        assert outcome_of(url, env="dev")[0] is Outcome.ACCEPTED
        with pytest.raises(BadInput, match="certificate checks off"):
            open_redis(url, env="prod")


@pytest.mark.parametrize("mode", ["hole", "slow"])
def test_a_tls_connection_keeps_its_bound(server: Server, tmp_path: Path, mode: str) -> None:
    authority = Authority(tmp_path, "known")
    with proxied(server.port, authority.context()) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}?ssl_ca_certs={authority.file}"
        with publishing(url, timeout_sec=0.5) as publisher:
            proxy.mode = mode
            stream = Stream().window()
            result = publisher.publish(stream.publication())
            assert (result.outcome, result.detail) == (Outcome.DOWN, "no answer within 0.5 s")
            proxy.mode = "pass"
            newest = stream.window().publication()
            wait_until(lambda: publisher.publish(newest).outcome is Outcome.ACCEPTED)


def test_a_unix_socket_works(server: Server) -> None:
    assert outcome_of(f"unix://{server.socket}")[0] is Outcome.ACCEPTED
    outcome, detail = outcome_of(f"unix://{server.socket}-")
    assert (outcome, "No such file" in detail) == (Outcome.DOWN, True)


def test_another_database_works(server: Server) -> None:
    assert outcome_of(f"{server.url}/5")[0] is Outcome.ACCEPTED
    assert server.value("state") is None
    with Redis(port=server.port, db=5, decode_responses=True) as admin:
        assert admin.get(KEYS.state) == "ACTIVE"


def documented_rules() -> list[str]:
    """Return the words of the ACL user that docs/consuming.md shows."""
    found = re.search(r"ACL SETUSER live_runner (.*?)```", CONSUMING.read_text(), re.DOTALL)
    assert found is not None
    return found[1].replace("\\\n", " ").split()


def test_a_user_limited_as_documented_can_do_all_and_touch_nothing_else(server: Server) -> None:
    rules = [f">{CANARY}" if rule.startswith(">") else rule for rule in documented_rules()]
    server.run("ACL", "SETUSER", "live_runner", *rules)
    url = f"redis://live_runner:{QUOTED}@127.0.0.1:{server.port}"
    with publishing(url) as publisher, connected(url) as user:
        lease = publisher.acquire_lease("here", 60_000)
        stream = Stream(BTC, "ETHUSDT").window(BTCUSDT=CRIT)
        assert publisher.publish(stream.publication()).outcome is Outcome.ACCEPTED
        stream.adopt(BTC)
        publication = stream.window().publication()
        server.admin.set(KEYS.throttle(BTC), "0.7")
        foreign = publisher.read_foreign(publication)
        assert [write.found for write in foreign] == ["0.7"]
        accepted = publisher.publish(publication, acknowledged=foreign)
        assert accepted.outcome is Outcome.ACCEPTED
        assert publisher.publish_fault(publication, "x").outcome is Outcome.ACCEPTED
        assert set_hold(user, KEYS, "x", "1") is None
        assert clear_hold(user, KEYS, "1") is True
        publisher.release_lease()
        assert lease is not None
        assert publisher.notices() == []
        assert server.admin.acl_log() == []
        for command in (
            ("GET", "prod:bybit:shadow:latest:BTCUSDT"),
            ("SET", "prod:binance:live:state", "ACTIVE"),
            ("KEYS", "*"),
            ("FLUSHALL",),
            ("EVAL", "return redis.call('SET', KEYS[1], 'x')", 1, "staging:bybit:live:state"),
            ("EVAL", "return redis.call('SET', 'other', 'x')", 0),
        ):
            with pytest.raises(RedisError, match=r"(?i)permission|can't access"):
                user.execute_command(*command)
        with pytest.raises(NoPermissionError):
            user.config_get("*")
    server.run("ACL", "DELUSER", "live_runner")


@contextmanager
def echoing_server() -> Iterator[int]:
    """Give the port of a server that refuses every command with its arguments, as old ones do."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    words = client.recv(1 << 16).split(b"\r\n")[2::2]
                    client.sendall(
                        b"-ERR unknown command, with args: " + b" ".join(words) + b"\r\n"
                    )
                    client.recv(1 << 16)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_the_password_is_in_nothing_that_is_told(server: Server, tmp_path: Path) -> None:
    """Not of a user that is refused, a server that echoes it, or a connection that fails."""
    told: list[str] = []
    stream = Stream().window()

    def try_out(url: str) -> None:
        with publishing(url, timeout_sec=0.5) as publisher, connected(url) as connection:
            told.extend([str(publisher.publish(stream.publication())), *publisher.notices()])
            told.extend([str(publisher.published_state()), repr(connection), repr(publisher)])
            told.append(repr(connection.connection_pool))
            told.append(str(publisher.acquire_lease("me", 1000)))
            with pytest.raises(RedisError) as caught:
                connection.ping()
            told.append("".join(traceback.format_exception(caught.value)))
            told.append(repr(caught.value) + repr(caught.value.args))

    try_out(f"redis://nobody:{QUOTED}@127.0.0.1:{server.port}")
    try_out(f"redis://{QUOTED}@127.0.0.1:{server.port}")
    try_out(f"redis://:{QUOTED}@127.0.0.1:1")
    try_out(f"rediss://:{QUOTED}@127.0.0.1:{server.port}")
    try_out(f"unix://:{QUOTED}@{tmp_path}/none")
    # A server that knows no AUTH repeats its arguments.
    with echoing_server() as port:
        try_out(f"redis://user:{QUOTED}@127.0.0.1:{port}")
        assert "***" in "".join(told)
    for text in told:
        assert "canary" not in text
        assert "word?#1" not in text


def test_a_short_password_hides_the_whole_text() -> None:
    connection = open_redis("redis://:abc@host", env="dev")
    assert connection.scrub("ERR 'abc'") == "(not shown: it may hold the password)"
    assert connection.scrub("ERR") == "ERR"
    connection.close()
