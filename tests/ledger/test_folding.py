import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_examples import (
    ADOPTION,
    HEALTHY,
    ORIGIN_MS,
    START,
    STREAM,
    SYMBOLS,
    begin,
    open_at,
    tell,
    window,
)

import ledger.application
import ledger.codec
import ledger.event_stores
import ledger.snapshots
from domain.commands import ApplyOverride, Command, ObserveClock, ObserveWindow, PassWindows
from domain.controller import evolve
from domain.events import KpiObserved, Override, OverrideKind, RunStarted
from domain.kpis import Reading
from domain.state import FOLD_VERSION, State
from domain.windows import SymbolReadings, WindowReadings
from ledger.application import Ledger, StreamState
from ledger.codec import Superseded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def folded_one_by_one(ledger: Ledger, stream_id: str) -> list[State]:
    """Return the state before the first record, and after each."""
    states = [State()]
    for record in ledger.records(stream_id):
        states.append(evolve(states[-1], record.event))
    return states


def snapshots(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "SELECT originator_id, originator_version FROM stored_snapshots ORDER BY 1, 2"
        ).fetchall()


CHANGED: dict[str, dict[str, Reading]] = {
    "w": {"p95_latency_ms": 400.0},
    "c": {"risk_ratio": 0.9},
}


def commands_of(story: str) -> list[Command]:
    """Return what a story says, a letter a window; see the strategy below."""
    commands: list[Command] = [START, ADOPTION]
    index = 0
    for letter in story:
        match letter:
            case "g":
                index += 3
                commands.append(PassWindows(until=ORIGIN_MS + index * 60_000))
                continue
            case "t":
                commands.append(ObserveClock(window=ORIGIN_MS - 60_000))
                continue
            case "f":
                at_ms = ORIGIN_MS + index * 60_000
                override = Override(
                    id=f"o{len(commands)}", kind=OverrideKind.FREEZE, actor="ann", reason="",
                    symbol=SYMBOLS[1], applied_at_ms=at_ms, expires_at_ms=at_ms + 150_000,
                )  # fmt: skip
                commands.append(ApplyOverride(override=override))
                continue
            case "n":
                readings = WindowReadings(start_ms=ORIGIN_MS + index * 60_000)
            case _:
                kpis = HEALTHY | CHANGED.get(letter, {})
                readings = WindowReadings(
                    start_ms=ORIGIN_MS + index * 60_000,
                    symbols={symbol: SymbolReadings(kpis=kpis) for symbol in SYMBOLS},
                )
        commands.append(ObserveWindow(readings=readings))
        index += 1
    return commands


