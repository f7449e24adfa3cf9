"""
Events to bytes and back: stable, versioned names; no Python paths, no pickles.

A stored event is JSON, `{"decided_at_ms": ..., "root": ..., "event": {...}}`, under a name such as
`kpi_observed.v1`. When an event's meaning changes, its name gets a new version and an upcast from
the version before; the old bytes are never rewritten. Source: DESIGN.md section 2, Aggregate.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import Mapper, StoredEvent

from domain.errors import BadInput, LedgerDamaged
from domain.events import (
    ClockFault,
    Event,
    ExternalWriteDetected,
    GapObserved,
    KpiObserved,
    LateWindowObserved,
    OverrideApplied,
    OverrideEnded,
    PolicyAdopted,
    RunStarted,
    RunStopped,
    StateTransitioned,
    SymbolThrottleChanged,
    TradedWhileFrozen,
)
from domain.kpis import Verdict
from domain.state import FOLD_VERSION, State

EVENT_NAMES: Final[Mapping[type, str]] = {
    RunStarted: "run_started.v1",
    PolicyAdopted: "policy_adopted.v1",
    KpiObserved: "kpi_observed.v1",
    StateTransitioned: "state_transitioned.v1",
    SymbolThrottleChanged: "symbol_throttle_changed.v1",
    GapObserved: "gap_observed.v1",
    LateWindowObserved: "late_window_observed.v1",
    ClockFault: "clock_fault.v1",
    OverrideApplied: "override_applied.v1",
    OverrideEnded: "override_ended.v1",
    ExternalWriteDetected: "external_write_detected.v1",
    TradedWhileFrozen: "traded_while_frozen.v1",
    RunStopped: "run_stopped.v1",
}
"""The name and version that each event is written under."""

Upcast = tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]

UPCASTS: Final[Mapping[str, Upcast]] = {}
"""By old name: the next version's name, and what makes its fields from the old ones."""

SNAPSHOT_NAME: Final = "state_snapshot.v2"

_NULL: Final = b"null"

Row = tuple[str, int, str, bytes]
"""A stored event as it lies in the store: stream, version, name, bytes."""

_T = TypeVar("_T")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """
    An event in its place: what `Ledger` reads and writes.

    Attributes:
        stream, version: where it stands; versions count from 1 without a gap.
        event: what happened.
        decided_at_ms: the wall clock then; no decision and no artifact reads it.
        root: the Merkle root of the stream before this event, once there is one.
        position: where it stands among the events of all streams; None before it is written.
    """

    stream: str
    version: int
    event: Event
    decided_at_ms: int | None = None
    root: str | None = None
    position: int | None = None

    @property
    def originator_id(self) -> str:
        """The library's word for `stream`."""
        return self.stream

    @property
    def originator_version(self) -> int:
        """The library's word for `version`."""
        return self.version


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The fold of a stream up to a version, by one version of the fold."""

    stream: str
    version: int
    fold_version: int
    state: State

    @property
    def originator_id(self) -> str:
        """The library's word for `stream`."""
        return self.stream

    @property
    def originator_version(self) -> int:
        """The library's word for `version`."""
        return self.version


class Superseded(msgspec.Struct, frozen=True):
    """
    So many observed windows in a row, up to a version, that were OK and that another one follows.

    The next window overwrites all that an OK one leaves behind, except that it was counted.
    """

    stream: str
    version: int
    windows: int

    @property
    def originator_id(self) -> str:
        """The library's word for `stream`."""
        return self.stream

    @property
    def originator_version(self) -> int:
        """The library's word for `version`."""
        return self.version


class _Glance(msgspec.Struct, frozen=True):
    """All of an observation that a fold needs to know if another one follows."""

    verdict: Verdict


class _Envelope(msgspec.Struct, Generic[_T], frozen=True, omit_defaults=True):
    """What is stored of a record beside its place and name."""

    event: _T
    decided_at_ms: int | None = None
    root: str | None = None


class _StoredSnapshot(msgspec.Struct, frozen=True):
    """A snapshot with the digest of its own bytes and place: one that was edited is no snapshot."""

    fold_version: int
    state: msgspec.Raw
    digest: str = ""


