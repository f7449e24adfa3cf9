import dataclasses
import json
import math
from typing import Any, cast, get_args

import msgspec
import pytest
from eventsourcing.persistence import StoredEvent
from hypothesis import given
from ledger_examples import EXAMPLES, ORIGIN_MS, READINGS, readings_at
from ledger_strategies import EVENTS
from pin_events import PINNED_PATH, state_shape

from domain.errors import BadInput, LedgerDamaged
from domain.events import (
    LATENESS_MS,
    Event,
    GapObserved,
    KpiObserved,
    LateWindowObserved,
    OverrideApplied,
    RunStarted,
    RunStopped,
    TradedWhileFrozen,
)
from domain.policy import Policy
from domain.state import FOLD_VERSION, State
from domain.windows import SymbolReadings, content_hash
from ledger.codec import EVENT_NAMES, LedgerMapper, Record, Snapshot

PINNED = json.loads(PINNED_PATH.read_text(encoding="utf-8"))
MAPPER = LedgerMapper()

NAMES = {
    "RunStarted": "run_started.v1",
    "PolicyAdopted": "policy_adopted.v1",
    "KpiObserved": "kpi_observed.v1",
    "StateTransitioned": "state_transitioned.v1",
    "SymbolThrottleChanged": "symbol_throttle_changed.v1",
    "GapObserved": "gap_observed.v1",
    "LateWindowObserved": "late_window_observed.v1",
    "ClockFault": "clock_fault.v1",
    "OverrideApplied": "override_applied.v1",
    "OverrideEnded": "override_ended.v1",
    "ExternalWriteDetected": "external_write_detected.v1",
    "TradedWhileFrozen": "traded_while_frozen.v1",
    "RunStopped": "run_stopped.v1",
}


def record_of(event: Event, version: int = 3) -> Record:
    return Record(stream="dev:bybit", version=version, event=event, decided_at_ms=ORIGIN_MS)


def test_every_event_has_exactly_its_stable_name() -> None:
    assert {kind.__name__: name for kind, name in EVENT_NAMES.items()} == NAMES
    assert set(EVENT_NAMES) == set(get_args(Event)) == set(EXAMPLES)


@pytest.mark.parametrize("kind", EVENT_NAMES, ids=lambda kind: kind.__name__)
def test_an_event_is_written_in_exactly_these_bytes_for_ever(kind: type) -> None:
    stored = MAPPER.to_stored(record_of(EXAMPLES[kind]))
    assert stored.state.decode() == PINNED[stored.topic]
    assert MAPPER.to_record(stored).event == EXAMPLES[kind]


@pytest.mark.parametrize("kind", EVENT_NAMES, ids=lambda kind: kind.__name__)
def test_what_is_stored_names_no_python_class_or_module(kind: type) -> None:
    stored = MAPPER.to_stored(record_of(EXAMPLES[kind]))
    for name in (kind.__name__, "domain.", "ledger.", "eventsourcing", "Struct", "__"):
        assert name.encode() not in stored.state
        assert name not in stored.topic


def test_every_field_of_every_event_is_in_the_pinned_examples() -> None:
    for kind in EXAMPLES:
        written = json.loads(PINNED[EVENT_NAMES[kind]])["event"]
        assert set(written) == set(cast("Any", kind).__struct_fields__)


def test_a_run_that_recorded_no_lateness_was_told_the_default() -> None:
    before = PINNED["run_started.v1 without lateness_ms"].encode()
    stored = MAPPER.to_stored(record_of(EXAMPLES[RunStarted]))
    record = MAPPER.to_record(dataclasses.replace(stored, state=before))
    assert isinstance(record.event, RunStarted)
    assert record.event.lateness_ms == LATENESS_MS == 2_000
    assert msgspec.structs.replace(record.event, lateness_ms=3_000) == EXAMPLES[RunStarted]


@given(EVENTS)
def test_any_event_is_read_back_as_it_was(event: Event) -> None:
    stored = MAPPER.to_stored(record_of(event))
    record = MAPPER.to_record(stored)
    assert record == record_of(event)
    assert MAPPER.to_stored(record) == stored


def test_the_merkle_root_has_its_room() -> None:
    record = msgspec.structs.replace(record_of(EXAMPLES[RunStopped]), root="c0ffee")
    stored = MAPPER.to_stored(record)
    assert json.loads(stored.state)["root"] == "c0ffee"
    assert MAPPER.to_record(stored) == record


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", [KpiObserved, LateWindowObserved, TradedWhileFrozen])
def test_a_number_that_is_not_finite_is_refused_rather_than_stored_as_null(
    kind: type, number: float
) -> None:
    odd = SymbolReadings(kpis={"edge_bps": number})
    example = EXAMPLES[kind]
    match example:
        case KpiObserved():
            symbol = msgspec.structs.replace(example.symbols[0], readings=odd)
            event: Event = msgspec.structs.replace(example, symbols=(symbol,))
        case LateWindowObserved():
            event = msgspec.structs.replace(example, symbols={"BTCUSDT": odd})
        case _:
            event = msgspec.structs.replace(cast("TradedWhileFrozen", example), notional=number)
    with pytest.raises(BadInput, match=f"{EVENT_NAMES[kind]} of stream dev:bybit can't be stored"):
        MAPPER.to_stored(record_of(event))


