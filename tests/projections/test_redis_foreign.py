"""What others write into our keys, and the hold."""

from collections.abc import Iterator

import pytest
from redis_support import (
    BTC,
    CRIT,
    ETH,
    KEYS,
    Server,
    Stream,
    connected,
    lowered,
    publishing,
)

from domain.commands import ReportExternalWrite
from domain.events import ExternalWriteDetected, OverrideApplied, TradingState
from projections.redis_control import Published, clear_hold, set_hold
from projections.redis_exchange import ForeignWrite, Outcome
from projections.redis_publisher import RedisPublisher


@pytest.fixture
def publisher(server: Server) -> Iterator[RedisPublisher]:
    with publishing(server.url) as publisher:
        yield publisher


@pytest.fixture
def stream(publisher: RedisPublisher) -> Stream:
    """A stream whose first window is published: ACTIVE, 1.0 for both symbols."""
    stream = Stream(BTC, ETH).window()
    assert publisher.publish(stream.publication()).outcome is Outcome.ACCEPTED
    return stream


def report(stream: Stream, foreign: tuple[ForeignWrite, ...]) -> None:
    """Tell the ledger, as the runner does."""
    for index, write in enumerate(foreign):
        stream.when(
            ReportExternalWrite(
                id=f"redis-{stream.version}-{index}",
                key=write.key,
                symbol=write.symbol,
                found=write.found,
                expected=write.expected,
                at_ms=stream.state.next_window or 0,
            )
        )


def test_the_panic_freeze_is_never_overwritten_before_the_ledger_knows(
    server: Server, publisher: RedisPublisher, stream: Stream
) -> None:
    server.admin.set(KEYS.state, "FROZEN")
    for _ in range(3):
        result = publisher.publish(stream.window().publication())
        assert result.outcome is Outcome.FOREIGN
        assert result.foreign == (ForeignWrite(KEYS.state, None, "FROZEN", "ACTIVE"),)
        assert server.value("state") == "FROZEN"
    report(stream, result.foreign)
    assert stream.state.trading_state is TradingState.FROZEN
    result = publisher.publish(stream.publication(), acknowledged=result.foreign)
    assert (result.outcome, server.throttle(BTC)) == (Outcome.ACCEPTED, "0.0")
    assert publisher.read_foreign(stream.publication()) == ()


def test_a_lower_throttle_is_adopted_as_a_cap(
    server: Server, publisher: RedisPublisher, stream: Stream
) -> None:
    server.admin.set(KEYS.throttle(ETH), "0.25")
    result = publisher.publish(stream.window().publication())
    assert (result.outcome, server.throttle(ETH)) == (Outcome.FOREIGN, "0.25")
    report(stream, result.foreign)
    result = publisher.publish(stream.publication(), acknowledged=result.foreign)
    assert (result.outcome, result.foreign[0].found) == (Outcome.ACCEPTED, "0.25")
    assert (server.throttle(BTC), server.throttle(ETH)) == ("1.0", "0.25")
    assert isinstance(stream.events[-2], OverrideApplied)
    assert publisher.publish(stream.window().publication()).foreign == ()


def test_a_cooldown_set_by_hand_caps_and_is_told_once(
    server: Server, publisher: RedisPublisher, stream: Stream
) -> None:
    """The ledger's state stays ACTIVE under a cap: what it was told of may be overwritten."""
    server.admin.set(KEYS.state, "COOLDOWN")
    result = publisher.publish(stream.window().publication())
    report(stream, result.foreign)
    result = publisher.publish(stream.publication(), acknowledged=result.foreign)
    assert result.outcome is Outcome.ACCEPTED
    assert (server.value("state"), server.throttle(BTC)) == ("ACTIVE", "0.5")
    assert publisher.publish(stream.window().publication()).foreign == ()


def test_the_guides_bypass_is_reported_and_overwritten(
    server: Server, publisher: RedisPublisher, stream: Stream
) -> None:
    publisher.publish(stream.window(BTCUSDT=CRIT).publication())
    server.admin.set(KEYS.state, "ACTIVE", ex=3600)
    result = publisher.publish(stream.window(BTCUSDT=CRIT).publication())
    assert result.outcome is Outcome.ACCEPTED
    assert result.foreign == (ForeignWrite(KEYS.state, None, "ACTIVE", "FROZEN"),)
    assert server.value("state") == "FROZEN"
    report(stream, result.foreign)
    assert isinstance(stream.events[-1], ExternalWriteDetected)


def test_what_cant_be_read_is_reported_and_overwritten(
    server: Server, publisher: RedisPublisher, stream: Stream
) -> None:
    server.admin.set(KEYS.state, b"\xff\xfe")
    server.admin.delete(KEYS.throttle(BTC))
    server.admin.rpush(KEYS.throttle(BTC), "0.1")
    server.admin.set(KEYS.throttle(ETH), "nan")
    result = publisher.publish(stream.window().publication())
    assert result.outcome is Outcome.ACCEPTED
    assert [write.found for write in result.foreign] == ["\\xff\\xfe", "(not a string)", "nan"]
    assert (server.value("state"), server.throttle(BTC), server.throttle(ETH)) == (
        "ACTIVE",
        "1.0",
        "1.0",
    )


