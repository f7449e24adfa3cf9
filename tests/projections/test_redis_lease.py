"""Two runners on two machines, and one Redis: who may publish."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_proxy import proxied
from redis_support import BTC, CRIT, KEYS, Server, Stream, connected, publishing, wait_until

from ledger.location import LedgerLocation
from ledger.lock import StreamLock
from projections.redis_control import Down, Lease, LeaseHeld
from projections.redis_exchange import Outcome
from projections.redis_publisher import RedisPublisher

LONG_MS = 3_600_000
SHORT_MS = 100


@pytest.fixture
def first(server: Server) -> Iterator[RedisPublisher]:
    with publishing(server.url) as publisher:
        yield publisher


@pytest.fixture
def second(server: Server) -> Iterator[RedisPublisher]:
    with publishing(server.url) as publisher:
        yield publisher


def taken(publisher: RedisPublisher, owner: str, ttl_ms: int = LONG_MS) -> Lease:
    lease = publisher.acquire_lease(owner, ttl_ms)
    assert isinstance(lease, Lease)
    return lease


def expired(server: Server) -> None:
    wait_until(lambda: not server.admin.exists(KEYS.lease))


def test_whoever_comes_second_is_told_who_holds_it(
    first: RedisPublisher, second: RedisPublisher
) -> None:
    lease = taken(first, "here, 42, since noon")
    held = second.acquire_lease("there, 7", LONG_MS)
    assert isinstance(held, LeaseHeld)
    assert (held.owner, held.token) == ("here, 42, since noon", lease.token)
    assert 0 < held.expires_in_ms <= LONG_MS
    assert (first.fencing_token, second.fencing_token) == (lease.token, None)


def test_two_that_come_together_are_told_apart(server: Server) -> None:
    for _ in range(20):
        server.admin.delete(KEYS.lease)
        found: list[object] = []
        barrier = threading.Barrier(4)

        def come(barrier: threading.Barrier = barrier, found: list[object] = found) -> None:
            with publishing(server.url) as publisher:
                barrier.wait()
                found.append(publisher.acquire_lease("me", LONG_MS))

        threads = [threading.Thread(target=come) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(isinstance(lease, Lease) for lease in found) == 1


def test_each_publication_renews_the_lease(server: Server, first: RedisPublisher) -> None:
    taken(first, "here")
    server.admin.pexpire(KEYS.lease, 30_000)
    assert first.publish(Stream().window().publication()).outcome is Outcome.ACCEPTED
    assert server.ttl_ms("lease") > LONG_MS - 60_000


def test_one_without_the_lease_publishes_nothing(
    server: Server, first: RedisPublisher, second: RedisPublisher
) -> None:
    taken(first, "here")
    stream = Stream().window()
    for result in (
        second.publish(stream.publication()),
        second.publish_fault(stream.publication(), "down"),
    ):
        assert (result.outcome, result.detail) == (Outcome.FENCED, "here")
    assert server.value("state") is None


def test_after_a_takeover_the_old_runner_is_fenced_for_ever(
    server: Server, first: RedisPublisher, second: RedisPublisher
) -> None:
    stream = Stream()
    old = taken(first, "old", SHORT_MS)
    assert first.publish(stream.window().publication()).outcome is Outcome.ACCEPTED
    expired(server)
    new = taken(second, "new", SHORT_MS)
    assert new.token > old.token
    assert second.publish(stream.window(BTCUSDT=CRIT).publication()).outcome is Outcome.ACCEPTED
    newest = stream.window().publication()
    assert first.publish(newest).outcome is Outcome.FENCED
    expired(server)
    second.release_lease()
    assert first.publish(newest).outcome is Outcome.FENCED
    assert first.publish_fault(newest, "late").outcome is Outcome.FENCED
    assert server.value("state") == "FROZEN"


def test_a_runner_that_slept_through_a_takeover_is_fenced_though_the_lease_ran_out(
    server: Server, first: RedisPublisher, second: RedisPublisher
) -> None:
    taken(first, "old", SHORT_MS)
    expired(server)
    taken(second, "new", SHORT_MS)
    expired(server)
    result = first.publish(Stream().window().publication())
    assert result.outcome is Outcome.FENCED
    assert server.value("state") is None


def test_a_lease_that_ran_out_without_a_takeover_is_taken_again(
    server: Server, first: RedisPublisher
) -> None:
    lease = taken(first, "here", SHORT_MS)
    expired(server)
    assert first.publish(Stream().window().publication()).outcome is Outcome.ACCEPTED
    assert server.admin.get(KEYS.fence) == str(lease.token)


def test_tokens_rise_even_where_the_server_lost_its_data(
    server: Server, first: RedisPublisher, second: RedisPublisher
) -> None:
    stream = Stream()
    old = taken(first, "old")
    server.admin.flushall()
    wait_until(lambda: server.now_ms() > old.token)
    new = taken(second, "new")
    assert new.token > old.token
    assert first.publish(stream.window().publication()).outcome is Outcome.FENCED
    server.admin.flushall()
    assert second.publish(stream.publication()).outcome is Outcome.ACCEPTED
    assert server.admin.get(KEYS.fence) == str(new.token)


def test_tokens_rise_though_the_servers_clock_stands_behind(
    server: Server, first: RedisPublisher
) -> None:
    ahead = server.now_ms() + 10**9
    server.admin.set(KEYS.fence, ahead)
    assert taken(first, "here").token == ahead + 1


def test_the_next_run_of_a_ledger_replaces_its_killed_one(
    server: Server, first: RedisPublisher, second: RedisPublisher
) -> None:
    killed = taken(first, "killed")
    held = second.acquire_lease("next", LONG_MS, replaces=killed.token - 1)
    assert isinstance(held, LeaseHeld)
    lease = second.acquire_lease("next", LONG_MS, replaces=killed.token)
    assert isinstance(lease, Lease)
    assert lease.token > killed.token
    assert first.publish(Stream().window().publication()).outcome is Outcome.FENCED


def test_a_lease_whose_answer_was_lost_is_known_as_ones_own(server: Server) -> None:
    with proxied(server.port) as proxy, publishing(proxy.url) as publisher:
        publisher.published_state()  # From now on there is a connection.
        proxy.mode = "reset"
        assert isinstance(publisher.acquire_lease("here", LONG_MS), Down)
        assert server.admin.hget(KEYS.lease, "owner") == "here"
        proxy.mode = "pass"
        assert publisher.publish(Stream().window().publication()).outcome is Outcome.ACCEPTED


def test_the_next_holder_of_the_lock_replaces_a_lease_that_nobody_heard_of(
    server: Server, first: RedisPublisher, second: RedisPublisher, tmp_path: Path
) -> None:
    location = LedgerLocation(tmp_path / "desk.sqlite")
    with StreamLock(location, "dev:bybit", now_ms=0) as lock:
        killed = first.acquire_lease("killed", LONG_MS, claims=lock.claims)
        assert isinstance(killed, Lease)
        # Its token isn't noted in the lock, as it was killed just then; but it had published.
        assert first.publish(Stream().window().publication()).outcome is Outcome.ACCEPTED
    with StreamLock(location, "dev:bybit", now_ms=0) as lock:
        assert lock.fencing_token is None
        assert isinstance(second.acquire_lease("stranger", LONG_MS), LeaseHeld)
        lease = second.acquire_lease("next", LONG_MS, claims=lock.claims)
        assert isinstance(lease, Lease)
        assert lease.token > killed.token
    assert first.publish(Stream().window().publication()).outcome is Outcome.FENCED


def test_a_lease_is_given_back_only_by_its_owner(
    server: Server, first: RedisPublisher, second: RedisPublisher
) -> None:
    taken(first, "old", SHORT_MS)
    expired(server)
    taken(second, "new")
    first.release_lease()
    assert server.admin.hget(KEYS.lease, "owner") == "new"
    second.release_lease()
    assert not server.admin.exists(KEYS.lease)
    assert server.admin.exists(KEYS.fence)


def test_a_lease_that_couldnt_be_had_at_the_start_is_had_with_the_first_publication(
    server: Server,
) -> None:
    with proxied(server.port) as proxy, publishing(proxy.url) as publisher:
        proxy.mode = "refuse"
        assert isinstance(publisher.acquire_lease("here", LONG_MS), Down)
        assert publisher.publish(Stream().window().publication()).outcome is Outcome.DOWN
        proxy.mode = "pass"
        assert publisher.publish(Stream().window().publication()).outcome is Outcome.ACCEPTED
        assert server.admin.hget(KEYS.lease, "owner") == "here"
        assert publisher.fencing_token is not None


def test_one_that_finds_another_after_an_outage_is_fenced(
    server: Server, second: RedisPublisher
) -> None:
    with proxied(server.port) as proxy, publishing(proxy.url) as publisher:
        proxy.mode = "refuse"
        publisher.acquire_lease("here", LONG_MS)
        taken(second, "there", SHORT_MS)
        proxy.mode = "pass"
        result = publisher.publish(Stream().window().publication())
        assert (result.outcome, result.detail) == (Outcome.FENCED, "there")
        expired(server)
        assert publisher.publish(Stream().window().publication()).outcome is Outcome.FENCED


def test_a_reader_sees_nothing_stale_throughout_takeovers(server: Server) -> None:
    """Two machines take over from each other in turn; every old one tries ACTIVE once more."""
    stream = Stream(BTC)
    ended = threading.Event()
    seen: list[tuple[int, str]] = []

    def read() -> None:
        while not ended.is_set():
            version, state = server.admin.hmget(KEYS.summary, "version", "state")
            if version is not None and state is not None:
                seen.append((int(version), str(state)))

    reader = threading.Thread(target=read)
    reader.start()
    old: RedisPublisher | None = None
    states: dict[int, str] = {}
    for turn in range(10):
        with connected(server.url, timeout_sec=5.0) as connection:
            new = RedisPublisher(connection, KEYS)
            if old is not None:
                server.admin.delete(KEYS.lease)
            taken(new, f"machine {turn}")
            active = stream.window().publication()
            states[active.version] = active.state
            assert new.publish(active).outcome is Outcome.ACCEPTED
            frozen = stream.window(BTCUSDT=CRIT).publication()
            states[frozen.version] = frozen.state
            assert new.publish(frozen).outcome is Outcome.ACCEPTED
            if old is not None:
                assert old.publish(active).outcome is Outcome.FENCED
            old = new
    ended.set()
    reader.join()
    assert seen == sorted(seen, key=lambda pair: pair[0]), "versions never went back"
    assert all(states[version] == state for version, state in seen)