def test_an_optional_number_that_is_not_finite_is_refused_too() -> None:
    example = EXAMPLES[OverrideApplied]
    assert isinstance(example, OverrideApplied)
    override = msgspec.structs.replace(example.override, cap=math.nan)
    with pytest.raises(BadInput, match="a number that isn't finite"):
        MAPPER.to_stored(record_of(OverrideApplied(override=override)))


def test_text_that_is_no_unicode_is_refused_in_one_line() -> None:
    stopped = RunStopped(run_id="r", reason="\udcff", at_ms=0)
    with pytest.raises(BadInput, match=r"run_stopped\.v1 of stream dev:bybit can't be stored"):
        MAPPER.to_stored(record_of(stopped))


@pytest.mark.parametrize(
    "garbage",
    [b"", b"{", b"\xff\xfe", b"[]", b'{"event":{}}', b'{"event":{"window":"x"}}', b"null"],
)
def test_bytes_that_do_not_decode_name_their_stream_and_version(garbage: bytes) -> None:
    stored = StoredEvent("dev:bybit", 41, "gap_observed.v1", garbage)
    with pytest.raises(LedgerDamaged, match=r"stream dev:bybit, version 41: gap_observed\.v1"):
        MAPPER.to_record(stored)


def test_an_unknown_event_name_is_damage_and_asks_about_a_newer_version() -> None:
    stored = StoredEvent("dev:bybit", 7, "moon_observed.v1", b'{"event":{}}')
    with pytest.raises(LedgerDamaged, match=r"version 7: .*unknown event.*newer version"):
        MAPPER.to_record(stored)


def test_a_newer_version_of_an_event_is_not_read_as_an_older_one() -> None:
    stored = MAPPER.to_stored(record_of(EXAMPLES[GapObserved]))
    newer = StoredEvent("dev:bybit", 7, "gap_observed.v2", stored.state)
    with pytest.raises(LedgerDamaged, match=r"unknown event 'gap_observed\.v2'"):
        MAPPER.to_record(newer)


def two_versions_on() -> LedgerMapper:
    """Return the mapper of a program whose `run_stopped` has come to its third version."""

    def to_v2(fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "text": fields.pop("reason")}

    def to_v3(fields: dict[str, Any]) -> dict[str, Any]:
        return {
            "run_id": fields["run_id"],
            "at_ms": fields["at_ms"],
            "reason": fields["text"] + "!",
        }

    return LedgerMapper(
        {**EVENT_NAMES, RunStopped: "run_stopped.v3"},
        {
            "run_stopped.v1": ("run_stopped.v2", to_v2),
            "run_stopped.v2": ("run_stopped.v3", to_v3),
        },
    )


def test_an_old_event_is_brought_up_version_by_version() -> None:
    stored = MAPPER.to_stored(record_of(RunStopped(run_id="r", reason="done", at_ms=5)))
    record = two_versions_on().to_record(stored)
    assert record == record_of(RunStopped(run_id="r", reason="done!", at_ms=5))


def test_the_version_in_between_takes_only_the_second_step() -> None:
    middle = b'{"event":{"run_id":"r","at_ms":5,"text":"done"}}'
    record = two_versions_on().to_record(StoredEvent("dev:bybit", 1, "run_stopped.v2", middle))
    assert record.event == RunStopped(run_id="r", reason="done!", at_ms=5)


def test_a_new_event_is_written_under_the_newest_name() -> None:
    mapper = two_versions_on()
    stored = mapper.to_stored(record_of(EXAMPLES[RunStopped]))
    assert stored.topic == "run_stopped.v3"
    assert mapper.to_record(stored).event == EXAMPLES[RunStopped]


def test_an_upcast_that_meets_an_event_without_its_fields_is_damage() -> None:
    stored = StoredEvent("dev:bybit", 9, "run_stopped.v1", b'{"event":{"run_id":"r"}}')
    with pytest.raises(LedgerDamaged, match="version 9"):
        two_versions_on().to_record(stored)


def test_a_snapshot_is_read_back_as_it_was() -> None:
    snapshot = Snapshot(stream="s:x", version=5, fold_version=FOLD_VERSION, state=State())
    stored = MAPPER.to_stored_event(cast("Any", snapshot))
    assert stored.topic == "state_snapshot.v2"
    assert MAPPER.to_domain_event(stored) == snapshot


def test_nothing_but_records_and_snapshots_is_stored() -> None:
    with pytest.raises(TypeError, match="expected a Record or a Snapshot, was str"):
        MAPPER.to_stored_event(cast("Any", "x"))


def test_the_hash_of_a_window_is_pinned() -> None:
    given_readings = readings_at(0)
    assert content_hash(given_readings.start_ms, given_readings.symbols) == PINNED["content_hash"]
    assert content_hash(0, {"BTCUSDT": READINGS}) == PINNED["content_hash of READINGS"]


def test_the_hash_of_the_default_policy_is_pinned() -> None:
    assert Policy().hash == PINNED["policy_hash"]


def test_a_state_of_another_shape_has_another_fold_version() -> None:
    # If this fails, raise FOLD_VERSION in domain/state.py, and pin the new shape with it: a
    # snapshot of the old shape must not be read as one of the new.
    assert PINNED["state_shape"] == state_shape()