def test_a_missing_key_and_the_same_number_are_no_foreign_writes(
    server: Server, publisher: RedisPublisher, stream: Stream
) -> None:
    server.admin.delete(KEYS.state)
    server.admin.set(KEYS.throttle(BTC), "1")
    assert publisher.read_foreign(stream.publication()) == ()
    result = publisher.publish(stream.window().publication())
    assert (result.outcome, result.foreign) == (Outcome.ACCEPTED, ())
    assert (server.value("state"), server.throttle(BTC)) == ("ACTIVE", "1.0")


def test_less_than_what_was_set_by_hand_needs_no_asking(
    server: Server, publisher: RedisPublisher, stream: Stream
) -> None:
    server.admin.set(KEYS.throttle(BTC), "0.3")
    result = publisher.publish(stream.window(BTCUSDT=CRIT).publication())
    assert (result.outcome, result.foreign[0].found) == (Outcome.ACCEPTED, "0.3")
    assert server.throttle(BTC) == "0.0"


def test_a_restart_misreports_nothing(server: Server, stream: Stream) -> None:
    """Whatever the ledger came to while nobody published, and in whatever order."""
    stream.window(BTCUSDT=CRIT)
    with publishing(server.url) as restarted:
        assert restarted.read_foreign(stream.publication()) == ()
        result = restarted.publish(stream.publication())
        assert (result.outcome, result.foreign) == (Outcome.ACCEPTED, ())
        assert restarted.read_foreign(stream.publication()) == ()
    with publishing(server.url) as restarted:
        assert restarted.read_foreign(stream.publication()) == ()
        assert restarted.publish(stream.window().publication()).foreign == ()


def test_a_panic_freeze_while_nobody_ran_is_seen(server: Server, stream: Stream) -> None:
    server.admin.set(KEYS.state, "FROZEN")
    with publishing(server.url) as restarted:
        expected = (ForeignWrite(KEYS.state, None, "FROZEN", "ACTIVE"),)
        assert restarted.read_foreign(stream.publication()) == expected
        assert restarted.publish(stream.publication()).outcome is Outcome.FOREIGN
        assert restarted.publish(stream.window().publication()).outcome is Outcome.FOREIGN


def test_a_panic_freeze_is_seen_though_all_else_has_expired(server: Server, stream: Stream) -> None:
    server.admin.flushall()
    server.admin.set(KEYS.state, "FROZEN")
    with publishing(server.url) as restarted:
        assert restarted.publish(stream.window().publication()).outcome is Outcome.FOREIGN
    assert server.value("state") == "FROZEN"


def test_a_summary_that_was_changed_too_hides_nothing(
    server: Server, publisher: RedisPublisher, stream: Stream
) -> None:
    server.admin.set(KEYS.state, "FROZEN")
    server.admin.hset(KEYS.summary, "state", "FROZEN")
    assert publisher.publish(stream.window().publication()).outcome is Outcome.FOREIGN


def test_another_ledgers_keys_are_no_foreign_writes(server: Server, stream: Stream) -> None:
    server.admin.set(KEYS.state, "FROZEN")
    other = Stream(BTC, ledger_id="other").window()
    with publishing(server.url) as publisher:
        assert publisher.read_foreign(other.publication()) == ()


def test_a_fault_goes_before_what_was_written_by_hand(
    server: Server, publisher: RedisPublisher, stream: Stream
) -> None:
    server.admin.set(KEYS.state, "COOLDOWN")
    result = publisher.publish_fault(stream.publication(), "the disk is full")
    assert (result.outcome, server.value("state")) == (Outcome.ACCEPTED, "FROZEN")


def test_a_hold_freezes_at_once_and_until_it_is_cleared(
    server: Server, publisher: RedisPublisher, stream: Stream
) -> None:
    text = "kim: the exchange is on fire (request 7)"
    with connected(server.url) as operator:
        assert set_hold(operator, KEYS, text.removesuffix(" (request 7)"), "7") is None
        state = (server.value("state"), server.throttle(BTC), server.throttle(ETH))
        assert state == ("FROZEN", "0.0", "0.0")
        summary = server.summary()
        assert (summary["fault"], summary["throttle:ETHUSDT"]) == (f"held: {text}", "0.0")
        assert server.ttl_ms("state") > 0
        assert server.ttl_ms("hold") == -1
        for _ in range(2):
            result = publisher.publish(stream.window().publication())
            assert (result.outcome, result.detail) == (Outcome.ACCEPTED, text)
            assert result.foreign == ()
            state = (server.value("state"), server.throttle(BTC), server.summary()["fault"])
            assert state == ("FROZEN", "0.0", f"held: {text}")
        assert server.summary()["version"] == str(stream.version)
        assert clear_hold(operator, KEYS, "7") is True
        assert clear_hold(operator, KEYS, "7") is False
    result = publisher.publish(stream.publication())
    assert result.outcome is Outcome.NOT_NEWER, "nothing rises before the next window"
    result = publisher.publish(stream.window().publication())
    assert (result.outcome, result.foreign, result.detail) == (Outcome.ACCEPTED, (), "")
    assert (server.value("state"), server.throttle(BTC)) == ("ACTIVE", "1.0")
    assert server.summary()["fault"] == ""


