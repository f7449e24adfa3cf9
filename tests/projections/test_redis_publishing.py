"""What a version puts into Redis, and which versions are accepted."""

import threading
from collections.abc import Iterator

import pytest
from redis import Redis
from redis_support import (
    BTC,
    CRIT,
    ETH,
    KEYS,
    MINUTE_MS,
    SOL,
    WARN,
    Server,
    Stream,
    lowered,
    publishing,
    wait_until,
)

from domain.events import TradingState
from domain.policy import Policy
from projections.redis_exchange import Outcome
from projections.redis_keys import TRANSITIONS_MAX
from projections.redis_publisher import RedisPublisher

ISOLATED = Policy(min_ok_windows=1, unfreeze_after_ok_windows=1, global_freeze_symbols=2)


@pytest.fixture
def publisher(server: Server) -> Iterator[RedisPublisher]:
    with publishing(server.url) as publisher:
        yield publisher


def test_a_version_writes_every_documented_key(server: Server, publisher: RedisPublisher) -> None:
    stream = Stream(BTC, ETH, policy=ISOLATED).window(ETHUSDT=CRIT)
    assert publisher.publish(stream.publication()).outcome is Outcome.ACCEPTED
    assert server.value("state") == "ACTIVE"
    assert (server.throttle(BTC), server.throttle(ETH)) == ("1.0", "0.0")
    assert server.value(f"kpi_throttle:{ETH}") == "0.0"
    summary = server.summary()
    end_ms = stream.first + MINUTE_MS
    assert summary["valid_until"] == str(end_ms + 2 * MINUTE_MS + 2000)
    assert summary["version"] == summary["position"] == str(stream.version)
    assert (summary["ledger_id"], summary["symbols"]) == ("ledger-1", "BTCUSDT,ETHUSDT")
    assert (summary["risk_ratio"], summary["edge_bps"]) == ("0.45", "3.5")
    assert (summary["notional:BTCUSDT"], summary["notional:ETHUSDT"]) == ("250.0", "0.0")
    assert (summary["fault"], summary["overrides"]) == ("", "[]")
    assert (summary["count:windows"], summary["throttle:BTCUSDT"]) == ("1", "1.0")


def test_every_key_lives_an_hour_from_the_last_window_on(
    server: Server, publisher: RedisPublisher
) -> None:
    stream = Stream().window(BTCUSDT=CRIT)
    publisher.publish(stream.publication())
    names = ["state", "summary", "transitions", f"throttle:{BTC}", f"kpi_throttle:{BTC}"]
    assert sorted(server.admin.keys("*")) == sorted(KEYS.namespace + name for name in names)
    for name in names:
        server.admin.pexpire(KEYS.namespace + name, 30_000)
    publisher.publish(stream.window().publication())
    assert {name: server.ttl_ms(name) > 3_500_000 for name in names} == dict.fromkeys(names, True)
    assert all(server.ttl_ms(name) <= 3_600_000 for name in names)


def test_the_ttl_can_be_set(server: Server, publisher: RedisPublisher) -> None:
    publisher.publish(Stream().window().publication(ttl_sec=90))
    assert 60_000 < server.ttl_ms("state") <= 90_000


def test_a_dead_mans_keys_end_with_the_publication(server: Server) -> None:
    stream = Stream().window()
    publication = stream.publication()
    with publishing(server.url, dead_man=True) as publisher:
        publisher.publish(publication)
    ends = [server.admin.pexpiretime(key) for key in (KEYS.state, KEYS.throttle(BTC))]
    assert ends == [publication.valid_until_ms] * 2
    assert server.ttl_ms("summary") > 3_500_000
    assert server.ttl_ms(f"kpi_throttle:{BTC}") > 3_500_000


