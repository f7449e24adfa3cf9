"""
The ledger in one SQLite file: the eventsourcing library's recorders, made durable.

A commit is on the disk when it returns: WAL with `synchronous=FULL`, set and asserted (with NORMAL
a power cut loses acknowledged commits). The file carries an application id and a format version,
so that another file is never taken for a ledger. Rowids are positions: nothing is ever deleted.
A reader leaves no file behind: one that nobody has open is read as it lies there.
Source: FIELD_NOTES.md, Traps: SQLite.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
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

SNAPSHOTS_TABLE: Final = "stored_snapshots"

_SYNCHRONOUS_FULL: Final = 2
_INTEGER_MAX: Final = 2**63 - 1


def check_format(path: Path) -> bool:
    """
    Return whether there is a ledger at the path; an empty file or none at all is not one yet.

    Raises:
        LedgerDamaged: if the file is no SQLite database, another program's, or of a newer format.
    """
    try:
        if not path.exists() or path.stat().st_size == 0:
            return False
        uri = _uri_to_read(path, _rest(path))
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            application_id = _pragma(connection, "application_id")
            version = _pragma(connection, "user_version")
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    except (sqlite3.Error, OSError) as error:
        raise LedgerDamaged(f"{path} can't be read as a ledger: {error}") from error
    if application_id == 0 and version == 0 and tables == 0:
        # Another process is making it at this moment, or was killed while it did.
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
        self._pool = _Pool(path, read_only=read_only)
        self.pool = self._pool

    @contextmanager
    def transaction(self, *, commit: bool) -> Iterator[SQLiteCursor]:
        """
        Give a cursor, in a transaction if it is to be committed.

        The library begins one to read, too; each of our readers asks one question, which SQLite
        answers from one state of the file anyway.
        """
        with self.cursor(is_writer=commit) as cursor:
            if not commit:
                yield cursor
                return
            # Deferred, two that make the same ledger at once could fail instead of waiting.
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                cursor.sqlite_cursor.connection.rollback()
                raise

    @contextmanager
    def cursor(self, *, is_writer: bool) -> Iterator[SQLiteCursor]:
        """Give a cursor of the connection, in which each statement is a transaction by itself."""
        connection = self.pool.get_connection(is_writer=is_writer)
        try:
            with connection.cursor() as sqlite_cursor:
                yield SQLiteCursor(sqlite_cursor)
            self._pool.check_unchanged()
        finally:
            self.pool.put_connection(connection)


class _Pool(SQLiteConnectionPool):
    """
    The pool of one connection.

    Attributes:
        _rest: what the file looked like when it was opened as one that nobody writes; None if
            it was opened as one that somebody may write.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        super().__init__(
            db_name=path.name, lock_timeout=LOCK_TIMEOUT_SEC, pool_size=1, max_overflow=0
        )
        self._path = path.resolve()
        self._read_only = read_only
        self._rest: _Rest | None = None

    def get_connection(
        self, timeout: float | None = None, *, is_writer: bool | None = None
    ) -> SQLiteConnection:
        """Return the connection; a new one if the file isn't any more as the old one takes it."""
        connection = super().get_connection(timeout, is_writer=is_writer)
        if self._rest is None or self._rest == _rest(self._path):
            return connection
        connection.close()
        self.put_connection(connection)
        return super().get_connection(timeout, is_writer=is_writer)

    def check_unchanged(self) -> None:
        """Raise CannotTell if a file that was read as one nobody writes was written."""
        if self._rest is not None and _stat(self._path) != self._rest:
            raise CannotTell(f"{self._path} was written while it was read; read it again")

    def _create_connection(self) -> SQLiteConnection:
        self._rest = _rest(self._path) if self._read_only else None
        # The library's connections keep one prepared statement (`cached_statements=True`), and
        # read-only ones would be set to WAL.
        connection = sqlite3.connect(
            _uri_to_read(self._path, self._rest) if self._read_only else _uri(self._path, "rwc"),
            uri=True,
            timeout=LOCK_TIMEOUT_SEC,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.row_factory = sqlite3.Row
        if not self._read_only:
            self._make_durable(connection)
        return SQLiteConnection(connection, max_age=None)

    def _make_durable(self, connection: sqlite3.Connection) -> None:
        for pragma in ("journal_mode=WAL", f"synchronous={_SYNCHRONOUS_FULL}"):
            connection.execute(f"PRAGMA {pragma}")
        found = [_pragma(connection, name) for name in ("journal_mode", "synchronous")]
        if found != ["wal", _SYNCHRONOUS_FULL]:
            raise LedgerDamaged(
                f"{self._path}: expected journal_mode wal and synchronous {_SYNCHRONOUS_FULL} "
                f"(FULL), was {found}; put the ledger on a local disk that can do WAL"
            )


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
        """Return a stream's events in order of version; rows by place are quicker than by name."""
        statement = (
            f"SELECT originator_id, originator_version, topic, state FROM {self.events_table_name} "
            "WHERE originator_id=? AND originator_version>? AND originator_version<=? "
            f"ORDER BY originator_version {'DESC' if desc else 'ASC'} LIMIT ?"
        )
        bounds = (0 if gt is None else gt, _INTEGER_MAX if lte is None else lte)
        with self.datastore.transaction(commit=False) as cursor:
            cursor.sqlite_cursor.row_factory = None
            cursor.execute(statement, (originator_id, *bounds, -1 if limit is None else limit))
            return [StoredEvent(*row) for row in cursor.fetchall()]

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


_Rest = tuple[int, int, int]
"""A file's inode, size and time of change: another if it was written."""


def _rest(path: Path) -> _Rest | None:
    """Return the file's looks if nobody has it open for writing; None if somebody may have."""
    path = path.resolve()
    try:
        # Whoever writes has a log beside the file; an empty one is left behind by readers.
        is_written = path.with_name(path.name + "-wal").stat().st_size > 0
    except FileNotFoundError:
        is_written = False
    return None if is_written else _stat(path)


def _stat(path: Path) -> _Rest:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _uri_to_read(path: Path, rest: _Rest | None) -> str:
    """
    Return the URI to read a ledger by.

    To read in WAL mode SQLite makes files beside the ledger: impossible in a folder that can't be
    written, and made in another user's name an obstacle to the runner. Nor are they needed for a
    file that nobody writes.
    """
    return _uri(path, "ro" if rest is None else "ro&immutable=1")


def _uri(path: Path, mode: str) -> str:
    return f"{path.resolve().as_uri()}?mode={mode}"


def _pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]