def test_a_hold_is_ended_by_its_own_request_and_by_no_other(
    server: Server, publisher: RedisPublisher, stream: Stream
) -> None:
    with connected(server.url) as operator:
        set_hold(operator, KEYS, "ann: a drill", "7")
        set_hold(operator, KEYS, "bob: (request 7) is no drill", "8")
        set_hold(operator, KEYS, "bob: (request 7) is no drill", "8")
        both = "ann: a drill (request 7); bob: (request 7) is no drill (request 8)"
        assert publisher.publish(stream.window().publication()).detail == both
        assert clear_hold(operator, KEYS, "17") is clear_hold(operator, KEYS, "") is False
        assert publisher.publish(stream.window().publication()).detail == both
        assert clear_hold(operator, KEYS, "7") is True
        rest = "bob: (request 7) is no drill (request 8)"
        assert publisher.publish(stream.window().publication()).detail == rest
        assert server.value("state") == "FROZEN"
        assert clear_hold(operator, KEYS, "8") is True
        assert publisher.publish(stream.window().publication()).detail == ""
        assert (server.value("state"), server.value("hold")) == ("ACTIVE", None)


@pytest.mark.parametrize("kind", ["text", "list"])
def test_a_hold_set_by_hand_is_ended_by_hand_alone(
    server: Server, publisher: RedisPublisher, stream: Stream, kind: str
) -> None:
    if kind == "text":
        server.admin.set(KEYS.hold, "by hand")
    else:
        server.admin.rpush(KEYS.hold, "by hand")
    with connected(server.url) as operator:
        set_hold(operator, KEYS, "ann: a drill", "7")
        clear_hold(operator, KEYS, "7")
        assert publisher.publish(stream.window().publication()).outcome is Outcome.ACCEPTED
        assert server.value("state") == "FROZEN"
        server.admin.delete(KEYS.hold)
        publisher.publish(stream.window().publication())
        assert server.value("state") == "ACTIVE"


def test_a_hold_that_ends_before_the_next_window_is_no_foreign_write(
    server: Server, publisher: RedisPublisher, stream: Stream
) -> None:
    with connected(server.url) as operator:
        set_hold(operator, KEYS, "a drill", "7")
        clear_hold(operator, KEYS, "7")
    assert publisher.read_foreign(stream.publication()) == ()
    assert publisher.publish(stream.window().publication()).foreign == ()


def test_a_hold_comes_before_anything_is_published(
    server: Server, publisher: RedisPublisher
) -> None:
    with connected(server.url) as operator:
        set_hold(operator, KEYS, "not yet", "7")
    assert server.value("state") == "FROZEN"
    assert server.summary() == {}
    publisher.publish(Stream().window().publication())
    assert (server.value("state"), server.throttle(BTC)) == ("FROZEN", "0.0")


def test_what_is_published_can_be_read(
    server: Server, publisher: RedisPublisher, stream: Stream
) -> None:
    found = read(publisher)
    assert found.state is TradingState.ACTIVE
    assert (found.ledger_id, found.version) == ("ledger-1", stream.version)
    assert (found.symbols, found.hold, found.lease_owner) == ((BTC, ETH), None, "")
    server.admin.set(KEYS.state, "sleepy")
    assert read(publisher).state is TradingState.FROZEN
    server.admin.flushall()
    found = read(publisher)
    assert (found.state, found.ledger_id, found.version) == (None, "", None)


def read(publisher: RedisPublisher) -> Published:
    found = publisher.published_state()
    assert isinstance(found, Published)
    return found


def test_a_new_ledger_that_starts_in_the_published_state_is_accepted(
    server: Server, publisher: RedisPublisher, stream: Stream
) -> None:
    """The guide's keys without a ledger's id, as another controller leaves them."""
    server.admin.flushall()
    server.admin.set(KEYS.state, "FROZEN")
    fresh = Stream(BTC, ledger_id="fresh", published=TradingState.FROZEN)
    publication = fresh.publication(valid_until_ms=server.now_ms() + 60_000)
    assert publisher.publish(publication).outcome is Outcome.ACCEPTED
    assert server.summary()["ledger_id"] == "fresh"


def test_a_lower_value_of_our_own_is_not_foreign(publisher: RedisPublisher, stream: Stream) -> None:
    lower = lowered(stream.publication(), TradingState.COOLDOWN, "0.5", "0.5")
    assert publisher.publish(lower).outcome is Outcome.ACCEPTED
    assert publisher.publish(stream.window().publication()).outcome is Outcome.ACCEPTED
