"""
The ledger: an application of the eventsourcing library over one store.

A window's events are one atomic, durable append. An append that meets another writer's fails with
`AnotherWriter`, and is never tried again blindly. Reading never changes anything.
Source: DESIGN.md section 2, Aggregate.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import msgspec
from eventsourcing.application import AggregateNotFoundError, Application, Repository
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import (
    EventStore,
    InfrastructureFactory,
    IntegrityError,
    Mapper,
    Notification,
    PersistenceError,
)
from eventsourcing.utils import Environment, EnvType
from msgspec.structs import replace

from domain.controller import evolve
from domain.errors import AnotherWriter, LedgerDamaged
from domain.events import Event
from domain.state import FOLD_VERSION, State
from ledger.codec import LedgerMapper, Record, Snapshot, Superseded
from ledger.event_stores import READ_BATCH, BatchedEventStore, EventsToFold
from ledger.location import LedgerLocation
from ledger.snapshots import SNAPSHOT_EVERY_VERSIONS, FoldSnapshots
from ledger.sqlite import LedgerFactory, LedgerRecorder


class StreamState(msgspec.Struct, frozen=True):
    """A stream folded: its id, the last version that the fold has seen, and the state."""

    id: str
    version: int = 0
    state: State = State()


class Ledger(Application[str]):
    """
    The event store that everything else is derived from.

    Use as a context manager. `Ledger.open` is how one comes by it.
    """

    def __init__(self, location: LedgerLocation, *, read_only: bool = False) -> None:
        self.location = location
        self._read_only = read_only
        self._appended = ("", 0, 0)
        with self._told_as_damage():
            super().__init__()
            self._file = location.path.stat().st_ino

    @classmethod
    def open(cls, location: LedgerLocation, *, read_only: bool = False) -> "Ledger":
        """
        Return the ledger at a location, made if it isn't there and isn't only to be read.

        Raises:
            CannotTell: if it is only to be read, and isn't there.
            LedgerDamaged: if it can't be opened as a ledger.
        """
        return cls(location, read_only=read_only)

    def append(
        self, stream: StreamState, events: Sequence[Event], *, decided_at_ms: int | None
    ) -> StreamState:
        """
        Append the events after the stream's version, all or none, and return the stream then.

        When this returns, the events are on the disk.

        Raises:
            AnotherWriter: if the stream has grown since it was read.
            LedgerDamaged: if the store can't be written.
            BadInput: if an event holds what can't be stored, such as a number that isn't finite.
        """
        records = [
            Record(
                stream=stream.id,
                version=stream.version + offset,
                event=event,
                decided_at_ms=decided_at_ms,
            )
            for offset, event in enumerate(events, start=1)
        ]
        if not records:
            return stream
        stored = [self._mapper.to_stored(record) for record in records]
        with self._told_as_damage():
            self._check_in_place()
            try:
                positions = self._recorder.insert_events(stored)
            except IntegrityError as error:
                raise AnotherWriter(
                    f"another runner has written to {stream.id} in {self.location} since version "
                    f"{stream.version}; this one stops. One runner per env and exchange."
                ) from error
        stream = project(stream, records)
        self._appended = (stream.id, stream.version, positions[-1])
        return stream

    def stream(self, stream_id: str, *, version: int | None = None) -> StreamState:
        """
        Return the stream folded, up to a version if one is given; empty if it isn't there.

        Raises:
            LedgerDamaged: if an event is missing or doesn't decode, naming its version.
        """
        with self._told_as_damage():
            try:
                stream = cast(
                    "StreamState",
                    self.repository.get(
                        stream_id,
                        version=version,
                        projector_func=cast("Any", _project_from(stream_id)),
                    ),
                )
            except AggregateNotFoundError:
                return StreamState(stream_id)
            if not self._recorder.select_position(stream_id, stream.version):
                last = self._recorder.select_last(stream_id)[0]
                raise LedgerDamaged(
                    f"stream {stream_id}: expected version {stream.version}, of which there is a "
                    f"snapshot, was {last} at the end; events are missing"
                )
            return stream

    def stream_ids(self) -> list[str]:
        """Return the ids of all streams, in order."""
        with self._told_as_damage():
            return self._recorder.select_streams()

    def position(self, stream: StreamState) -> int:
        """Return the position of the last event that the stream's fold has seen."""
        if self._appended[:2] == (stream.id, stream.version):
            return self._appended[2]
        with self._told_as_damage():
            return self._recorder.select_position(stream.id, stream.version)

    def records(
        self, stream_id: str, *, after: int = 0, up_to: int | None = None
    ) -> Iterator[Record]:
        """Yield the stream's records after one version, up to another, in batches."""
        with self._told_as_damage():
            yield from cast("Iterator[Record]", self.events.get(stream_id, gt=after, lte=up_to))

    def placed_records(
        self,
        stream_id: str,
        *,
        after: int = 0,
        up_to: int | None = None,
        kinds: Sequence[type] = (),
        backwards: bool = False,
    ) -> Iterator[Record]:
        """
        Yield the stream's records with their positions, in batches.

        Args:
            after: of the versions after this one,
            up_to: up to this one.
            kinds: only these events; the others aren't even decoded. All if there is none.
            backwards: from the last version on.
        """
        rows = self.placed_rows(
            stream_id, after=after, up_to=up_to, kinds=kinds, backwards=backwards
        )
        with self._told_as_damage():
            yield from map(self._mapper.to_record, rows)

    def placed_rows(
        self,
        stream_id: str,
        *,
        after: int = 0,
        up_to: int | None = None,
        kinds: Sequence[type] = (),
        backwards: bool = False,
    ) -> Iterator[Notification]:
        """Yield the same as `placed_records`, as it is stored."""
        low, high = after, up_to
        while True:
            with self._told_as_damage():
                stored = self._recorder.select_placed(
                    stream_id, gt=low, lte=high, topics=self._mapper.names_of(kinds),
                    desc=backwards, limit=READ_BATCH,
                )  # fmt: skip
            yield from stored
            if len(stored) < READ_BATCH:
                return
            if backwards:
                high = stored[-1].originator_version - 1
            else:
                low = stored[-1].originator_version

    def page(self, stream_id: str, *, after: int, limit: int) -> list[Record]:
        """Return at most so many of the stream's records after a version."""
        with self._told_as_damage():
            stored = self.recorder.select_events(stream_id, gt=after, limit=limit)
            return [self._mapper.to_record(event) for event in stored]

    def records_by_position(self, *, after: int = 0, limit: int = READ_BATCH) -> list[Record]:
        """Return at most so many records of all streams after a position, in its order."""
        with self._told_as_damage():
            stored = self.recorder.select_notifications(after, limit, inclusive_of_start=False)
            return [self._mapper.to_record(event) for event in stored]

    @contextmanager
    def follow(self, *, after: int = 0) -> Iterator[Iterator[Record]]:
        """
        Give an iterator over the records after a position that waits for those to come.

        Leaving the context ends it.
        """
        with self.recorder.subscribe(gt=after) as subscription:
            yield self._told_records(subscription)

    def last_version(self, stream_id: str) -> int:
        """Return the stream's last version in the store; 0 if it isn't there."""
        with self._told_as_damage():
            return self._recorder.select_last(stream_id)[0]

    def take_state_snapshot(self, stream: StreamState) -> None:
        """Store the fold, so that the next start needn't begin at the first event."""
        snapshot = Snapshot(
            stream=stream.id,
            version=stream.version,
            fold_version=FOLD_VERSION,
            state=stream.state,
        )
        with self._told_as_damage():
            self._snapshots.put([cast("DomainEventProtocol[str]", snapshot)])

    def fill_in_snapshots(self, stream_id: str, *, up_to: int) -> Iterator[int]:
        """
        Take the snapshots that whole blocks of versions up to a version lack; yield each's version.

        Each step folds two blocks at most. It is for a ledger whose runs didn't take them: an
        older program's, or one whose snapshots are of another version of the fold.
        """
        for end in range(SNAPSHOT_EVERY_VERSIONS, up_to + 1, SNAPSHOT_EVERY_VERSIONS):
            if self._newest_snapshot(stream_id, up_to=end - 1) < end - SNAPSHOT_EVERY_VERSIONS:
                self.take_state_snapshot(self.stream(stream_id, version=end - 1))
                yield end - 1

    def snapshots_of(self, stream_id: str) -> list[StreamState]:
        """Return the stream at every usable snapshot, in order of version."""
        with self._told_as_damage():
            found = cast("Iterable[Snapshot]", self._snapshots.get(stream_id, desc=True))
            return [StreamState(stream_id, taken.version, taken.state) for taken in found][::-1]

    @property
    def notices(self) -> tuple[str, ...]:
        """What was passed over while reading: damaged snapshots, which cost nothing but time."""
        return tuple(f"{told}; it was ignored" for told in self._snapshots.damaged.values())

    # What the library calls to put the application together.

    def construct_env(self, name: str, env: EnvType | None = None) -> Environment:
        """Return an empty environment: a stray variable must not reconfigure the ledger."""
        del env
        return Environment(name, {})

    def construct_factory(self, env: Environment) -> InfrastructureFactory[Any]:
        """Return the factory for the location's kind of store."""
        del env
        return LedgerFactory(self.location.path, read_only=self._read_only)

    def construct_mapper(self) -> Mapper[str]:
        """Return the mapper with stable names."""
        return LedgerMapper()

    def construct_event_store(self) -> EventStore[str]:
        """Return an event store that reads in batches."""
        return BatchedEventStore(self.mapper, self.recorder)

    def construct_repository(self) -> Repository[str]:
        """Return a repository that folds from the last snapshot on."""
        events = EventsToFold(self.mapper, self.recorder)
        return Repository(events, snapshot_store=self.snapshots)

    def construct_snapshot_store(self) -> EventStore[str]:
        """Return a store that gives only snapshots of this version of the fold."""
        return FoldSnapshots(self._mapper, self.factory.aggregate_recorder(purpose="snapshots"))

    @property
    def _recorder(self) -> LedgerRecorder:
        return cast("LedgerRecorder", self.recorder)

    @property
    def _snapshots(self) -> FoldSnapshots:
        return cast("FoldSnapshots", self.snapshots)

    def _newest_snapshot(self, stream_id: str, *, up_to: int) -> int:
        """Return the version of the newest usable snapshot up to a version; -1 if there is none."""
        with self._told_as_damage():
            found = self._snapshots.get(stream_id, lte=up_to, desc=True, limit=1)
            return next((snapshot.originator_version for snapshot in found), -1)

    @property
    def _mapper(self) -> LedgerMapper:
        return cast("LedgerMapper", self.mapper)

    def _told_records(self, notifications: Iterable[Notification]) -> Iterator[Record]:
        # What goes wrong where the records are used is no damage of the ledger.
        with self._told_as_damage():
            yield from map(self._mapper.to_record, notifications)

    def _check_in_place(self) -> None:
        """Refuse to write into a file that no longer is the ledger: nobody would find it there."""
        if os.stat(self.location.path).st_ino != self._file:  # noqa: PTH116 - on every append
            raise LedgerDamaged(f"the ledger {self.location} was replaced while it was written")

    @contextmanager
    def _told_as_damage(self) -> Iterator[None]:
        """Turn the store's errors into one that names the ledger."""
        try:
            yield
        except (PersistenceError, sqlite3.Error, OSError) as error:
            deed = "read" if self._read_only else "read or written"
            cause = (
                os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
            )
            raise LedgerDamaged(f"the ledger {self.location} can't be {deed}: {cause}") from error