def test_a_dead_mans_keys_are_gone_when_the_runner_is(server: Server) -> None:
    until_ms = server.now_ms() + 200
    with publishing(server.url, dead_man=True, allow_stale=True) as publisher:
        publisher.publish(Stream().window().publication(valid_until_ms=until_ms))
    wait_until(lambda: server.value("state") is None and server.throttle(BTC) is None)
    assert server.now_ms() >= until_ms
    assert server.summary()["state"] == "ACTIVE"


def test_an_older_version_is_refused(server: Server, publisher: RedisPublisher) -> None:
    stream = Stream().window()
    older = stream.publication()
    publisher.publish(stream.window(BTCUSDT=CRIT).publication())
    result = publisher.publish(older)
    assert result.outcome is Outcome.NOT_NEWER
    assert str(stream.version) in result.detail
    assert (server.value("state"), server.throttle(BTC)) == ("FROZEN", "0.0")


def test_the_same_version_again_changes_nothing(server: Server, publisher: RedisPublisher) -> None:
    publication = Stream().window(BTCUSDT=CRIT).publication()
    results = [publisher.publish(publication).outcome for _ in range(3)]
    assert results == [Outcome.ACCEPTED] * 3
    assert len(server.entries()) == 1


def test_at_the_same_version_nothing_may_rise(server: Server, publisher: RedisPublisher) -> None:
    publication = Stream(BTC, ETH).window().publication()
    lower = lowered(publication, TradingState.ACTIVE, "1.0", "0.3")
    with publishing(server.url) as other:
        assert other.publish(lower).outcome is Outcome.ACCEPTED
    result = publisher.publish(publication)
    assert result.outcome is Outcome.NOT_NEWER
    assert KEYS.throttle(ETH) in result.detail
    assert server.throttle(ETH) == "0.3"


def test_at_the_same_version_everything_may_fall(server: Server, publisher: RedisPublisher) -> None:
    publication = Stream(BTC, ETH).window().publication()
    publisher.publish(publication)
    lower = lowered(publication, TradingState.COOLDOWN, "0.5", "0.5")
    assert publisher.publish(lower).outcome is Outcome.ACCEPTED
    assert (server.value("state"), server.throttle(BTC)) == ("COOLDOWN", "0.5")


def test_a_key_that_is_missing_counts_as_zero_at_the_same_version(
    server: Server, publisher: RedisPublisher
) -> None:
    stream = Stream().window()
    publisher.publish(stream.publication())
    server.admin.delete(KEYS.throttle(BTC))
    assert publisher.publish(stream.publication()).outcome is Outcome.NOT_NEWER
    result = publisher.publish(stream.window().publication())
    assert (result.outcome, result.foreign) == (Outcome.ACCEPTED, ())
    assert server.throttle(BTC) == "1.0"


def test_transitions_are_there_once_and_in_order(server: Server, publisher: RedisPublisher) -> None:
    stream = Stream()
    for _ in range(4):
        stream.window(BTCUSDT=CRIT)
        publisher.publish(stream.publication(transitions=stream.transitions))
        stream.window()
        publisher.publish(stream.publication())
    entries = server.entries()
    assert [number for number, _ in entries] == [f"{number}-0" for number in range(1, 9)]
    assert [fields["state"] for _, fields in entries] == ["FROZEN", "ACTIVE"] * 4
    assert entries[0][1]["reasons"] == '["risk=0.45 > 0.40"]'
    assert entries[0][1]["triggered_by"] == BTC


def test_transitions_are_capped(server: Server, publisher: RedisPublisher) -> None:
    stream = Stream()
    for _ in range(TRANSITIONS_MAX):
        stream.window(BTCUSDT=CRIT).window()
    publication = stream.publication(transitions=stream.transitions)
    assert len(publication.transitions) == TRANSITIONS_MAX
    publisher.publish(publication)
    assert server.admin.xlen(KEYS.transitions) == TRANSITIONS_MAX
    assert server.entries()[-1][0] == f"{2 * TRANSITIONS_MAX}-0"


