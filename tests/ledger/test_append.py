import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from eventsourcing.persistence import StoredEvent
from ledger_examples import (
    EXAMPLES,
    ORIGIN_MS,
    STREAM,
    begin,
    datastore,
    open_at,
    tell,
    window,
)

from domain.controller import decide
from domain.errors import AnotherWriter, BadInput, LedgerDamaged
from domain.events import KpiObserved, RunStarted, RunStopped, TradedWhileFrozen
from ledger import sqlite_file
from ledger.application import StreamState

STOPPED = EXAMPLES[RunStopped]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def test_versions_count_from_one_without_a_gap(path: Path) -> None:
    with open_at(path) as ledger:
        stream = begin(ledger, windows=5)
        assert stream.version == 7
        assert [record.version for record in ledger.records(STREAM)] == [1, 2, 3, 4, 5, 6, 7]
        assert ledger.last_version(STREAM) == 7


def test_an_append_returns_the_stream_that_reading_gives(path: Path) -> None:
    with open_at(path) as ledger:
        appended = begin(ledger, windows=5)
        assert ledger.stream(STREAM) == appended
    with open_at(path, read_only=True) as again:
        assert again.stream(STREAM) == appended
        assert again.position(appended) == 7


def test_the_position_is_known_right_after_an_append_and_later(path: Path) -> None:
    with open_at(path) as ledger:
        first = begin(ledger, windows=1)
        other = begin(ledger, windows=2, stream_id="dev:okx")
        assert (ledger.position(first), ledger.position(other)) == (3, 7)
        assert ledger.position(StreamState("dev:okx", 2)) == 5
        assert ledger.position(StreamState("dev:none", 1)) == 0


def test_no_events_are_no_append(path: Path) -> None:
    with open_at(path) as ledger:
        stream = begin(ledger)
        assert ledger.append(stream, [], decided_at_ms=None) is stream
        assert ledger.last_version(STREAM) == 2


def test_a_windows_events_are_appended_all_or_none(path: Path) -> None:
    with open_at(path) as ledger:
        stream = begin(ledger)
        # The second of them is there already: the first must not stay either.
        batch = [StoredEvent(STREAM, version, "run_stopped.v1", b"{}") for version in (3, 2)]
        with pytest.raises(Exception, match="UNIQUE constraint"):
            ledger.recorder.insert_events(batch)
        assert ledger.last_version(STREAM) == 2
        assert tell(ledger, stream, [window(0)]).version == 3


def test_an_event_that_can_not_be_stored_keeps_its_whole_window_out(path: Path) -> None:
    fill = TradedWhileFrozen(
        symbol="BTCUSDT", filled_at_ms=1, frozen_since_ms=0, notional=float("nan")
    )
    with open_at(path) as ledger:
        stream = begin(ledger)
        with pytest.raises(BadInput, match=r"traded_while_frozen\.v1"):
            ledger.append(stream, [STOPPED, fill], decided_at_ms=None)
        assert ledger.last_version(STREAM) == 2


def test_a_window_of_several_events_is_one_transaction(path: Path) -> None:
    with open_at(path) as ledger:
        stream = begin(ledger)
        begins: list[str] = []
        with datastore(ledger).cursor(is_writer=False) as cursor:
            cursor.sqlite_cursor.connection.set_trace_callback(begins.append)
        stream = tell(ledger, stream, [window(0, risk_ratio=0.9)])
        assert stream.version == 2 + 4  # observed, frozen, a change for each of two symbols
        inserts = [text for text in begins if text.startswith("INSERT")]
        assert len(inserts) == 4
        assert (begins[0], begins[-1]) == ("BEGIN IMMEDIATE", "COMMIT")
        assert begins.count("COMMIT") == 1


def test_another_writer_to_the_stream_stops_this_one(path: Path) -> None:
    with open_at(path) as mine, open_at(path) as theirs:
        seen = begin(mine, windows=1)
        tell(theirs, theirs.stream(STREAM), [window(1)])
        with pytest.raises(AnotherWriter, match=r"another runner has written to dev:bybit .* 3;"):
            tell(mine, seen, [window(1)])
        assert AnotherWriter.exit_code == 4
        assert mine.last_version(STREAM) == 4


def test_another_writers_conflict_leaves_none_of_several_events(path: Path) -> None:
    with open_at(path) as mine, open_at(path) as theirs:
        seen = begin(mine)
        theirs.append(seen, [STOPPED], decided_at_ms=None)
        with pytest.raises(AnotherWriter):
            mine.append(seen, [STOPPED, STOPPED], decided_at_ms=None)
        assert [r.version for r in mine.records(STREAM)] == [1, 2, 3]


def test_writers_of_two_streams_do_not_meet(path: Path) -> None:
    with open_at(path) as one, open_at(path) as other:
        first, second = begin(one, 1), begin(other, 1, "dev:okx")
        first = tell(one, first, [window(1)])
        second = tell(other, second, [window(1)])
        assert (one.stream("dev:okx"), other.stream(STREAM)) == (second, first)
        assert one.stream_ids() == [STREAM, "dev:okx"]