def project(stream: StreamState, records: Iterable[Record | Superseded | Snapshot]) -> StreamState:
    """
    Return the stream with the records folded in: the explicit fold that the library calls.

    Raises:
        LedgerDamaged: if a version is missing or repeated.
    """
    state, version, superseded = stream.state, stream.version, 0
    for record in records:
        if isinstance(record, Snapshot):
            state = record.state
        else:
            windows = record.windows if isinstance(record, Superseded) else 1
            if record.version != version + windows:
                raise LedgerDamaged(
                    f"stream {stream.id}: expected version {version + 1}, was "
                    f"{record.version - windows + 1}; events are missing"
                )
            if isinstance(record, Superseded):
                superseded += windows
            else:
                state = evolve(state, record.event)
        version = record.version
    return StreamState(stream.id, version, _counting(state, superseded))


def _counting(state: State, ok_windows: int) -> State:
    """Return the state with so many more OK windows counted; counts depend on nothing else."""
    if not ok_windows:
        return state
    windows, ok = state.counts.windows + ok_windows, state.counts.ok + ok_windows
    return replace(state, counts=replace(state.counts, windows=windows, ok=ok))


def _project_from(stream_id: str) -> Any:
    """Return the library's projector function for one stream."""

    def projector(
        aggregate: StreamState | None, records: Iterable[Record | Superseded | Snapshot]
    ) -> StreamState | None:
        stream = project(aggregate or StreamState(stream_id), records)
        return stream if stream.version else None

    return projector
