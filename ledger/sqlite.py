"""
The ledger in one SQLite file: the eventsourcing library's recorders, made durable.

A commit is on the disk when it returns: WAL with `synchronous=FULL`, set and asserted (with NORMAL
a power cut loses acknowledged commits). The file carries an application id and a format version,
so that another file is never taken for a ledger. Rowids are positions: nothing is ever deleted.
Source: FIELD_NOTES.md, Traps: SQLite.
"""

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from eventsourcing.persistence import AggregateRecorder, Notification, StoredEvent, Subscription
from eventsourcing.sqlite import (
    SQLiteAggregateRecorder,
    SQLiteApplicationRecorder,
    SQLiteConnection,
    SQLiteConnectionPool,
    SQLiteCursor,
    SQLiteDatastore,
    SQLiteFactory,
)

from domain.errors import CannotTell, LedgerDamaged

APPLICATION_ID: Final = 0x4C495645
"""`LIVE` in ASCII, in the SQLite header's application id."""

FORMAT_VERSION: Final = 1
LOCK_TIMEOUT_SEC: Final = 5
FOLLOW_POLL_SEC: Final = 0.1
FOLLOW_BATCH: Final = 500

_SYNCHRONOUS_FULL: Final = 2


def check_format(path: Path, *, read_only: bool) -> bool:
    """
    Return whether there is a ledger at the path; an empty file or none at all is not one yet.

    Raises:
        LedgerDamaged: if the file is no SQLite database, another program's, or of a newer format.
    """
    try:
        if not path.exists() or path.stat().st_size == 0:
            return False
        connection = sqlite3.connect(_uri(path, read_only=True), uri=True)
        try:
            application_id = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        finally:
            connection.close()
    except (sqlite3.Error, OSError) as error:
        raise LedgerDamaged(f"{path} can't be read as a ledger: {error}") from error
    if application_id == 0 and version == 0 and tables == 0 and not read_only:
        return False
    if application_id != APPLICATION_ID:
        raise LedgerDamaged(f"{path} is a database, but not a ledger of Live Ledger")
    if version > FORMAT_VERSION:
        raise LedgerDamaged(
            f"{path} has format version {version}, this program knows up to {FORMAT_VERSION}; "
            "use the newer version of Live Ledger that wrote it"
        )
    return True


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


class LedgerDatastore(SQLiteDatastore):
    """One file, one connection: with a single writing connection WAL has no known fault."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        super().__init__(":memory:", originator_id_type="text")
        self.pool.close()
        self.pool = _Pool(path, read_only=read_only)


class _Pool(SQLiteConnectionPool):
    def __init__(self, path: Path, *, read_only: bool) -> None:
        super().__init__(
            db_name=_uri(path, read_only=read_only),
            lock_timeout=LOCK_TIMEOUT_SEC,
            pool_size=1,
            max_overflow=0,
        )
        self._path = path
        self._read_only = read_only
        # The library would set WAL by itself, on a read-only connection too.
        self.is_journal_mode_wal = True

    def _create_connection(self) -> SQLiteConnection:
        connection = super()._create_connection()
        if not self._read_only:
            cursor = connection.cursor()
            for pragma in ("journal_mode=WAL", "synchronous=FULL"):
                cursor.execute(f"PRAGMA {pragma}")
            found = [_pragma(cursor, name) for name in ("journal_mode", "synchronous")]
            if found != ["wal", _SYNCHRONOUS_FULL]:
                raise LedgerDamaged(
                    f"{self._path}: expected journal_mode wal and synchronous {_SYNCHRONOUS_FULL} "
                    f"(FULL), was {found}; put the ledger on a local disk that can do WAL"
                )
        return connection


class LedgerRecorder(SQLiteApplicationRecorder):
    """The library's application recorder, with what it lacks on SQLite: streams, following."""

    def create_table(self) -> None:
        """Create what isn't there, and stamp the file as a ledger."""
        with self.datastore.transaction(commit=True) as cursor:
            self._create_table(cursor)
            cursor.execute(f"PRAGMA application_id={APPLICATION_ID}")
            cursor.execute(f"PRAGMA user_version={FORMAT_VERSION}")

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


class SnapshotRecorder(SQLiteAggregateRecorder):
    """Snapshots are a cache: a newer one of the same version takes the old one's place."""

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
            c.execute(
                f"DELETE FROM {self.events_table_name} "
                "WHERE originator_id=? AND originator_version<?",
                (stored.originator_id, stored.originator_version),
            )
        return inserted


class LedgerFactory(SQLiteFactory):
    """Makes the recorders over one file; configured by arguments, never by the environment."""

    application_recorder_class = LedgerRecorder

    def __init__(self, path: Path, *, read_only: bool) -> None:
        super().__init__({"SQLITE_DBNAME": ":memory:", "ORIGINATOR_ID_TYPE": "text"})
        self.datastore.close()
        if not check_format(path, read_only=read_only) and read_only:
            raise CannotTell(f"there is no ledger at {path}, or nothing in it yet")
        self.datastore = LedgerDatastore(path, read_only=read_only)
        self._read_only = read_only

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """Return the recorder of snapshots."""
        recorder = SnapshotRecorder(self.datastore, f"stored_{purpose}")
        if self.env_create_table():
            recorder.create_table()
        return recorder

    def env_create_table(self) -> bool:
        """Return whether missing tables are made."""
        return not self._read_only

    def is_snapshotting_enabled(self) -> bool:
        """Return True: every ledger has snapshots."""
        return True


def _uri(path: Path, *, read_only: bool) -> str:
    return f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rwc'}"


def _pragma(cursor: SQLiteCursor, name: str) -> Any:
    cursor.execute(f"PRAGMA {name}")
    return cursor.fetchone()[0]
