"""The state as of any version is near a snapshot, and is what a fold from the start gives."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from audit_support import shorten_blocks
from decider_spec import Ledger as Story
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_examples import ORIGIN_MS, STREAM, begin, open_at, tell, window
from random_stories import Step, ledgers, stories
from random_stories import tell as tell_story

import ledger.application
from domain.controller import evolve
from domain.events import Event, GapObserved, KpiObserved, StateTransitioned
from domain.state import State
from ledger.application import Ledger, StreamState

EVERY = 5


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_blocks(monkeypatch, EVERY)


def versions_of(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT originator_version FROM stored_snapshots ORDER BY 1")
        return [version for (version,) in rows]


def states_of(events: list[Event]) -> list[State]:
    """Return the state before the first event, and after each."""
    states = [State()]
    for event in events:
        states.append(evolve(states[-1], event))
    return states


@settings(max_examples=40, deadline=None)
@given(story=ledgers(), steps=stories, taken=st.sets(st.integers(1, 60)), data=st.data())
def test_the_state_as_of_any_version_is_the_fold_from_the_start(
    tmp_path_factory: pytest.TempPathFactory,
    story: Story,
    steps: list[Step],
    taken: set[int],
    data: st.DataObject,
) -> None:
    tell_story(story, steps)
    states = states_of(story.events)
    path = tmp_path_factory.mktemp("story") / "ledger.sqlite"
    with pytest.MonkeyPatch.context() as patch:
        shorten_blocks(patch, EVERY)
        with open_at(path) as opened:
            stream = StreamState(STREAM)
            for event in story.events:
                stream = opened.append(stream, [event], decided_at_ms=None)
                if stream.version in taken:
                    opened.take_state_snapshot(stream)
            if data.draw(st.booleans()):
                list(opened.fill_in_snapshots(STREAM, up_to=stream.version))
        with open_at(path, read_only=True) as opened:
            for version in range(1, len(states)):
                found = opened.stream(STREAM, version=version)
                assert found == StreamState(STREAM, version, states[version])


@pytest.mark.usefixtures("short_blocks")
def test_the_newest_snapshot_of_each_block_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with open_at(path) as opened:
        stream = begin(opened, windows=1)
        for index in range(1, 20):
            stream = tell(opened, stream, [window(index)])
            opened.take_state_snapshot(stream)
    assert stream.version == 22
    assert versions_of(path) == [4, 9, 14, 19, 22]


@pytest.mark.usefixtures("short_blocks")
def test_whole_blocks_without_a_snapshot_are_filled_in_a_step_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with open_at(path) as opened:
        stream = begin(opened, windows=20)
        opened.take_state_snapshot(opened.stream(STREAM, version=11))
        missing = opened.fill_in_snapshots(STREAM, up_to=stream.version)
        assert versions_of(path) == [11]
        assert next(missing) == 4
        assert versions_of(path) == [4, 11]
        assert list(missing) == [9, 19]
        assert versions_of(path) == [4, 9, 11, 19]
        assert list(opened.fill_in_snapshots(STREAM, up_to=stream.version)) == []


@pytest.mark.usefixtures("short_blocks")
def test_no_fold_begins_further_back_than_two_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_at(tmp_path / "ledger.sqlite") as opened:
        stream = begin(opened, windows=60)
        list(opened.fill_in_snapshots(STREAM, up_to=stream.version))
        begins: list[int] = []
        select = opened.recorder.select_rows  # type: ignore[attr-defined]

        def asking(stream_id: str, **bounds: Any) -> Any:
            begins.append(bounds["gt"])
            return select(stream_id, **bounds)

        monkeypatch.setattr(opened.recorder, "select_rows", asking)
        for version in range(1, stream.version + 1):
            opened.stream(STREAM, version=version)
            assert version - begins[-1] < 2 * EVERY


@pytest.mark.usefixtures("short_blocks")
def test_snapshots_of_another_fold_are_passed_over_and_filled_in_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.sqlite"
    with open_at(path) as opened:
        stream = begin(opened, windows=20)
        list(opened.fill_in_snapshots(STREAM, up_to=stream.version))
    with closing(sqlite3.connect(path)) as connection, connection:
        strange = b'{"fold_version":99,"state":{"throttle":"of tomorrow"}}'
        connection.execute("UPDATE stored_snapshots SET state=?", (strange,))
        connection.execute("UPDATE stored_snapshots SET topic='x.v1' WHERE originator_version=9")
    with open_at(path) as opened:
        assert opened.stream(STREAM) == stream
        assert opened.notices == ()
        assert list(opened.fill_in_snapshots(STREAM, up_to=stream.version)) == [4, 9, 14, 19]
        assert opened.stream(STREAM, version=16).version == 16


READ: list[Callable[[Ledger], list[int]]] = [
    lambda ledger: [record.version for record in ledger.placed_records(STREAM)],
    lambda ledger: [record.version for record in ledger.placed_records(STREAM, backwards=True)][
        ::-1
    ],
]


@pytest.mark.parametrize("read", READ, ids=["forwards", "backwards"])
@pytest.mark.parametrize("batch", [1, 2, 11, 12, 13])
def test_placed_records_come_in_batches_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Ledger], list[int]], batch: int
) -> None:
    monkeypatch.setattr(ledger.application, "READ_BATCH", batch)
    with open_at(tmp_path / "ledger.sqlite") as opened:
        begin(opened, windows=10)
        assert read(opened) == list(range(1, 13))


def test_placed_records_carry_positions_and_can_be_of_some_kinds(tmp_path: Path) -> None:
    with open_at(tmp_path / "ledger.sqlite") as opened:
        stream = begin(opened, windows=2)
        begin(opened, windows=1, stream_id="dev:okx")
        stream = tell(opened, stream, [window(2, risk_ratio=0.9), window(9)])
        placed = list(opened.placed_records(STREAM, after=2, up_to=6))
        assert [(record.version, record.position) for record in placed] == [
            (3, 3), (4, 4), (5, 8), (6, 9),
        ]  # fmt: skip
        assert placed[0].event.window == ORIGIN_MS  # type: ignore[union-attr]
        kinds = (StateTransitioned, GapObserved)
        some = list(opened.placed_records(STREAM, kinds=kinds))
        every = [r for r in opened.placed_records(STREAM) if isinstance(r.event, kinds)]
        assert some == every
        assert [type(record.event) for record in some] == list(kinds)
        observed = opened.placed_records(STREAM, kinds=(KpiObserved,), backwards=True)
        assert next(observed).version == stream.version - 1
