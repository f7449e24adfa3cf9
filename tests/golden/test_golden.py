"""Every ledger that was ever written folds to what it did, and is decided as it was."""

import json
import shutil
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path

import pytest
from make_golden import LEDGERS, make, state_as_json

from domain.commands import Command, ObserveWindow, PassWindows
from domain.controller import decide, evolve
from domain.events import Event, GapObserved, KpiObserved, OverrideEnded
from domain.state import State
from domain.windows import WindowReadings, content_hash
from ledger.application import Ledger
from ledger.codec import EVENT_NAMES
from ledger.location import LedgerLocation

HERE = Path(__file__).parent
GOLDEN = sorted(HERE.glob("*.sqlite"))
SIZE_MAX = 100_000


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a copy: not even an open to read may touch the original."""
    original: Path = request.param
    shutil.copy(original, tmp_path)
    shutil.copy(original.with_suffix(".json"), tmp_path)
    return tmp_path / original.name


def events_of(path: Path) -> dict[str, list[Event]]:
    with Ledger.open(LedgerLocation(path), read_only=True) as ledger:
        return {
            stream_id: [record.event for record in ledger.records(stream_id)]
            for stream_id in ledger.stream_ids()
        }


def expected_of(path: Path) -> dict[str, dict[str, object]]:
    expected: dict[str, dict[str, object]] = json.loads(path.with_suffix(".json").read_bytes())
    return expected


@pytest.mark.parametrize("read_only", [True, False], ids=["to read", "to write"])
def test_a_golden_ledger_folds_to_what_it_always_did(golden: Path, read_only: bool) -> None:
    expected = expected_of(golden)
    with Ledger.open(LedgerLocation(golden), read_only=read_only) as ledger:
        assert ledger.stream_ids() == sorted(expected)
        for stream_id, states in expected.items():
            assert ledger.stream(stream_id).version == max(map(int, states))
            for version, state in states.items():
                folded = ledger.stream(stream_id, version=int(version)).state
                assert state_as_json(folded) == state, f"{stream_id}, version {version}"


def test_a_golden_ledger_folds_the_same_event_by_event(golden: Path) -> None:
    for stream_id, events in events_of(golden).items():
        state = reduce(evolve, events, State())
        assert state_as_json(state) == expected_of(golden)[stream_id][str(len(events))]


def test_a_golden_ledger_is_decided_again_as_it_was(golden: Path) -> None:
    decisions = 0
    for events in events_of(golden).values():
        for before, command, recorded in decided(events):
            again = decide(before.policy, before, command)
            assert again == list(recorded[: len(again)])
            assert any(isinstance(event, KpiObserved | GapObserved) for event in again)
            decisions += 1
    assert decisions >= 10


def test_a_golden_windows_hash_is_that_of_its_readings(golden: Path) -> None:
    for events in events_of(golden).values():
        for event in events:
            if isinstance(event, KpiObserved):
                readings = {each.memory.symbol: each.readings for each in event.symbols}
                assert content_hash(event.window, readings) == event.content


def test_a_golden_ledger_is_small_and_has_no_log_beside_it() -> None:
    assert [path.stem for path in GOLDEN] == sorted(LEDGERS)
    assert all(path.stat().st_size < SIZE_MAX for path in GOLDEN)
    assert not list(HERE.glob("*-wal")) + list(HERE.glob("*-shm"))


def test_the_golden_ledgers_hold_every_version_of_every_event() -> None:
    kinds = {
        type(event) for path in GOLDEN for events in events_of(path).values() for event in events
    }
    assert {EVENT_NAMES[kind] for kind in kinds} == set(EVENT_NAMES.values())


@pytest.mark.parametrize("name", LEDGERS)
def test_what_made_them_still_makes_the_same_events(name: str, tmp_path: Path) -> None:
    # Should this become untrue by intent, drop the ledger from LEDGERS; the ledger itself stays.
    made = tmp_path / f"{name}.sqlite"
    make(made, LEDGERS[name])
    assert events_of(made) == events_of(HERE / made.name)


def decided(events: Sequence[Event]) -> Iterator[tuple[State, Command, Sequence[Event]]]:
    """
    Yield each decision of a stream: the state before it, what was asked, and what was recorded.

    A decision begins with what expired in its window, and then comes the window or the gap; what
    was recorded goes on to the end of the stream.
    """
    state = before = State()
    begins = 0
    for index, event in enumerate(events):
        if not (isinstance(event, OverrideEnded) and event.ended_by == "expiry"):
            command = _asked(event)
            if command is not None:
                yield before, command, events[begins:]
            begins = index + 1
        state = evolve(state, event)
        if begins == index + 1:
            before = state


def _asked(event: Event) -> Command | None:
    match event:
        case KpiObserved():
            return ObserveWindow(
                readings=WindowReadings(
                    start_ms=event.window,
                    symbols={each.memory.symbol: each.readings for each in event.symbols},
                    feed_position=event.feed_position,
                    feed_counts=event.feed_counts,
                )
            )
        case GapObserved():
            return PassWindows(until=event.end_ms)
        case _:
            return None