def test_a_fault_freezes_whatever_version_is_there(
    server: Server, publisher: RedisPublisher
) -> None:
    stream = Stream(BTC, ETH).window()
    older = stream.publication()
    publisher.publish(stream.window().publication())
    newest = stream.version
    result = publisher.publish_fault(older, "the ledger can't be written")
    assert result.outcome is Outcome.ACCEPTED
    assert (server.value("state"), server.throttle(BTC), server.throttle(ETH)) == (
        "FROZEN",
        "0.0",
        "0.0",
    )
    summary = server.summary()
    assert (summary["fault"], summary["state"]) == ("the ledger can't be written", "FROZEN")
    assert (summary["throttle"], summary["notional:BTCUSDT"]) == ("0.0", "0.0")
    assert summary["version"] == str(newest), "an older version stays refused"
    assert publisher.publish(stream.publication()).outcome is Outcome.NOT_NEWER
    assert publisher.publish(stream.window().publication()).outcome is Outcome.ACCEPTED
    assert (server.value("state"), server.summary()["fault"]) == ("ACTIVE", "")


def test_a_publication_that_comes_too_late_is_refused_unless_it_freezes(
    server: Server, publisher: RedisPublisher
) -> None:
    past = Stream(windows_ago=30)
    result = publisher.publish(past.window(BTCUSDT=WARN).publication())
    assert result.outcome is Outcome.STALE
    assert server.admin.keys("*") == []
    assert publisher.publish(past.window(BTCUSDT=CRIT).publication()).outcome is Outcome.ACCEPTED
    assert server.value("state") == "FROZEN"
    past.window()
    assert publisher.publish(past.publication()).outcome is Outcome.STALE
    with publishing(server.url, allow_stale=True) as exporting:
        assert exporting.publish(past.publication()).outcome is Outcome.ACCEPTED


def test_keys_of_another_type_are_written_over(server: Server, publisher: RedisPublisher) -> None:
    for key in (KEYS.state, KEYS.summary, KEYS.transitions, KEYS.throttle(BTC)):
        server.admin.rpush(key, "a list")
    stream = Stream().window(BTCUSDT=CRIT).window()
    assert publisher.publish(stream.publication()).outcome is Outcome.ACCEPTED
    assert (server.value("state"), server.throttle(BTC)) == ("ACTIVE", "1.0")
    assert server.summary()["version"] == str(stream.version)
    assert len(server.entries()) == 1


def test_a_reader_never_sees_a_mixture(server: Server, publisher: RedisPublisher) -> None:
    """Throttles and state change together in each of 300 publications, read all the while."""
    stream = Stream(BTC, ETH, SOL)
    ended = threading.Event()
    seen: set[tuple[str, ...]] = set()

    def read() -> None:
        with Redis(port=server.port, decode_responses=True) as reader:
            while not ended.is_set():
                pipeline = reader.pipeline(transaction=True)
                for key in (KEYS.state, *map(KEYS.throttle, (BTC, ETH, SOL))):
                    pipeline.get(key)
                pipeline.hmget(KEYS.summary, "state", "version", "throttle:SOLUSDT")
                *values, summary = pipeline.execute()
                seen.add((*map(str, values), *map(str, summary)))

    thread = threading.Thread(target=read)
    thread.start()
    published: dict[str, str] = {}
    for index in range(300):
        stream.window(**({BTC: CRIT} if index % 2 else {}))
        publication = stream.publication(valid_until_ms=server.now_ms() + MINUTE_MS)
        published[str(publication.version)] = publication.state
        assert publisher.publish(publication).outcome is Outcome.ACCEPTED
    ended.set()
    thread.join()
    versions = {reading[5] for reading in seen} - {"None"}
    assert len(versions) > 10, "the reader was there"
    for state, btc, eth, sol, told, version, in_summary in seen - {("None",) * 7}:
        expected = "0.0" if published[version] == "FROZEN" else "1.0"
        assert (state, told) == (published[version],) * 2
        assert {eth, sol, in_summary} == {expected}
        assert btc == expected
