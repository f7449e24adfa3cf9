"""
Snapshots: folds kept at intervals, so that the state as of any version is near one of them.

They are a cache. At most one is kept for each block of versions, the newest of it, so that all of
them together are a small part of the events that they stand for. One that another version of the
fold took is passed over; so is one that doesn't carry its own digest, and that is noted.
Source: DESIGN.md section 2, Aggregate; DECISIONS.md 26 and 61.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import AggregateRecorder, EventStore, StoredEvent
from eventsourcing.sqlite import SQLiteAggregateRecorder, SQLiteCursor, SQLiteDatastore

from domain.errors import LedgerDamaged
from domain.state import FOLD_VERSION
from ledger.codec import SNAPSHOT_NAME, LedgerMapper, Snapshot

SNAPSHOT_EVERY_VERSIONS: Final = 2_000
"""The length of a block of versions; no fold begins further back than two of them."""


def is_in_later_block(version: int, other: int) -> bool:
    """Return whether a version lies in a later block than another."""
    return version // SNAPSHOT_EVERY_VERSIONS > other // SNAPSHOT_EVERY_VERSIONS


class SnapshotRecorder(SQLiteAggregateRecorder):
    """A newer snapshot of the same version, or the same block of versions, takes the old one's."""

    def __init__(self, datastore: SQLiteDatastore, events_table_name: str) -> None:
        super().__init__(datastore, events_table_name)
        self.insert_events_statement = self.insert_events_statement.replace(
            "INSERT", "INSERT OR REPLACE"
        )

    def _insert_events(
        self, c: SQLiteCursor, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        inserted = super()._insert_events(c, stored_events, **kwargs)
        for stored in stored_events:
            version = stored.originator_version
            c.execute(
                f"DELETE FROM {self.events_table_name} WHERE originator_id=? "  # noqa: S608
                "AND originator_version>=? AND originator_version<?",
                (stored.originator_id, version - version % SNAPSHOT_EVERY_VERSIONS, version),
            )
        return inserted


class FoldSnapshots(EventStore[str]):
    """
    Gives the snapshots that this version of the fold took and that are whole.

    Attributes:
        damaged: by stream and version, what is wrong with a snapshot that was passed over.
    """

    def __init__(self, mapper: LedgerMapper, recorder: AggregateRecorder) -> None:
        super().__init__(mapper, recorder)
        self.damaged: dict[tuple[str, int], str] = {}

    def get(
        self,
        originator_id: str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Iterator[DomainEventProtocol[str]]:
        """Yield the stream's usable snapshots, newest first: at most as many as the limit says."""
        assert desc, "snapshots are looked for from the newest on"
        found = 0
        while found != limit:
            stored = self.recorder.select_events(originator_id, gt=gt, lte=lte, desc=True, limit=1)
            if not stored:
                return
            snapshot = self._usable(stored[0])
            if snapshot is not None:
                found += 1
                yield cast("DomainEventProtocol[str]", snapshot)
            lte = stored[0].originator_version - 1

    def _usable(self, stored: StoredEvent) -> Snapshot | None:
        if stored.topic != SNAPSHOT_NAME:
            return None
        try:
            snapshot = cast("LedgerMapper", self.mapper).to_snapshot(stored)
        except LedgerDamaged as error:
            place = str(stored.originator_id), stored.originator_version
            self.damaged[place] = str(error)
            return None
        return snapshot if snapshot.fold_version == FOLD_VERSION else None
