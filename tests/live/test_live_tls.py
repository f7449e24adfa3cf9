"""Whole runs over TLS, and as a user who may touch its own keys only."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from live_support import (
    LiveRedis,
    Market,
    Run,
    assert_outputs_agree,
    hash_run,
    running_redis,
    steady_policy,
    wait_for,
    windows,
)
from redis_proxy import Authority, proxied
from websocket_market import WebSocketMarket

BTC = "BTCUSDT"
STATE = "prod:bybit:live:state"
CANARY = "canary/p@ss:word?#1"
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def server() -> Iterator[LiveRedis]:
    with running_redis() as server:
        yield server


def edges(folder: Path) -> list[object]:
    """Return each window's edge in prod, None for no data."""
    found: list[object] = []
    for observed in windows(folder, "prod:bybit"):
        values = {seen.memory.symbol: seen.readings.kpis for seen in observed.symbols}
        found.append(values[BTC].get("edge_bps"))
    return found


@pytest.mark.parametrize("by_variable", [True, False])
def test_feed_and_publication_go_over_tls_to_a_server_of_an_authority_of_ones_own(
    server: LiveRedis, tmp_path: Path, by_variable: bool
) -> None:
    authority = Authority(tmp_path, "own")
    with proxied(server.port, authority.context()) as proxy, Market(server, "prod", [BTC]):
        url = f"rediss://127.0.0.1:{proxy.port}/0"
        if not by_variable:
            url += f"?ssl_ca_certs={quote(str(authority.file), safe='')}"
        env = {"SSL_CERT_FILE": str(authority.file)} if by_variable else {}
        options = hash_run(url, "--env", "prod", *steady_policy(tmp_path), symbols=BTC)
        with Run(tmp_path, *options, env=env) as run:
            wait_for(lambda: 3.2 in edges(tmp_path), "a window with data")
            wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
            assert run.stop() == 0
    assert "CERTIFICATE" not in run.output
    assert_outputs_agree(tmp_path, server, "prod:bybit")


def test_a_server_of_an_unknown_authority_gives_no_data_and_gets_no_state(
    server: LiveRedis, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "unknown")
    with proxied(server.port, authority.context()) as proxy, Market(server, "prod", [BTC]):
        url = f"rediss://127.0.0.1:{proxy.port}/0"
        options = hash_run(url, "--env", "prod", *steady_policy(tmp_path), symbols=BTC)
        with Run(tmp_path, *options) as run:
            wait_for(lambda: len(edges(tmp_path)) >= 3, "three windows")
            assert run.stop() == 0
    assert run.output.count("Redis is down") == 1, run.output
    assert "CERTIFICATE_VERIFY_FAILED" in run.output
    assert set(edges(tmp_path)) == {None}
    assert server.get(STATE) is None


def test_a_websocket_over_tls_is_trusted_by_the_usual_variable_alone(
    server: LiveRedis, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "own")
    trusting, doubting = tmp_path / "trusting", tmp_path / "doubting"
    with WebSocketMarket(authority.context()) as market:
        options = ["--feed", market.url, "--env", "prod"]
        steady = steady_policy(tmp_path)
        with Run(doubting, *hash_run(server.url, *options, *steady, symbols=BTC)) as run:
            wait_for(lambda: len(edges(doubting)) >= 3, "three windows")
            assert run.stop() == 0
        assert "certificate: " in run.output
        assert set(edges(doubting)) == {None}
        server.client.flushall()
        env = {"SSL_CERT_FILE": str(authority.file)}
        with Run(trusting, *hash_run(server.url, *options, *steady, symbols=BTC), env=env) as run:
            wait_for(lambda: 3.2 in edges(trusting), "a window with data")
            assert run.stop() == 0
        assert "certificate" not in run.output
    assert_outputs_agree(trusting, server, "prod:bybit")


def documented_user(page: str, *more: str) -> list[str]:
    """Return the rules of the user that a page shows, and of those beside it, with our password."""
    text = (DOCS / page).read_text()
    found = re.search(r"ACL SETUSER live_runner (.*?)```", text, re.DOTALL)
    assert found is not None
    rules = found[1].replace("\\\n", " ").split()
    for rule in more:
        assert rule in text, "it is documented"
    return [f">{CANARY}" if rule.startswith(">") else rule for rule in (*rules, *more)]


@pytest.mark.parametrize(
    ("feed", "more"),
    [
        ((), ["%R~prod:bybit:shadow:latest:*"]),
        (("--feed", "redis-stream:prod:bybit:fills"), ["%R~prod:bybit:fills", "+xinfo", "+xrange"]),
    ],
)
def test_a_user_limited_as_documented_can_feed_and_publish_a_whole_run(
    server: LiveRedis, tmp_path: Path, feed: tuple[str, ...], more: list[str]
) -> None:
    rules = documented_user("consuming.md", *more)
    admin: Any = server.client
    admin.execute_command("ACL", "SETUSER", "live_runner", *rules)
    url = f"redis://live_runner:{quote(CANARY, safe='')}@127.0.0.1:{server.port}/0"
    message = {"data": '{"ts": %d, "symbol": "BTCUSDT", "edge_bps": 3.2}'}
    with Market(server, "prod", [BTC]):
        options = hash_run(url, "--env", "prod", *feed, *steady_policy(tmp_path), symbols=BTC)
        with Run(tmp_path, *options) as run:

            def has_data() -> bool:
                now_ms = admin.time()[0] * 1000
                server.client.xadd("prod:bybit:fills", {"data": message["data"] % now_ms})
                return 3.2 in edges(tmp_path)

            wait_for(has_data, "a window with data")
            wait_for(lambda: server.get(STATE) == "ACTIVE", "ACTIVE")
            assert run.stop() == 0
    assert server.client.acl_log() == []
    assert "permission" not in run.output.lower(), run.output
    assert "canary" not in run.output and "p@ss" not in run.output
    assert_outputs_agree(tmp_path, server, "prod:bybit")
