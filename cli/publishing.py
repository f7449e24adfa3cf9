"""
Publishing to Redis for a run: who may, from which state a new ledger starts, what others wrote.

Source: DESIGN.md section 1, Overrides, Starting, and failing closed; section 3, Redis.
"""

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec

from cli.run_options import RedisOptions
from domain.errors import AnotherWriter, CannotTell
from domain.events import Event, StateTransitioned, TradingState
from domain.state import State
from domain.windows import format_time
from ledger.application import Ledger, StreamState
from ledger.lock import StreamLock
from ledger.streams import StreamKey, parse_stream_id
from projections.redis_control import Down, LeaseHeld, Published, clear_hold, set_hold
from projections.redis_exchange import ForeignWrite, Outcome, Result
from projections.redis_keys import LiveKeys, Publication, fault_of, live_keys, publication_of
from projections.redis_publisher import RedisPublisher
from projections.views import LedgerPlace
from redis_link.client import BoundedRedis, open_redis

LEASE_MARGIN_MS: Final = 5_000
EXPORT_MS: Final = 5_000
"""How long an export may be in a runner's way if it is killed with the lease."""


class Standing(msgspec.Struct, frozen=True):
    """
    What a run may go on from.

    Attributes:
        published: the state that a new ledger starts in, if Redis holds a worse one than ACTIVE.
        fencing_token: the lease's, for `RunStarted`.
    """

    published: TradingState = TradingState.ACTIVE
    fencing_token: int | None = None


class LedgerPublisher:
    """
    Publishes one stream's versions.

    Args:
        client: the run's own, which it shares with a feed and closes itself.

    Attributes:
        is_up: whether the server answered when it was last asked.
        accepted_version: the last version of this run that it took; 0 if none yet.
    """

    def __init__(
        self, client: BoundedRedis, options: RedisOptions, key: StreamKey, lock: StreamLock
    ) -> None:
        self._options = options
        self._lock = lock
        self._key = key
        self._keys = live_keys(key.env, key.exchange)
        self._client = client
        self._redis = RedisPublisher(
            self._client, self._keys, dead_man=options.dead_man, adopt=options.adopt
        )
        self._said: set[str] = set()
        self._notices: list[str] = []
        self._last: Publication | None = None
        self._owes = False
        self._is_left = False
        self._ending: set[str] = set()
        self._frozen_since_ms: dict[str, int] = {}
        self.is_up = False
        self.accepted_version = 0

    def take_over(self, state: State, *, interval_ms: int, now_ms: int) -> Standing:
        """
        Take the lease, and see what is published of this stream.

        While the server is down a run begins without either, and the first publication that gets
        through takes the lease.

        Raises:
            AnotherWriter: if another runner holds the lease, or, in prod, the keys are another
                ledger's and nobody said that they may be taken over.
        """
        published = self._redis.published_state()
        if isinstance(published, Published):
            self._check_ledger(published, state)
        taken = self._redis.acquire_lease(
            _owner(now_ms),
            3 * interval_ms + LEASE_MARGIN_MS,
            replaces=self._lock.fencing_token,
            claims=self._lock.claims,
        )
        if isinstance(taken, LeaseHeld):
            raise AnotherWriter(
                f"{self._key} is published by {taken.owner}; its lease runs out in "
                f"{taken.expires_in_ms / 1000:.0f} s. One runner per env and exchange."
            )
        worse = TradingState.ACTIVE
        if isinstance(published, Published) and published.state is not None and not state.symbols:
            worse = published.state
        self.is_up = not isinstance(taken, Down)
        self._remember_token()
        return Standing(worse, self._redis.fencing_token)

    def begin_window(self) -> bool:
        """
        Let Redis be waited for again; return whether a publication didn't get through.

        What is owed comes before the feed's questions, so that a state which was decided while
        Redis was away is there as soon as it is back.
        """
        self._client.renew_budget()
        return self._owes

    def hurry(self) -> None:
        """Let what comes now be published though the window's time for failures is used up."""
        self._client.urge_budget()

    def publish(
        self,
        ledger: Ledger,
        stream: StreamState,
        events: Sequence[Event],
        *,
        now_ms: int,
        acknowledged: Sequence[ForeignWrite] = (),
    ) -> Sequence[ForeignWrite]:
        """
        Publish the stream's state; return what others wrote to the keys since the last time.

        Raises:
            AnotherWriter: if another runner has taken over; nothing was published then.
        """
        place = LedgerPlace(stream.id, stream.version, ledger.position(stream))
        self._last = publication_of(
            stream.state,
            place,
            ttl_sec=self._options.ttl_sec,
            transitions=[event for event in events if isinstance(event, StateTransitioned)],
        )
        result = self._redis.publish(self._last, acknowledged=acknowledged)
        self._owes = result.outcome is Outcome.DOWN
        self.is_up = result.outcome is not Outcome.DOWN
        self._judge(result)
        self._remember_token()
        if result.outcome is Outcome.ACCEPTED:
            self.accepted_version = self._last.version
            self._note_frozen(self._last, now_ms)
            self.end_holds()
        return result.foreign

    def frozen_since_ms(self, symbol: str) -> int | None:
        """Return since when this run has published 0.0 for a symbol, None if it doesn't."""
        return self._frozen_since_ms.get(symbol)

    def publish_fault(self, text: str) -> None:
        """Publish FROZEN and 0.0 for everything, with the cause, if anything was published."""
        if self._last is not None:
            self._redis.publish(fault_of(self._last, text))
            self._is_left = True

    def notices(self) -> list[str]:
        """Return what somebody should be told since the last call."""
        notices, self._notices = [*self._notices, *self._redis.notices()], []
        return notices

    def end_holds(self, request_ids: Sequence[str] = ()) -> set[str]:
        """
        End the holds of requests that are decided, and of earlier ones that couldn't be ended.

        Returns:
            The requests for which there was one.
        """
        self._ending.update(request_ids)
        ended: set[str] = set()
        for request_id in sorted(self._ending):
            done = clear_hold(self._client, self._keys, request_id)
            if isinstance(done, Down):
                break
            self._ending.discard(request_id)
            if done:
                ended.add(request_id)
        return ended

    def close(self) -> None:
        """Leave what is to stand when the run has ended, and give the lease back."""
        self.leave()
        self._redis.release_lease()

    def leave(self) -> None:
        """
        Leave FROZEN if that is asked for, however the run ends; once, within one timeout.

        After a fault there is nothing to add; who was fenced leaves the other's keys alone.
        """
        self._client.renew_budget()
        self._client.urge_budget()
        if self._options.freeze_on_exit and not self._is_left:
            self.publish_fault("the runner has ended (--on-exit freeze)")

    def _check_ledger(self, published: Published, state: State) -> None:
        theirs = published.ledger_id
        if not theirs or theirs == state.ledger_id or self._options.adopt:
            return
        text = f"the keys of {self._key} are another ledger's ({theirs})"
        if self._key.env == "prod":
            raise AnotherWriter(f"{text}; take them over with --adopt if that one has ended")
        self._notices.append(f"{text}; they are taken over")
        self._redis = RedisPublisher(
            self._client, self._keys, dead_man=self._options.dead_man, adopt=True
        )

    def _judge(self, result: Result) -> None:
        match result.outcome:
            case Outcome.FENCED:
                raise AnotherWriter(f"{self._key} was taken over by {result.detail}; stopping")
            case Outcome.OTHER_LEDGER:
                raise AnotherWriter(f"the keys of {self._key} are another ledger's now; stopping")
            case Outcome.STALE | Outcome.NOT_NEWER:
                self._say_once(f"not published: {result.outcome.value}: {result.detail}")
            case Outcome.ACCEPTED if result.detail:
                self._say_once(f"published as FROZEN under a hold: {result.detail}")
            case _:
                pass

    def _remember_token(self) -> None:
        """Note the lease's token where the next holder of the lock finds it."""
        if self._redis.fencing_token is not None:
            self._lock.remember_token(self._redis.fencing_token)

    def _note_frozen(self, publication: Publication, now_ms: int) -> None:
        frozen = [symbol for symbol, text in publication.throttles.items() if text == "0.0"]
        self._frozen_since_ms = {
            symbol: self._frozen_since_ms.get(symbol, now_ms) for symbol in frozen
        }

    def _say_once(self, text: str) -> None:
        kind = text.partition(":")[0]
        if kind not in self._said:
            self._said.add(kind)
            self._notices.append(text)


