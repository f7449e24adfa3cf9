"""
What is kept in the ledger of notifications: up to where they were planned, and what became of each.

The stream's records are the outbox. An entry `NotificationsNoted` says up to which version they
were planned, for whom, and what was still waiting; those after it, what was delivered or given up.
So a start plans again from the last noted version on, and whatever has no outcome is owed.
Source: DECISIONS.md 56, 58.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from projections.notify_memory import Memory
from projections.notify_messages import Message

PURPOSE: Final = "notifications"


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A message that a target hasn't got yet."""

    target: str
    message: Message


class NotificationsNoted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Up to a version of the stream everything is planned.

    Attributes:
        targets: who is told, by names without a secret; each owed what follows this version.
        memory: what the planning remembers there.
        waiting: what was owed then.
    """

    version: int
    targets: tuple[str, ...]
    memory: Memory
    at_ms: int
    waiting: tuple[Waiting, ...] = ()


class NotificationDelivered(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A target's service took a message. `attempts` are those of this run."""

    message: str
    episode: str
    target: str
    at_ms: int
    attempts: int = 1


class NotificationAbandoned(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message was given up for a target, and why."""

    message: str
    episode: str
    target: str
    at_ms: int
    reason: str
    attempts: int = 0


Entry = NotificationsNoted | NotificationDelivered | NotificationAbandoned

NAMES: Final[Mapping[type[Entry], str]] = {
    NotificationsNoted: "notifications_noted.v1",
    NotificationDelivered: "notification_delivered.v1",
    NotificationAbandoned: "notification_abandoned.v1",
}
"""The name and version that each entry is written under."""


class Standing(msgspec.Struct, frozen=True):
    """
    What the log says: the last noted version, and what has had an outcome since.

    Attributes:
        settled: pairs of a target and a message's id.
    """

    noted: NotificationsNoted
    settled: frozenset[tuple[str, str]] = frozenset()

    def owed(self, planned: Sequence[Message]) -> list[Waiting]:
        """Return what is owed, in order, given what was planned again after the noted version."""
        again = (
            Waiting(target=target, message=message)
            for message in planned
            for target in self.noted.targets
        )
        return [
            waiting
            for waiting in (*self.noted.waiting, *again)
            if (waiting.target, waiting.message.id) not in self.settled
        ]


class Inheritance(msgspec.Struct, frozen=True):
    """What is owed to the targets of now, and what lapsed with one that is no longer named."""

    owed: tuple[Waiting, ...]
    lapsed: tuple[Waiting, ...]


def standing_of(backwards: Iterable[Entry]) -> Standing | None:
    """Return where the log stands, from its entries, last one first; None if none was noted."""
    settled: set[tuple[str, str]] = set()
    for entry in backwards:
        if isinstance(entry, NotificationsNoted):
            return Standing(entry, frozenset(settled))
        settled.add((entry.target, entry.message))
    return None


def inherit(owed: Sequence[Waiting], before: Sequence[str], now: Sequence[str]) -> Inheritance:
    """
    Return what is owed when the targets are others than before.

    A new target takes over what was owed to those that went: mostly it is the same place under a
    new token, and nobody else would hear of it. If none is new, it lapses.
    """
    new = [target for target in now if target not in before]
    kept = [waiting for waiting in owed if waiting.target in now]
    gone = [waiting for waiting in owed if waiting.target not in now]
    if not new:
        return Inheritance(tuple(kept), tuple(gone))
    left = {waiting.message.id: waiting.message for waiting in gone}
    taken = [Waiting(target=target, message=each) for target in new for each in left.values()]
    return Inheritance((*kept, *taken), ())