class LedgerMapper(Mapper[str]):
    """
    The eventsourcing library's mapper, with names and upcasts of our own.

    Raises:
        LedgerDamaged: if stored bytes don't decode, naming stream, version and event.
    """

    def __init__(
        self,
        names: Mapping[type, str] = EVENT_NAMES,
        upcasts: Mapping[str, Upcast] = UPCASTS,
    ) -> None:
        self._names = names
        self._upcasts = upcasts
        self._decoders = {
            name: msgspec.json.Decoder(_Envelope[event_type])  # type: ignore[valid-type]
            for event_type, name in names.items()
        }
        self._encoder = msgspec.json.Encoder()
        self._observed = names.get(KpiObserved)
        self._glance = msgspec.json.Decoder(_Envelope[_Glance])

    def to_stored_event(self, domain_event: DomainEventProtocol[str]) -> StoredEvent:
        """Return the record or snapshot as the row that is stored."""
        if isinstance(domain_event, Record):
            return self.to_stored(domain_event)
        if not isinstance(domain_event, Snapshot):
            raise TypeError(f"expected a Record or a Snapshot, was {type(domain_event).__name__}")
        state = msgspec.Raw(self._encoder.encode(domain_event.state))
        digest = _digest(domain_event.stream, domain_event.version, bytes(state))
        stored = self._encoder.encode(_StoredSnapshot(domain_event.fold_version, state, digest))
        return StoredEvent(domain_event.stream, domain_event.version, SNAPSHOT_NAME, stored)

    def to_stored(self, record: Record) -> StoredEvent:
        """
        Return the record as the row that is stored.

        Raises:
            BadInput: if the event would be read back as another one, or not at all.
        """
        name = self._names[type(record.event)]
        try:
            stored = self._encoder.encode(
                _Envelope(record.event, record.decided_at_ms, record.root)
            )
        except (ValueError, OverflowError) as error:
            raise BadInput(f"{name} of stream {record.stream} can't be stored: {error}") from error
        row = StoredEvent(record.stream, record.version, name, stored)
        # JSON has no number that isn't finite: it would become null, which nobody could read.
        if _NULL in stored:
            self._check_readable(record, row)
        return row

    def _check_readable(self, record: Record, row: StoredEvent) -> None:
        problem = "it holds a number that isn't finite"
        try:
            if self.to_record(row).event == record.event:
                return
        except LedgerDamaged as error:
            problem = str(error)
        raise BadInput(f"{row.topic} of stream {record.stream} can't be stored: {problem}")

    def to_domain_event(self, stored_event: StoredEvent) -> DomainEventProtocol[str]:
        """Return the record or snapshot that a stored row holds."""
        if stored_event.topic == SNAPSHOT_NAME:
            return self.to_snapshot(stored_event)
        return self.to_record(stored_event)

    def to_record(self, stored_event: StoredEvent) -> Record:
        """Return the record that a stored row holds, upcast to the event's newest version."""
        name = stored_event.topic
        try:
            decoder = self._decoders.get(name)
            if decoder is None:
                envelope = self._upcast(name, stored_event.state)
            else:
                envelope = decoder.decode(stored_event.state)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, KeyError) as error:
            raise LedgerDamaged(f"{_place(stored_event)} does not decode: {error}") from error
        return Record(
            stream=str(stored_event.originator_id),
            version=stored_event.originator_version,
            event=envelope.event,
            decided_at_ms=envelope.decided_at_ms,
            root=envelope.root,
            position=getattr(stored_event, "id", None),
        )

    def names_of(self, kinds: Sequence[type]) -> list[str]:
        """Return every name that events of these kinds may be stored under."""
        names = {self._names[kind] for kind in kinds}
        while older := {old for old, (new, _) in self._upcasts.items() if new in names} - names:
            names |= older
        return sorted(names)

    def is_superseded(self, row: Row, following: Row) -> bool:
        """
        Return whether the row is one of `Superseded`, given the next row of its stream.

        This is several times as quick as decoding it, and notices only bytes that are no JSON.
        """
        if not row[2] == following[2] == self._observed or following[1] != row[1] + 1:
            return False
        try:
            verdict = self._glance.decode(row[3]).event.verdict
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
            raise LedgerDamaged(f"{_place(StoredEvent(*row))} does not decode: {error}") from error
        return verdict is Verdict.OK

    def _upcast(self, name: str, stored: bytes) -> Any:
        """Return an old event's envelope with its fields brought up version by version."""
        if name not in self._upcasts:
            raise ValueError(f"unknown event {name!r}; was it written by a newer version?")
        fields = msgspec.json.decode(stored, type=_Envelope[dict[str, Any]])
        event = fields.event
        while name in self._upcasts:
            name, upcast = self._upcasts[name]
            event = upcast(event)
        newest = next(kind for kind, known in self._names.items() if known == name)
        return _Envelope(msgspec.convert(event, newest), fields.decided_at_ms, fields.root)

    def to_snapshot(self, stored_event: StoredEvent) -> Snapshot:
        """Return the snapshot that a stored row holds; one of another fold's has no state."""
        stream, version = str(stored_event.originator_id), stored_event.originator_version
        try:
            stored = msgspec.json.decode(stored_event.state, type=_StoredSnapshot)
            known = stored.fold_version == FOLD_VERSION
            state = msgspec.json.decode(stored.state, type=State) if known else State()
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
            raise LedgerDamaged(f"{_place(stored_event)} does not decode: {error}") from error
        if known and stored.digest != _digest(stream, version, bytes(stored.state)):
            raise LedgerDamaged(f"{_place(stored_event)} has another digest than its own")
        return Snapshot(
            stream=stream,
            version=version,
            fold_version=stored.fold_version,
            state=state,
        )


def _digest(stream: str, version: int, state: bytes) -> str:
    place = f"{stream} {version} ".encode()
    return hashlib.blake2b(place + state, digest_size=16).hexdigest()


def _place(stored_event: StoredEvent) -> str:
    return (
        f"stream {stored_event.originator_id}, version {stored_event.originator_version}: "
        f"{stored_event.topic}"
    )