def _owner(now_ms: int) -> str:
    """Return how this process is told to whoever is refused."""
    return f"{socket.gethostname()} process {os.getpid()} since {format_time(now_ms)}"


def hold(url: str, stream_id: str, text: str, request_id: str) -> str:
    """Set the hold above which nothing is published, and return how that went."""
    with _connected(url, stream_id) as (connection, keys):
        done = set_hold(connection, keys, text, request_id)
    if isinstance(done, Down):
        return f"no hold could be set in Redis either ({done.reason})"
    return "a hold in Redis keeps everything FROZEN until a runner takes the freeze"


def end_hold(url: str, stream_id: str, request_id: str) -> None:
    """End a hold that was set when its freeze was just being taken."""
    with _connected(url, stream_id) as (connection, keys):
        clear_hold(connection, keys, request_id)


@contextmanager
def _connected(url: str, stream_id: str) -> Iterator[tuple[BoundedRedis, LiveKeys]]:
    """Give a client for a moment, and the stream's keys."""
    key = parse_stream_id(stream_id)
    connection = open_redis(url, env=key.env)
    try:
        yield connection, live_keys(key.env, key.exchange)
    finally:
        connection.close()


def publish_once(
    options: RedisOptions, ledger: Ledger, stream: StreamState, *, force: bool, token: int | None
) -> Result:
    """
    Publish a stream's state from its ledger, without a run.

    Args:
        token: of a runner that is known to be gone: its lease is taken over, and given back.
            Any other lease is in the way.

    Raises:
        CannotTell: if no run has begun yet.
    """
    if parse_stream_id(stream.id).dry_run:
        raise CannotTell(f"{stream.id} is a dry run; a dry run publishes nothing")
    place = LedgerPlace(stream.id, stream.version, ledger.position(stream))
    publication = publication_of(stream.state, place, ttl_sec=options.ttl_sec)
    with _connected(options.url, stream.id) as (connection, keys):
        publisher = RedisPublisher(
            connection,
            keys,
            dead_man=options.dead_man,
            adopt=options.adopt,
            allow_stale=force,
        )
        result = publisher.publish(publication)
        if result.outcome is Outcome.FENCED and token is not None:
            publisher.acquire_lease(_owner(time.time_ns() // 1_000_000), EXPORT_MS, replaces=token)
            result = publisher.publish(publication)
            publisher.release_lease()
        return result
