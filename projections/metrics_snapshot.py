"""
What a scrape is answered from: one immutable value, of one ledger version.

The run loop makes the next one after each append and after each output, and puts it in the place
of the last; a scrape takes whichever stands there. So a window costs what changed in it, and
whatever a scrape needs beyond that is made in the scraper's thread.
"""

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from domain.events import (
    RULES_VERSION,
    Event,
    KpiObserved,
    RampProfile,
    StateTransitioned,
    TradingState,
)
from domain.kpis import Verdict
from domain.policy import Policy
from ledger.application import StreamState

APPENDS_MAX: Final = 10_000
"""How many appends are remembered, to tell since when a projection that catches up is behind."""

_Name = TypeVar("_Name")


class About(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a run is, which doesn't change while it lasts.

    Attributes:
        env, exchange: the labels that every metric carries.
        symbols, policy, profile: those that the run adopts with its first new window.
        interval_ms: a window's length.
        started_at_ms: when the run began, by the wall clock.
        version, python: of this code, and of what runs it.
    """

    env: str
    exchange: str
    symbols: tuple[str, ...]
    policy: Policy
    policy_hash: str
    profile: RampProfile | None
    interval_ms: int
    started_at_ms: int
    version: str
    python: str
    rules_version: int = RULES_VERSION


class Place(msgspec.Struct, frozen=True):
    """
    How far a projection has come.

    Attributes:
        version: the last one that it holds, as far as this run knows.
        waiting_since_ms: when the first version that it lacks was appended; None if it lacks none.
    """

    version: int
    waiting_since_ms: int | None


class Notifications(msgspec.Struct, frozen=True, kw_only=True):
    """
    What became of a run's notifications.

    Attributes:
        pending: how many wait now.
        delivered, failed, abandoned: since the run's start; failed are attempts.
    """

    pending: int = 0
    delivered: int = 0
    failed: int = 0
    abandoned: int = 0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """
    A run as of one ledger version.

    Attributes:
        stream, position: the stream's fold, and its last event's position.
        has_adopted: whether the run's own policy and symbols are in force.
        decided_at_ms: when a window was last appended; None if none ever was.
        newest_ms, lag_ms: the newest sample's own time, and how long before the last window's end
            it was; None as long as there is none.
        violations: by symbol, KPI and verdict, those of this run that there are any of.
        discarded: by the feed's own reason, what it didn't use in this run.
        transitions: by the state that they led to, those of this run.
        places: the projections by name.
        redis_up: whether Redis answered last; None where nothing is published.
        notifications: None where nobody is notified.
    """

    about: About
    stream: StreamState
    position: int
    has_adopted: bool = False
    decided_at_ms: int | None = None
    newest_ms: int | None = None
    lag_ms: int | None = None
    violations: Mapping[tuple[str, str, Verdict], int] = {}
    discarded: Mapping[str, int] = {}
    transitions: Mapping[TradingState, int] = {}
    places: Mapping[str, Place] = {}
    redis_up: bool | None = None
    notifications: Notifications | None = None


def after_append(
    snapshot: Snapshot,
    stream: StreamState,
    events: Iterable[Event],
    *,
    position: int,
    at_ms: int,
    newest_ms: int | None,
) -> Snapshot:
    """
    Return the snapshot after an append.

    Args:
        stream: the stream with the events in it.
        events: what was appended.
        position: of the last of them.
        at_ms: when, by the wall clock.
        newest_ms: the newest sample's own time, for a window among the events.
    """
    has_adopted, decided_at_ms = snapshot.has_adopted, snapshot.decided_at_ms
    known_ms, lag_ms = snapshot.newest_ms, snapshot.lag_ms
    violations, discarded = snapshot.violations, snapshot.discarded
    transitions = snapshot.transitions
    for event in events:
        if isinstance(event, KpiObserved):
            has_adopted, decided_at_ms = True, at_ms
            known_ms = known_ms if newest_ms is None else newest_ms
            lag_ms = None if known_ms is None else max(0, event.end_ms - known_ms)
            found = Counter(
                (symbol.memory.symbol, violation.kpi, violation.verdict)
                for symbol in event.symbols
                for violation in symbol.violations
            )
            violations = _sum(violations, found)
            discarded = _sum(discarded, event.feed_counts)
        elif isinstance(event, StateTransitioned):
            transitions = _sum(transitions, {event.state: 1})
    return replace(
        snapshot,
        stream=stream,
        position=position,
        has_adopted=has_adopted,
        decided_at_ms=decided_at_ms,
        newest_ms=known_ms,
        lag_ms=lag_ms,
        violations=violations,
        discarded=discarded,
        transitions=transitions,
        places={
            name: Place(place.version, at_ms) if place.waiting_since_ms is None else place
            for name, place in snapshot.places.items()
        },
    )


class Appends:
    """When which version was appended, of the last `APPENDS_MAX` appends."""

    def __init__(self) -> None:
        self._appends: deque[tuple[int, int]] = deque(maxlen=APPENDS_MAX)

    def add(self, version: int, at_ms: int) -> None:
        """Remember an append by the last version in it."""
        self._appends.append((version, at_ms))

    def place(
        self, known: Place, version: int, stream: StreamState, waiting_since_ms: int | None = None
    ) -> Place:
        """
        Return how far a projection has come that now holds a version.

        A projection that catches up with what is no longer remembered counts as waiting since it
        began to wait, which is too long rather than too short.

        Args:
            known: how far it had come before.
            version: of the stream; one that is older than what it had already is passed over.
            waiting_since_ms: since when, where the projection itself knows better.
        """
        version = max(version, known.version)
        if version >= stream.version:
            return Place(version, None)
        if waiting_since_ms is not None:
            return Place(version, waiting_since_ms)
        index = bisect_right(self._appends, version, key=_version_of)
        if 0 < index < len(self._appends):
            return Place(version, self._appends[index][1])
        return Place(version, known.waiting_since_ms)


def _version_of(append: tuple[int, int]) -> int:
    return append[0]


def _sum(counts: Mapping[_Name, int], more: Mapping[_Name, int]) -> Mapping[_Name, int]:
    """Return the counts with more added: a new mapping, unless there is nothing to add."""
    if not more:
        return counts
    summed = dict(counts)
    for name, count in more.items():
        summed[name] = summed.get(name, 0) + count
    return summed
