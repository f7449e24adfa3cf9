"""The views say what the events say, and open as docs/notebook.md shows."""

import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean, median
from typing import Any

import duckdb
import pytest
from history_reference import expected, records_of, time
from history_story import Teller
from support import live

from domain.controller import evolve
from domain.events import GapObserved, KpiObserved, StateTransitioned
from domain.state import State
from ledger.application import Ledger
from ledger.codec import Record
from ledger.location import LedgerLocation
from projections.episodes import derive_episodes
from projections.history_queries import MEANINGS
from projections.history_views import VIEWS, Limits, open_views
from projections.history_writer import HistoryWriter

NOTEBOOK = (Path(__file__).parents[2] / "docs" / "notebook.md").read_text(encoding="utf-8")
DAY_MS = 86_400_000


@pytest.fixture(scope="module", params=[0, 1, 2])
def ledger(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A ledger, most of which is in its history."""
    path = tmp_path_factory.mktemp("views") / "desk.sqlite"
    for steps, is_written in ((350, True), (30, False)):
        with Ledger.open(LedgerLocation(path)) as opened:
            Teller(opened, seed=request.param).tell(steps)
        if is_written:
            with Ledger.open(LedgerLocation(path), read_only=True) as opened:
                writer = HistoryWriter(path.with_suffix(".history"), "dev:bybit", now_ms=lambda: 0)
                writer.catch_up(opened)
    return path


@pytest.fixture(scope="module")
def database(ledger: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_views(ledger.with_suffix(".history"), ledger=ledger) as connection:
        yield connection


def rows(database: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = database.sql(query).to_arrow_table().to_pylist()
    return found


def test_episodes_are_those_that_the_events_make(
    ledger: Path, database: duckdb.DuckDBPyConnection
) -> None:
    want = [
        {
            "env": "dev",
            "exchange": "bybit",
            "dry_run": False,
            "ledger_version": episode.version,
            "position": episode.position,
            "state": episode.state.value,
            "throttle": episode.throttle,
            "started_at": time(episode.started_ms),
            "ended_at": time(episode.ended_ms),
            "duration_ms": episode.duration_ms,
            "previous_state": episode.previous_state.value,
            "next_state": episode.next_state and episode.next_state.value,
            "cause": episode.cause.value,
            "reasons": list(episode.reasons),
            "triggered_by": episode.triggered_by,
            "kpi": episode.kpi,
            "kpi_verdict": episode.kpi_verdict,
            "value": episode.value,
            "comparator": episode.comparator,
            "threshold": episode.threshold,
            "margin": episode.margin,
            "no_data_windows": episode.no_data_windows,
            "windows": episode.windows,
            "gap_windows": episode.gap_windows,
            "windows_to_recover": episode.windows_to_recover,
            "ended_by": episode.ended_by and episode.ended_by.value,
            "end_reasons": list(episode.end_reasons) or None,
            "overrides": list(episode.overrides),
        }
        for episode in derive_episodes(records_of(ledger))
    ]
    assert len(want) > 5
    assert rows(database, "SELECT * FROM episodes") == want


def spans(records: list[Record]) -> list[tuple[str, int, int]]:
    """Return each state's periods from the first window to the last one's end."""
    events = [record.event for record in records]
    observed = [event for event in events if isinstance(event, KpiObserved | GapObserved)]
    first, last = observed[0].window, observed[-1].end_ms
    found, state, since = [], "ACTIVE", first
    for event in events:
        if isinstance(event, StateTransitioned):
            found.append((state, since, event.since_ms))
            state, since = event.state.value, event.since_ms
    found.append((state, since, last))
    return [(s, max(a, first), min(b, last)) for s, a, b in found if min(b, last) > max(a, first)]


def test_uptime_is_what_the_transitions_leave(
    ledger: Path, database: duckdb.DuckDBPyConnection
) -> None:
    records = records_of(ledger)
    gaps = [record.event for record in records if isinstance(record.event, GapObserved)]
    seconds: dict[tuple[Any, str], float] = defaultdict(float)
    missing: dict[tuple[Any, str], float] = defaultdict(float)
    for state, start, end in spans(records):
        day = start // DAY_MS * DAY_MS
        while day < end:
            low, high = max(start, day), min(end, day + DAY_MS)
            key = (datetime.fromtimestamp(day / 1000, UTC).date(), state)
            seconds[key] += (high - low) / 1000
            for gap in gaps:
                missing[key] += max(0, min(high, gap.end_ms) - max(low, gap.window)) / 1000
            day += DAY_MS
    found = rows(database, "SELECT * FROM uptime")
    assert {(row["day"], row["state"]): row["seconds"] for row in found} == seconds
    assert {(row["day"], row["state"]): row["gap_seconds"] for row in found} == missing
    shares: dict[Any, float] = defaultdict(float)
    for row in found:
        shares[row["day"]] += row["share"]
    assert list(shares.values()) == pytest.approx([1.0] * len(shares))


def test_kpi_stats_are_those_of_the_values(
    ledger: Path, database: duckdb.DuckDBPyConnection
) -> None:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in expected(records_of(ledger))["kpis"]:
        groups[(row["day"], row["symbol"], row["kpi"])].append(row)
    found = rows(database, "SELECT * FROM kpi_stats")
    assert [(row["day"], row["symbol"], row["kpi"]) for row in found] == sorted(groups)
    for row in found:
        group = groups[(row["day"], row["symbol"], row["kpi"])]
        values = [one["value"] for one in group if one["value"] is not None]
        assert row["windows"] == len(group)
        assert row["judged"] == len(values)
        assert row["warn"] == sum(one["verdict"] == "WARN" for one in group)
        assert row["crit"] == sum(one["verdict"] == "CRIT" for one in group)
        assert row["no_data"] == sum(one["no_data_windows"] > 0 for one in group)
        assert row["excused"] == sum(one["excused"] for one in group)
        if values:
            assert (row["min"], row["max"]) == (min(values), max(values))
            assert row["mean"] == pytest.approx(mean(values))
            assert row["median"] == pytest.approx(median(values))
        assert row["last_threshold"] == group[-1]["threshold"]


def test_streams_tell_how_far_they_go(ledger: Path, database: duckdb.DuckDBPyConnection) -> None:
    records = records_of(ledger)
    state = State()
    for record in records:
        state = evolve(state, record.event)
    first = next(r.event.window for r in records if isinstance(r.event, KpiObserved))
    assert rows(database, "SELECT * FROM streams") == [
        {
            "env": "dev",
            "exchange": "bybit",
            "dry_run": False,
            "ledger_id": state.ledger_id,
            "ledger_version": records[-1].version,
            "interval_ms": state.interval_ms,
            "first_window_start": time(first),
            "last_window_end": time(state.next_window),
            "state": state.trading_state.value,
            "behind": 0,
        }
    ]


def test_a_condition_on_the_day_opens_the_files_of_that_day_alone(
    ledger: Path,
) -> None:
    folder = ledger.with_suffix(".history")
    with open_views(folder) as connection:
        (day,) = connection.sql("SELECT max(day) FROM windows").fetchall()[0]
        query = f"SELECT count(*) FROM windows WHERE day = '{day}'"
        plan = connection.sql(f"EXPLAIN ANALYZE {query}").fetchall()[0][1]
    read = re.search(r"Total Files Read: (\d+)", plan)
    assert read is not None, plan
    assert int(read[1]) < len(list((folder / "windows").rglob("*.parquet")))


def test_a_folder_may_have_any_name(
    ledger: Path, tmp_path: Path, database: duckdb.DuckDBPyConnection
) -> None:
    folder = tmp_path / "it's desk[1] {a,b} *?.history"
    shutil.copytree(ledger.with_suffix(".history"), folder)
    with open_views(folder, ledger=ledger, limits=Limits(is_locked=True)) as connection:
        for name in ("windows", "episodes", "uptime"):
            query = f"SELECT * FROM {name}"
            assert rows(connection, query) == rows(database, query)


def test_every_view_has_a_meaning_and_every_row_a_stream(
    database: duckdb.DuckDBPyConnection,
) -> None:
    assert set(MEANINGS) == {"streams", *VIEWS}
    for view in MEANINGS:
        names = database.sql(f"SELECT * FROM {view}").columns
        assert names[:3] == ["env", "exchange", "dry_run"]


def test_the_notebooks_lines_run_as_written(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ledger.parent)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", NOTEBOOK, re.DOTALL)
    assert len(blocks[0].splitlines()) == 3
    for block in blocks:
        # pandas is the reader's own; it is no part of the program.
        if ".df()" not in block:
            exec(compile(block, "notebook.md", "exec"), names)
    assert names["table"].num_rows == len(names["rows"]) > 5
    assert names["slow"].num_rows > 1_000
    for query in re.findall(r"```sql\n(.*?)```", NOTEBOOK, re.DOTALL):
        assert names["db"].sql(query).fetchall(), query
    names["db"].close()


def test_the_notebooks_command_runs_as_written(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ledger.parent)
    (line,) = re.findall(r"```bash\nlive (.*?)\n```", NOTEBOOK)
    command = re.fullmatch(r'audit sql "(.*)" (.*)', line)
    assert command is not None
    told = live("audit", "sql", command[1], *command[2].split())
    assert told.code == 0, told.err
    assert told.out.startswith("env,exchange,dry_run,ledger_version,")
    assert len(told.out.splitlines()) > 5


def test_the_last_window_of_a_day_belongs_to_it(database: duckdb.DuckDBPyConnection) -> None:
    found = rows(database, "SELECT day, window_start FROM windows")
    assert all(row["window_start"].date() == row["day"] for row in found)
    assert found[0]["window_start"].utcoffset() == timedelta(0)
