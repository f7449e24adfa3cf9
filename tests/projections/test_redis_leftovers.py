"""Keys of another ledger, and of symbols that were removed."""

from collections.abc import Iterator

import pytest
from redis_support import BTC, CRIT, ETH, KEYS, SOL, Server, Stream, publishing

from projections.redis_exchange import Outcome
from projections.redis_publisher import RedisPublisher


@pytest.fixture
def publisher(server: Server) -> Iterator[RedisPublisher]:
    with publishing(server.url) as publisher:
        yield publisher


def test_another_ledgers_keys_are_left_alone(server: Server, publisher: RedisPublisher) -> None:
    publisher.publish(Stream(ledger_id="theirs").window(BTCUSDT=CRIT).publication())
    stream = Stream(ledger_id="ours").window()
    with publishing(server.url) as ours:
        result = ours.publish(stream.publication())
        assert (result.outcome, result.detail) == (Outcome.OTHER_LEDGER, "theirs")
        fault = ours.publish_fault(stream.publication(), "the disk is full")
        assert fault.outcome is Outcome.OTHER_LEDGER
    assert server.summary()["ledger_id"] == "theirs"


def test_another_ledgers_keys_are_adopted_once_if_told(
    server: Server, publisher: RedisPublisher
) -> None:
    theirs = Stream(BTC, SOL, ledger_id="theirs")
    for _ in range(4):
        theirs.window(BTCUSDT=CRIT).window()
    publisher.publish(theirs.publication(transitions=theirs.transitions))
    ours = Stream(BTC, ETH, ledger_id="ours").window()
    with publishing(server.url, adopt=True) as adopting:
        assert adopting.publish(ours.publication()).outcome is Outcome.ACCEPTED
        assert server.summary()["ledger_id"] == "ours"
        assert (server.throttle(BTC), server.throttle(ETH)) == ("1.0", "1.0")
        assert server.throttle(SOL) == "0.0"
        assert server.entries() == []
        server.admin.hset(KEYS.summary, "ledger_id", "a third's")
        result = adopting.publish(ours.window().publication())
        assert (result.outcome, result.detail) == (Outcome.OTHER_LEDGER, "a third's")


def test_keys_that_no_ledger_has_signed_are_taken_over_if_told(
    server: Server, publisher: RedisPublisher
) -> None:
    """As the guide's own controller leaves them: a lower one may be somebody's word."""
    server.admin.set(KEYS.state, "COOLDOWN")
    server.admin.set(KEYS.throttle(BTC), "0.5")
    server.admin.hset(KEYS.summary, "edge_bps", "3.1")
    publication = Stream().window().publication()
    assert publisher.publish(publication).outcome is Outcome.FOREIGN
    with publishing(server.url, adopt=True) as adopting:
        result = adopting.publish(publication)
        assert (result.outcome, result.foreign) == (Outcome.ACCEPTED, ())
    assert (server.value("state"), server.throttle(BTC)) == ("ACTIVE", "1.0")


def test_a_removed_symbol_goes_to_zero_and_then_expires(
    server: Server, publisher: RedisPublisher
) -> None:
    stream = Stream(BTC, ETH).window()
    publisher.publish(stream.publication())
    stream.adopt(BTC)
    publisher.publish(stream.window().publication())
    assert (server.throttle(ETH), server.value(f"kpi_throttle:{ETH}")) == ("0.0", "0.0")
    assert server.ttl_ms(f"throttle:{ETH}") > 3_500_000
    assert "throttle:ETHUSDT" not in server.summary()
    server.admin.pexpire(KEYS.throttle(ETH), 60_000)
    publisher.publish(stream.window().publication())
    assert 0 < server.ttl_ms(f"throttle:{ETH}") <= 60_000, "it isn't refreshed"
    server.admin.delete(KEYS.throttle(ETH))
    publisher.publish(stream.window().publication())
    assert server.throttle(ETH) is None, "it isn't made again"


def test_a_removed_symbol_whose_key_is_gone_is_zero_for_once(
    server: Server, publisher: RedisPublisher
) -> None:
    stream = Stream(BTC, ETH).window()
    publisher.publish(stream.publication())
    server.admin.delete(KEYS.throttle(ETH))
    stream.adopt(BTC)
    publisher.publish(stream.window().publication())
    assert server.throttle(ETH) == "0.0"


def test_a_removed_symbols_key_that_is_raised_goes_back(
    server: Server, publisher: RedisPublisher
) -> None:
    stream = Stream(BTC, ETH).window()
    publisher.publish(stream.publication())
    stream.adopt(BTC)
    publisher.publish(stream.window().publication())
    server.admin.set(KEYS.throttle(ETH), "1.0")
    publisher.publish(stream.window().publication())
    assert server.throttle(ETH) == "0.0"
    assert server.ttl_ms(f"throttle:{ETH}") > 0


def test_a_removed_symbols_zero_that_would_stay_for_ever_expires_too(
    server: Server, publisher: RedisPublisher
) -> None:
    stream = Stream(BTC, ETH).window()
    publisher.publish(stream.publication())
    stream.adopt(BTC)
    publisher.publish(stream.window().publication())
    server.admin.set(KEYS.throttle(ETH), "0.0")
    publisher.publish(stream.window().publication())
    assert server.ttl_ms(f"throttle:{ETH}") > 0
