"""A server that accepts every connection and never answers costs a window one timeout in all."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis_proxy import Proxy, proxied
from redis_support import CRIT, KEYS, Server, Stream

from feeds.redis_asking import RedisAway, ask
from projections.redis_control import Down
from projections.redis_exchange import Outcome
from projections.redis_publisher import RedisPublisher
from redis_link.budget import TIMEOUT_SEC, Budget
from redis_link.client import BoundedRedis, open_redis

LIMIT_SEC = 1.0
"""A generous limit on top of a timeout, for machines that are busy."""


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with proxied(server.port) as proxy:
        yield proxy


@contextmanager
def shared(url: str, *, kept_sec: float = TIMEOUT_SEC / 2) -> Iterator[tuple[BoundedRedis, Budget]]:
    budget = Budget(kept_sec=kept_sec)
    client = open_redis(url, env="dev", budget=budget)
    try:
        yield client, budget
    finally:
        client.close()


def read(client: BoundedRedis) -> str:
    """Ask as a feed does."""
    try:
        return str(ask(client, lambda redis: redis.get("kpi")))
    except RedisAway as away:
        return str(away)


def test_a_feed_and_publication_share_one_timeout_a_window(server: Server, proxy: Proxy) -> None:
    server.admin.set("kpi", "3.5")
    proxy.mode = "hole"
    with shared(proxy.url) as (client, _):
        publisher = RedisPublisher(client, KEYS)
        publication = Stream().window().publication()
        for window in (1, 2):
            client.renew_budget()
            began = time.monotonic()
            assert read(client) == "no answer within 0.25 s"
            told = publisher.publish(publication)
            assert told.outcome is Outcome.DOWN
            assert "no answer within" in told.detail
            # All of it is used: whoever comes now isn't answered, because it isn't asked.
            assert "not asked again" in read(client)
            assert "not asked again" in publisher.publish(publication).detail
            assert isinstance(publisher.published_state(), Down)
            assert proxy.accepted == 2 * window
            assert time.monotonic() - began < TIMEOUT_SEC + LIMIT_SEC
        proxy.mode = "pass"
        client.renew_budget()
        assert read(client) == "3.5"
        assert publisher.publish(publication).outcome is Outcome.ACCEPTED


def test_what_is_owed_may_take_the_whole_timeout_and_then_nobody_else_asks(
    server: Server, proxy: Proxy
) -> None:
    proxy.mode = "hole"
    with shared(proxy.url) as (client, budget):
        publisher = RedisPublisher(client, KEYS)
        result = publisher.publish(Stream().window().publication())
        assert (result.outcome, result.detail) == (Outcome.DOWN, "no answer within 0.5 s")
        assert budget.left_sec == 0.0
        assert "not asked again" in read(client)
        assert proxy.accepted == 1


def test_a_feed_whose_answers_take_too_long_never_keeps_frozen_from_being_published(
    server: Server, proxy: Proxy
) -> None:
    with shared(proxy.url) as (client, _):
        publisher = RedisPublisher(client, KEYS)
        stream = Stream().window()
        assert publisher.publish(stream.publication()).outcome is Outcome.ACCEPTED
        proxy.mode = "slow"
        assert read(client) == "no answer within 0.25 s"
        proxy.mode = "pass"
        frozen = stream.window(BTCUSDT=CRIT).publication()
        assert publisher.publish(frozen).outcome is Outcome.ACCEPTED
        assert server.value("state") == "FROZEN"


def test_answers_cost_nothing_of_the_budget(server: Server, proxy: Proxy) -> None:
    server.admin.set("kpi", "1")
    with shared(proxy.url) as (client, budget):
        for _ in range(100):
            assert read(client) == "1"
        assert read(client) == "1"
        assert budget.left_sec == TIMEOUT_SEC


def test_a_quick_refusal_leaves_time_for_others(server: Server, proxy: Proxy) -> None:
    proxy.mode = "refuse"
    with shared(proxy.url) as (client, budget):
        publisher = RedisPublisher(client, KEYS)
        for _ in range(3):
            client.renew_budget()
            assert "not asked" not in read(client)
            assert "not asked" not in publisher.publish(Stream().window().publication()).detail
        assert proxy.accepted >= 6
        assert budget.left_sec < TIMEOUT_SEC


def test_without_publication_a_feed_has_the_whole_timeout(server: Server, proxy: Proxy) -> None:
    proxy.mode = "hole"
    with shared(proxy.url, kept_sec=0.0) as (client, _):
        assert read(client) == "no answer within 0.5 s"
        assert "not asked again" in read(client)


def test_what_an_operator_asks_has_a_part_of_its_own_once(server: Server, proxy: Proxy) -> None:
    proxy.mode = "hole"
    budget = Budget(urgent_sec=0.1)
    client = open_redis(proxy.url, env="dev", budget=budget)
    publisher = RedisPublisher(client, KEYS)
    frozen = Stream().window(BTCUSDT=CRIT).publication()
    try:
        assert "within 0.4 s" in publisher.publish(frozen).detail
        assert "not asked again" in publisher.publish(frozen).detail
        client.urge_budget()
        assert "within 0.1 s" in publisher.publish(frozen).detail
        client.urge_budget()
        assert "not asked again" in publisher.publish(frozen).detail
        assert proxy.accepted == 2
        client.renew_budget()
        assert "within 0.4 s" in publisher.publish(frozen).detail
    finally:
        client.close()