STORIES = st.text("ooooooowcngtf", min_size=1, max_size=60)
"""o OK, w WARN, c CRIT, n no data, g a gap, t the clock behind, f a symbol frozen for a while."""


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(story=STORIES, batch=st.integers(2, 40))
def test_folding_a_stream_is_folding_its_events_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, story: str, batch: int
) -> None:
    path = tmp_path_factory.mktemp("story") / "ledger.sqlite"
    with open_at(path) as opened, pytest.MonkeyPatch.context() as patch:
        appended = tell(opened, StreamState(STREAM), commands_of(story))
        states = folded_one_by_one(opened, STREAM)
        assert appended.state == states[-1]
        patch.setattr(ledger.event_stores, "READ_BATCH", batch)
        for version in {1, 2, len(states) // 2, len(states) - 2, len(states) - 1} - {0}:
            assert opened.stream(STREAM, version=version).state == states[version]


def test_superseded_windows_are_counted_and_not_decoded(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    to_record = ledger.codec.LedgerMapper.to_record

    def counting(self: Any, stored: Any) -> Any:
        decoded.append(stored.originator_version)
        return to_record(self, stored)

    with open_at(path) as opened:
        written = begin(opened, windows=50)
        monkeypatch.setattr(ledger.codec.LedgerMapper, "to_record", counting)
        assert opened.stream(STREAM) == written
        assert decoded == [1, 2, 52]
        assert written.state.counts.windows == written.state.counts.ok == 50


def test_a_run_of_superseded_windows_must_follow_on_what_is_folded() -> None:
    leap = Superseded(STREAM, version=9, windows=3)
    with pytest.raises(Exception, match="expected version 1, was 7; events are missing"):
        ledger.application.project(StreamState(STREAM), [leap])


def test_reading_in_batches_gives_each_record_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_at(path) as opened:
        begin(opened, windows=21)
        for batch in (1, 2, 22, 23, 24):
            monkeypatch.setattr(ledger.event_stores, "READ_BATCH", batch)
            assert [r.version for r in opened.records(STREAM)] == list(range(1, 24))
            assert [r.version for r in opened.records(STREAM, after=4, up_to=9)] == [5, 6, 7, 8, 9]
            assert opened.stream(STREAM).version == 23


def test_a_stream_that_is_not_there_is_empty(path: Path) -> None:
    with open_at(path) as opened:
        assert opened.stream("dev:none") == StreamState("dev:none")
        assert opened.last_version("dev:none") == 0
        assert list(opened.records("dev:none")) == []


def test_the_stream_as_of_a_version_is_what_it_was_then(path: Path) -> None:
    with open_at(path) as opened:
        begin(opened, windows=3)
        states = folded_one_by_one(opened, STREAM)
        for version in range(1, 6):
            assert opened.stream(STREAM, version=version) == StreamState(
                STREAM, version, states[version]
            )
        assert opened.stream(STREAM, version=99).version == 5


def test_a_snapshot_changes_nothing_but_the_time_it_takes(path: Path) -> None:
    with open_at(path) as opened:
        middle = begin(opened, windows=30)
        opened.take_state_snapshot(middle)
        last = tell(opened, middle, [window(index) for index in range(30, 35)])
    with open_at(path, read_only=True) as opened:
        assert opened.stream(STREAM) == last
        assert opened.stream(STREAM, version=32) == middle
        assert opened.stream(STREAM, version=10).version == 10


def test_only_the_events_after_a_snapshot_are_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    with open_at(path) as opened:
        middle = begin(opened, windows=30)
        opened.take_state_snapshot(middle)
        select = opened.recorder.select_rows  # type: ignore[attr-defined]

        def asking(stream: str, **bounds: Any) -> Any:
            asked.append(bounds["gt"])
            return select(stream, **bounds)

        monkeypatch.setattr(opened.recorder, "select_rows", asking)
        assert opened.stream(STREAM) == middle
    assert asked == [32]


def test_the_newest_snapshot_of_a_stream_is_the_only_one(path: Path) -> None:
    with open_at(path) as opened:
        stream = begin(opened, windows=2)
        other = begin(opened, windows=1, stream_id="dev:okx")
        opened.take_state_snapshot(other)
        opened.take_state_snapshot(stream)
        opened.take_state_snapshot(stream)
        assert snapshots(path) == [(STREAM, 4), ("dev:okx", 3)]
        stream = tell(opened, stream, [window(2)])
        opened.take_state_snapshot(stream)
        assert snapshots(path) == [(STREAM, 5), ("dev:okx", 3)]
        assert opened.stream(STREAM) == stream


def test_a_snapshot_of_another_version_of_the_fold_is_ignored_and_then_replaced(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_at(path) as opened:
        stream = begin(opened, windows=5)
        with monkeypatch.context() as later:
            for module in (ledger.application, ledger.codec, ledger.snapshots):
                later.setattr(module, "FOLD_VERSION", FOLD_VERSION + 1)
            wrong = StreamState(STREAM, stream.version, State(ledger_id="of another fold"))
            opened.take_state_snapshot(wrong)
            assert opened.stream(STREAM) == wrong
        assert opened.stream(STREAM) == stream
        opened.take_state_snapshot(stream)
        assert snapshots(path) == [(STREAM, 7)]
        assert opened.stream(STREAM) == stream


def test_a_snapshot_of_another_fold_need_not_even_be_readable(path: Path) -> None:
    with open_at(path) as opened:
        stream = begin(opened, windows=2)
        opened.take_state_snapshot(stream)
        with closing(sqlite3.connect(path)) as connection, connection:
            strange = b'{"fold_version":99,"state":{"throttle":"of tomorrow"}}'
            connection.execute("UPDATE stored_snapshots SET state=?", (strange,))
        assert opened.stream(STREAM) == stream


def test_records_carry_their_place_and_time(path: Path) -> None:
    with open_at(path) as opened:
        begin(opened, windows=1)
        first, _, last = opened.records_by_position()
        assert isinstance(first.event, RunStarted)
        assert isinstance(last.event, KpiObserved)
        assert (last.stream, last.version, last.position) == (STREAM, 3, 3)
        assert last.decided_at_ms == ORIGIN_MS
        assert opened.records_by_position(after=2, limit=1) == [last]
        assert opened.page(STREAM, after=0, limit=2)[1].version == 2
