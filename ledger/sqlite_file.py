"""
One SQLite file: whether it is a ledger, and the one connection to it.

A commit is on the disk when it returns: WAL with `synchronous=FULL`, set and asserted (with NORMAL
a power cut loses acknowledged commits). The file carries an application id and a format version,
so that another file is never taken for a ledger. A reader leaves no file behind: a ledger that
nobody has open is read as it lies there. Source: FIELD_NOTES.md, Traps: SQLite.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from eventsourcing.sqlite import (
    SQLiteConnection,
    SQLiteConnectionPool,
    SQLiteCursor,
    SQLiteDatastore,
)

from domain.errors import CannotTell, LedgerDamaged

APPLICATION_ID: Final = 0x4C495645
"""`LIVE` in ASCII, in the SQLite header's application id."""

FORMAT_VERSION: Final = 1
LOCK_TIMEOUT_SEC: Final = 5

_SYNCHRONOUS_FULL: Final = 2
_BUSY_POLL_SEC: Final = 0.005


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
            # In one transaction: another process may be making the ledger at this moment.
            connection.execute("BEGIN")
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
            try:
                self._make_durable(connection)
            except BaseException:
                connection.close()
                raise
        return SQLiteConnection(connection, max_age=None)

    def _make_durable(self, connection: sqlite3.Connection) -> None:
        _set_wal(connection)
        connection.execute(f"PRAGMA synchronous={_SYNCHRONOUS_FULL}")
        found = [_pragma(connection, name) for name in ("journal_mode", "synchronous")]
        if found != ["wal", _SYNCHRONOUS_FULL]:
            raise LedgerDamaged(
                f"{self._path}: expected journal_mode wal and synchronous {_SYNCHRONOUS_FULL} "
                f"(FULL), was {found}; put the ledger on a local disk that can do WAL"
            )


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


def _set_wal(connection: sqlite3.Connection) -> None:
    """Set WAL, waiting for another process that sets it on the same new file."""
    deadline = time.monotonic() + LOCK_TIMEOUT_SEC
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # Two that want to change the mode would wait for each other, so that SQLite, which
            # waits for any other lock, gives up at once.
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_POLL_SEC)
        else:
            return
