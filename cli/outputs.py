"""
What a runner puts out after each append: the Redis keys, then the artifacts.

Both are made from the ledger alone, so that a run which was killed between two steps makes them
good at its next start. Source: DESIGN.md section 3.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from domain.events import Event
from ledger.application import Ledger, StreamState
from projections.artifacts import write_artifacts


class Publisher(Protocol):
    """Where the keys go that the bot obeys."""

    def publish(self, ledger: Ledger, stream: StreamState, events: Iterable[Event]) -> None:
        """
        Publish the stream's state, in bounded time, without raising if the server is away.

        Raises:
            AnotherWriter: if another runner has taken over; nothing was published then.
        """
        ...

    def publish_fault(self, stream: StreamState, text: str) -> None:
        """Publish FROZEN and 0.0 for everything, with the cause."""
        ...

    def notices(self) -> list[str]:
        """Return what somebody should be told since the last call."""
        ...

    def close(self, stream: StreamState) -> None:
        """Publish what is to stand when the run has ended, and let go of the server."""
        ...


class NoPublisher:
    """Publishes nothing: a dry run, or no Redis."""

    def publish(self, ledger: Ledger, stream: StreamState, events: Iterable[Event]) -> None:
        """Do nothing."""

    def publish_fault(self, stream: StreamState, text: str) -> None:
        """Do nothing."""

    def notices(self) -> list[str]:
        """Return []: nothing can go wrong."""
        return []

    def close(self, stream: StreamState) -> None:
        """Do nothing."""


class Outputs:
    """The outputs of one run."""

    def __init__(self, ledger: Ledger, artifacts: Path, publisher: Publisher) -> None:
        self.publisher = publisher
        self._ledger = ledger
        self._artifacts = artifacts

    def publish(self, stream: StreamState, events: Iterable[Event]) -> None:
        """Publish to Redis what an append has led to."""
        self.publisher.publish(self._ledger, stream, events)

    def write_artifacts(self, stream: StreamState) -> None:
        """Renew the artifacts, once a window has been observed."""
        if stream.state.observed is not None:
            write_artifacts(self._ledger, stream, self._artifacts)
