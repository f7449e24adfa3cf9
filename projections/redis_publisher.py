"""
Publication into Redis: one atomic write a window, in bounded time, never of anything stale.

`redis_publish.lua` judges and writes. It may run twice where an answer was lost; nothing here is
ever tried again blindly. Source: DESIGN.md section 1, Overrides; section 3, Redis.
"""

from collections.abc import Sequence
from uuid import uuid4

from projections.redis_control import (
    DOWN_ERRORS,
    Down,
    Lease,
    LeaseHeld,
    Published,
    Wanted,
    acquire_lease,
    down,
    published_state,
    release_lease,
)
from projections.redis_exchange import ForeignWrite, Outcome, Result, Terms, exchange
from projections.redis_keys import (
    TRANSITIONS_MAX,
    LiveKeys,
    Publication,
    Transition,
    fault_of,
)
from redis_link.client import BoundedRedis


class RedisPublisher:
    """
    Publishes one stream's ledger versions.

    Args:
        dead_man: let `state` and `throttle:*` expire with `valid_until`.
        adopt: take another ledger's keys over with the first publication that is accepted.
        allow_stale: publish past `valid_until` too, for windows that aren't of now.
    """

    def __init__(
        self,
        connection: BoundedRedis,
        keys: LiveKeys,
        *,
        dead_man: bool = False,
        adopt: bool = False,
        allow_stale: bool = False,
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._dead_man = dead_man
        self._adopt = adopt
        self._allow_stale = allow_stale
        self._lease: Lease | None = None
        self._wanted: Wanted | None = None
        self._fenced_by: str | None = None
        self._written: Publication | None = None
        self._pending: dict[int, Transition] = {}
        self._missed = 0
        self._notices: list[str] = []

    def publish(
        self, publication: Publication, *, acknowledged: Sequence[ForeignWrite] = ()
    ) -> Result:
        """
        Publish a version, or say why not; nothing is raised, and the time is bounded.

        Args:
            acknowledged: foreign writes that the ledger has been told of: they may be overwritten.
        """
        if self._fenced_by is not None:
            return Result(Outcome.FENCED, self._fenced_by)
        for transition in publication.transitions:
            self._pending[transition.number] = transition
        for number in sorted(self._pending)[:-TRANSITIONS_MAX]:
            del self._pending[number]
        try:
            with self._connection.bounded():
                refused = self._lease_if_wanted()
                result = refused or self._exchange(publication, acknowledged=acknowledged)
        except DOWN_ERRORS as error:
            return self._down(error)
        self._account(result, publication)
        return result

    def publish_fault(self, publication: Publication, text: str) -> Result:
        """Publish FROZEN and 0.0 for everything, whatever version is there, and why."""
        return self.publish(fault_of(publication, text))

    def read_foreign(self, publication: Publication) -> tuple[ForeignWrite, ...]:
        """
        Return which keys hold something else than was published last; writes nothing.

        `publish` gives the same with its result, without another exchange; this is for looking
        between windows. () too if the server is down, or the keys aren't ours.

        Args:
            publication: of the ledger's present state, published or not.
        """
        try:
            with self._connection.bounded():
                return self._exchange(publication, is_probe=True).foreign
        except DOWN_ERRORS as error:
            self._down(error)
            return ()

    def acquire_lease(
        self,
        owner: str,
        ttl_ms: int,
        *,
        replaces: int | None = None,
        claims: Sequence[str] = (),
    ) -> Lease | LeaseHeld | Down:
        """
        Take the lease, which each publication renews, or say who has it.

        While the server is down it is left to the next publication, which then is FENCED if
        somebody has it.

        Args:
            owner: host, process id and since when, for whoever is refused.
            ttl_ms: longer than an interval and the time that a window takes.
            replaces: the token of this ledger's last run, which may be taken over at once by
                whoever holds the ledger's lock.
            claims: what the lease is known by, and what earlier runs' were, which may be taken
                over likewise; one is made up if none is given.
        """
        self._wanted = Wanted(owner, ttl_ms, tuple(claims) or (uuid4().hex,), replaces)
        try:
            taken = acquire_lease(self._connection, self._keys, self._wanted)
        except DOWN_ERRORS as error:
            return Down(self._down(error).detail)
        self._wanted = None
        if isinstance(taken, Lease):
            self._lease = taken
        return taken

    def release_lease(self) -> None:
        """Give the lease back, if it is ours and the server can be reached."""
        if self._lease is not None:
            try:
                release_lease(self._connection, self._keys, self._lease)
            except DOWN_ERRORS as error:
                self._down(error)
            self._lease = None

    def published_state(self) -> Published | Down:
        """Return what is published now, of whichever ledger."""
        return published_state(self._connection, self._keys)

    @property
    def fencing_token(self) -> int | None:
        """The lease's token, for `RunStarted`; None without a lease."""
        return None if self._lease is None else self._lease.token

    def notices(self) -> list[str]:
        """Return what there is to say since the last call: an outage's begin, its end."""
        notices, self._notices = self._notices, []
        return notices

    def _lease_if_wanted(self) -> Result | None:
        if self._wanted is None:
            return None
        taken = acquire_lease(self._connection, self._keys, self._wanted)
        if isinstance(taken, LeaseHeld):
            return Result(Outcome.FENCED, taken.owner)
        self._lease, self._wanted = taken, None
        return None

    def _exchange(
        self,
        publication: Publication,
        *,
        acknowledged: Sequence[ForeignWrite] = (),
        is_probe: bool = False,
    ) -> Result:
        terms = Terms(
            dead_man=self._dead_man,
            adopt=self._adopt,
            allow_stale=self._allow_stale,
            is_probe=is_probe,
            acknowledged=tuple(acknowledged),
            transitions=tuple(transition for _, transition in sorted(self._pending.items())),
            lease=self._lease,
            written=self._written,
        )
        return exchange(self._connection, self._keys, publication, terms)

    def _account(self, result: Result, publication: Publication) -> None:
        """Remember what the answer means for the next publication."""
        if self._missed:
            self._notices.append(f"Redis answers again after {self._missed} failures")
            self._missed = 0
        if result.outcome is Outcome.FENCED and (self._lease or self._wanted):
            self._fenced_by = result.detail
        elif result.outcome is Outcome.ACCEPTED:
            self._adopt = False
            self._pending.clear()
            self._written = publication

    def _down(self, error: Exception) -> Result:
        """Return what the failure is; note it if it is an outage's first."""
        reason = down(self._connection, error).reason
        if not self._missed:
            self._notices.append(f"Redis is down ({reason}); decisions go on without it")
        self._missed += 1
        return Result(Outcome.DOWN, reason)