def test_the_connection_that_writes_is_durable(path: Path) -> None:
    with open_at(path) as ledger, datastore(ledger).transaction(commit=True) as cursor:
        settings = {}
        for name in ("journal_mode", "synchronous"):
            cursor.execute(f"PRAGMA {name}")
            settings[name] = cursor.fetchone()[0]
    assert settings == {"journal_mode": "wal", "synchronous": 2}


def test_a_store_that_can_not_do_wal_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoWal(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
            return super().execute("PRAGMA user_version" if "=WAL" in sql else sql, parameters)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, factory=NoWal, **k))
    with pytest.raises(LedgerDamaged, match=r"expected journal_mode wal .* was \['delete', 2\]"):
        open_at(path)


@pytest.mark.parametrize("changed", [{}, {"risk_ratio": 0.9}], ids=["one event", "several"])
def test_a_full_disk_loses_nothing_and_goes_on_when_there_is_room(
    path: Path, changed: dict[str, float]
) -> None:
    with open_at(path) as ledger:
        stream = begin(ledger)
        with datastore(ledger).cursor(is_writer=True) as cursor:
            cursor.execute("PRAGMA max_page_count=1")

        def fill() -> None:
            nonlocal stream
            for index in range(100):
                stream = tell(ledger, stream, [window(index, **changed)])

        with pytest.raises(LedgerDamaged, match=r"can't be read or written: .* full"):
            fill()
        assert ledger.stream(STREAM) == stream
        with datastore(ledger).cursor(is_writer=True) as cursor:
            cursor.execute("PRAGMA max_page_count=1000000")
        last = stream.state.counts.windows
        stream = tell(ledger, stream, [window(last, **changed)])
        assert stream.state.counts.windows == last + 1
        assert ledger.stream(STREAM) == stream


def test_a_lock_that_is_never_let_go_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "LOCK_TIMEOUT_SEC", 0.1)
    with open_at(path) as ledger, open_at(path) as other:
        stream = begin(ledger)
        with (
            datastore(other).transaction(commit=True),
            pytest.raises(LedgerDamaged, match="can't be read or written: database is locked"),
        ):
            tell(ledger, stream, [window(0)])
        assert tell(ledger, stream, [window(0)]).version == 3


KILLED_RUN = """
import sys
from pathlib import Path
from ledger_examples import begin, open_at, tell, window
ledger = open_at(Path(sys.argv[1]))
stream = begin(ledger)
for index in range(100_000):
    risk = 0.9 if index % 3 == 0 else 0.1
    stream = tell(ledger, stream, [window(index, risk_ratio=risk)])
    print(stream.version, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [1, 40, 200])
def test_whatever_was_acknowledged_is_there_after_a_kill(path: Path, acknowledged: int) -> None:
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here}:{here.parent.parent}"}
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_RUN, str(path)], stdout=subprocess.PIPE, env=environment
    ) as run:
        assert run.stdout is not None
        lines = [run.stdout.readline() for _ in range(acknowledged)]
        run.send_signal(signal.SIGKILL)
        lines += run.stdout.readlines()
    last = int([line for line in lines if line.endswith(b"\n")][-1])
    with open_at(path) as ledger:
        stream = ledger.stream(STREAM)
        records = list(ledger.records(STREAM))
        assert last <= stream.version <= last + 4
        assert [record.version for record in records] == list(range(1, stream.version + 1))
        # The last window is whole: deciding it again would give the very events that are there.
        start = max(r.version for r in records if isinstance(r.event, KpiObserved))
        before = ledger.stream(STREAM, version=start - 1)
        observed = records[start - 1].event
        assert isinstance(observed, KpiObserved)
        index = (observed.window - ORIGIN_MS) // observed.interval_ms
        risk = 0.9 if index % 3 == 0 else 0.1
        events = decide(before.state.policy, before.state, window(index, risk_ratio=risk))
        assert [record.event for record in records[start - 1 :]] == events
        assert tell(ledger, stream, [window(index + 1)]).version > stream.version


def test_a_run_that_starts_again_is_the_same_stream(path: Path) -> None:
    with open_at(path) as ledger:
        begin(ledger, windows=2)
    with open_at(path) as ledger:
        stream = tell(ledger, ledger.stream(STREAM), [window(2)])
        assert stream.version == 5
        assert isinstance(next(ledger.records(STREAM)).event, RunStarted)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_ledger_that_is_taken_away_under_its_writer_is_written_no_more(
    path: Path, replaced: bool
) -> None:
    with open_at(path) as ledger:
        stream = begin(ledger, windows=1)
        path.rename(path.with_name("aside.sqlite"))
        if replaced:
            path.touch()
        with pytest.raises(LedgerDamaged, match=r"ledger\.sqlite"):
            ledger.append(stream, [STOPPED], decided_at_ms=None)
