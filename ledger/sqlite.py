"""
The ledger in one SQLite file: the eventsourcing library's recorders, with what they lack.

Rowids are positions: no event is ever deleted. How the file is opened and made
durable is in `ledger.sqlite_file`.
"""

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    IntegrityError,
    Notification,
    StoredEvent,
    Subscription,
)
from eventsourcing.sqlite import (
    SQLiteApplicationRecorder,
    SQLiteFactory,
)

from domain.errors import CannotTell, LedgerDamaged
from ledger.codec import Row
from ledger.snapshots import SnapshotRecorder
from ledger.sqlite_file import APPLICATION_ID, FORMAT_VERSION, LedgerDatastore, check_format

FOLLOW_POLL_SEC: Final = 0.1
FOLLOW_BATCH: Final = 500

SNAPSHOTS_TABLE: Final = "stored_snapshots"

_INTEGER_MAX: Final = 2**63 - 1


def remove_ledger(path: Path) -> None:
    """
    Remove a ledger that is made anew each time, with what SQLite keeps beside it.

    Raises:
        LedgerDamaged: if it can't be removed.
    """
    for suffix in ("", "-wal", "-shm"):
        try:
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        except OSError as error:
            raise LedgerDamaged(f"{path} can't be made anew: {error.strerror}") from error


