"""The machine's limit: a durable commit of the same bytes, by SQLite and nothing else."""

import sqlite3
from pathlib import Path
from typing import Final

from eventsourcing.persistence import StoredEvent

_TABLE: Final = (
    "CREATE TABLE stored_events (originator_id TEXT, originator_version INTEGER, topic TEXT, "
    "state BLOB, PRIMARY KEY (originator_id, originator_version))"
)
_INSERT: Final = "INSERT INTO stored_events VALUES (?,?,?,?)"


class RawCommits:
    """One connection with the ledger's own pragmas and table, one prepared statement."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute(_TABLE)

    def commit(self, rows: list[StoredEvent]) -> None:
        """Insert the rows durably; one row needs no BEGIN."""
        if len(rows) > 1:
            self._connection.execute("BEGIN")
        for row in rows:
            values = (row.originator_id, row.originator_version, row.topic, row.state)
            self._connection.execute(_INSERT, values)
        if len(rows) > 1:
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
