"""
Logs beside the streams: what a projection has to remember for good, in the ledger's own file.

A projection that acts on the world, such as one that sends messages, must know after a kill what
it did. What it did is no decision of a controller, so that it isn't in a stream: it has no
position, nobody who follows or replays the ledger meets it, and no fold knows it. A log has a table
of its own, made when it is first written, and an older program passes it by. DECISIONS.md 56.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Generic, TypeVar, cast

import msgspec
from eventsourcing.persistence import IntegrityError, PersistenceError, StoredEvent
from eventsourcing.sqlite import SQLiteAggregateRecorder

from domain.errors import AnotherWriter, LedgerDamaged
from ledger.application import Ledger
from ledger.sqlite import LedgerRecorder

READ_BATCH: Final = 500

_Entry = TypeVar("_Entry", bound=msgspec.Struct)


class SideLog(Generic[_Entry]):
    """
    One projection's log of one stream, read and written through the ledger's one connection.

    Args:
        purpose: names the table, `stored_PURPOSE`.
        names: by type of entry, the name and version that it is written under, as events are.
    """

    def __init__(
        self, ledger: Ledger, stream_id: str, purpose: str, names: Mapping[type[_Entry], str]
    ) -> None:
        self._ledger = ledger
        self._stream_id = stream_id
        self._names = names
        self._kinds = {name: kind for kind, name in names.items()}
        datastore = cast("LedgerRecorder", ledger.recorder).datastore
        self._recorder = SQLiteAggregateRecorder(datastore, f"stored_{purpose}")
        with self._told_as_damage():
            self._is_made = self._is_there()
            self._version = self._last_version() if self._is_made else 0

    def append(self, entries: Sequence[_Entry]) -> None:
        """
        Append the entries, all or none; when this returns they are on the disk.

        Raises:
            AnotherWriter: if the log has grown since it was read.
            LedgerDamaged: if the store can't be written.
        """
        if not entries:
            return
        stored = [
            StoredEvent(
                self._stream_id,
                self._version + offset,
                self._names[type(entry)],
                msgspec.json.encode(entry),
            )
            for offset, entry in enumerate(entries, start=1)
        ]
        with self._told_as_damage():
            if not self._is_made:
                self._recorder.create_table()
                self._is_made = True
            try:
                self._recorder.insert_events(stored)
            except (IntegrityError, sqlite3.IntegrityError) as error:
                raise AnotherWriter(
                    f"another runner has written beside {self._stream_id} in "
                    f"{self._ledger.location}; this one stops. One runner per env and exchange."
                ) from error
        self._version += len(stored)

    def entries(self) -> list[_Entry]:
        """Return all entries, in order."""
        return list(reversed(list(self.backwards())))

    def backwards(self) -> Iterator[_Entry]:
        """
        Yield the entries from the last one on, in batches.

        Raises:
            LedgerDamaged: if one doesn't decode, or was written by a newer version.
        """
        last = self._version if self._is_made else 0
        while last > 0:
            with self._told_as_damage():
                stored = self._recorder.select_events(
                    self._stream_id, lte=last, desc=True, limit=READ_BATCH
                )
            yield from map(self._decode, stored)
            last = stored[-1].originator_version - 1 if stored else 0

    def _decode(self, stored: StoredEvent) -> _Entry:
        kind = self._kinds.get(stored.topic)
        place = f"beside stream {self._stream_id}, entry {stored.originator_version}"
        if kind is None:
            raise LedgerDamaged(
                f"{place}: unknown entry {stored.topic!r}; was it written by a newer version?"
            )
        try:
            return msgspec.json.decode(stored.state, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
            raise LedgerDamaged(f"{place}: {stored.topic} does not decode: {error}") from error

    def _is_there(self) -> bool:
        with self._recorder.datastore.transaction(commit=False) as cursor:
            cursor.execute(
                "SELECT 1 FROM sqlite_master WHERE type='table' AND name=?",
                (self._recorder.events_table_name,),
            )
            return cursor.fetchone() is not None

    def _last_version(self) -> int:
        found = self._recorder.select_events(self._stream_id, desc=True, limit=1)
        return found[0].originator_version if found else 0

    @contextmanager
    def _told_as_damage(self) -> Iterator[None]:
        try:
            yield
        except (PersistenceError, sqlite3.Error, OSError) as error:
            raise LedgerDamaged(
                f"the ledger {self._ledger.location} can't be read or written: {error}"
            ) from error