class LedgerRecorder(SQLiteApplicationRecorder):
    """The library's application recorder, with what it lacks on SQLite: streams, following."""

    def create_table(self) -> None:
        """Create what isn't there, and stamp the file as a ledger."""
        snapshots = SnapshotRecorder(self.datastore, SNAPSHOTS_TABLE)
        with self.datastore.transaction(commit=True) as cursor:
            # All or nothing: a reader must not meet a ledger without its table of snapshots.
            self._create_table(cursor)
            snapshots._create_table(cursor)
            cursor.execute(f"PRAGMA application_id={APPLICATION_ID}")
            cursor.execute(f"PRAGMA user_version={FORMAT_VERSION}")

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int]:
        """
        Insert the events, all or none; when this returns they are on the disk.

        Returns:
            Their positions.

        Raises:
            IntegrityError: if the store has one of the versions already.
        """
        del kwargs  # The library's word for what a tracking recorder also writes; this is none.
        rows = [
            (stored.originator_id, stored.originator_version, stored.topic, stored.state)
            for stored in stored_events
        ]
        # A window is mostly one event, and one statement is a transaction by itself.
        alone = len(rows) == 1
        datastore = cast("LedgerDatastore", self.datastore)
        begin = datastore.cursor(is_writer=True) if alone else datastore.transaction(commit=True)
        try:
            with begin as cursor:
                last = 0
                for row in rows:
                    cursor.execute(self.insert_events_statement, row)
                    last = cursor.lastrowid
        except sqlite3.IntegrityError as error:
            raise IntegrityError(error) from error
        return range(last - len(rows) + 1, last + 1)

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Return a stream's events in order of version."""
        rows = self.select_rows(originator_id, gt=gt, lte=lte, desc=desc, limit=limit)
        return [StoredEvent(*row) for row in rows]

    def select_rows(
        self,
        stream: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> list[Row]:
        """Return a stream's events as they lie in the store, in order of version."""
        statement = (
            f"SELECT originator_id, originator_version, topic, state FROM {self.events_table_name} "
            "WHERE originator_id=? AND originator_version>? AND originator_version<=? "
            f"ORDER BY originator_version {'DESC' if desc else 'ASC'} LIMIT ?"
        )
        bounds = (0 if gt is None else gt, _INTEGER_MAX if lte is None else lte)
        with self.datastore.transaction(commit=False) as cursor:
            cursor.sqlite_cursor.row_factory = None
            cursor.execute(statement, (stream, *bounds, -1 if limit is None else limit))
            return cast("list[Row]", cursor.fetchall())

    def select_placed(
        self,
        stream: str,
        *,
        gt: int,
        lte: int | None,
        topics: Sequence[str],
        desc: bool,
        limit: int,
    ) -> list[Notification]:
        """Return a stream's events with their positions, of some names or all, by version."""
        named = f"AND topic IN ({','.join('?' * len(topics))}) " if topics else ""
        statement = (
            "SELECT rowid, originator_id, originator_version, topic, state "
            f"FROM {self.events_table_name} "
            f"WHERE originator_id=? AND originator_version>? AND originator_version<=? {named}"
            f"ORDER BY originator_version {'DESC' if desc else 'ASC'} LIMIT ?"
        )
        bounds = (stream, gt, _INTEGER_MAX if lte is None else lte)
        with self.datastore.transaction(commit=False) as cursor:
            cursor.sqlite_cursor.row_factory = None
            cursor.execute(statement, (*bounds, *topics, limit))
            rows = cast("list[tuple[int, str, int, str, bytes]]", cursor.fetchall())
        return [
            Notification(stream_id, version, topic, state, id=position)
            for position, stream_id, version, topic, state in rows
        ]

    def select_streams(self) -> list[str]:
        """Return the ids of all streams, in order; a step of the index for each."""
        next_id = f"SELECT min(originator_id) FROM {self.events_table_name}"
        statement = (
            f"WITH RECURSIVE ids(id) AS ({next_id} UNION ALL "
            f"SELECT ({next_id} WHERE originator_id > ids.id) FROM ids WHERE ids.id IS NOT NULL) "
            "SELECT id FROM ids WHERE id IS NOT NULL"
        )
        with self.datastore.transaction(commit=False) as cursor:
            cursor.execute(statement)
            return [row["id"] for row in cursor.fetchall()]

    def select_last(self, stream: str) -> tuple[int, int]:
        """Return the last version of the stream and its position; zeros if there is none."""
        with self.datastore.transaction(commit=False) as cursor:
            cursor.execute(
                f"SELECT originator_version, rowid FROM {self.events_table_name} "
                "WHERE originator_id=? ORDER BY originator_version DESC LIMIT 1",
                (stream,),
            )
            row = cursor.fetchone()
        return (0, 0) if row is None else (row["originator_version"], row["rowid"])

    def select_position(self, stream: str, version: int) -> int:
        """Return the position of one event of the stream; 0 if there is none."""
        with self.datastore.transaction(commit=False) as cursor:
            cursor.execute(
                f"SELECT rowid FROM {self.events_table_name} "
                "WHERE originator_id=? AND originator_version=?",
                (stream, version),
            )
            row = cursor.fetchone()
        return 0 if row is None else row["rowid"]

    def max_notification_id(self) -> int:
        """Return the last position; 0 if there is none."""
        return super().max_notification_id() or 0

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> "PollingSubscription":
        """Return an iterator over the events after a position that waits for those to come."""
        return PollingSubscription(self, gt, topics)


class PollingSubscription(Subscription[LedgerRecorder]):
    """Follows a ledger that another process may be writing, by asking it again."""

    def __init__(
        self, recorder: LedgerRecorder, gt: int | None, topics: Sequence[str] = ()
    ) -> None:
        super().__init__(recorder, gt, topics)
        self._batch: list[Notification] = []

    def __next__(self) -> Notification:
        """Return the next event, waiting for it; the iteration ends after `stop`."""
        while not self._batch:
            if self._has_been_stopped:
                raise StopIteration
            batch = self._recorder.select_notifications(
                self._last_notification_id,
                FOLLOW_BATCH,
                topics=self._topics,
                inclusive_of_start=False,
            )
            self._batch = list(reversed(batch))
            if not batch:
                time.sleep(FOLLOW_POLL_SEC)
        notification = self._batch.pop()
        self._last_notification_id = notification.id
        return notification


class LedgerFactory(SQLiteFactory):
    """Makes the recorders over one file; configured by arguments, never by the environment."""

    application_recorder_class = LedgerRecorder

    def __init__(self, path: Path, *, read_only: bool) -> None:
        super().__init__({"SQLITE_DBNAME": ":memory:", "ORIGINATOR_ID_TYPE": "text"})
        self.datastore.close()
        self._is_new = not check_format(path)
        if self._is_new and read_only:
            raise CannotTell(f"there is no ledger at {path}, or nothing in it yet")
        self.datastore = LedgerDatastore(path, read_only=read_only)

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """Return the recorder of snapshots; its table was made with that of the events."""
        return SnapshotRecorder(self.datastore, f"stored_{purpose}")

    def env_create_table(self) -> bool:
        """Return whether the tables are to be made."""
        return self._is_new

    def is_snapshotting_enabled(self) -> bool:
        """Return True: every ledger has snapshots."""
        return True
