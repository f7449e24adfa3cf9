"""`live audit`: what happened, from real ledgers, and clear answers to bad questions."""

import csv
import io
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from audit_support import ask, lines_of, rows_of, store, stored
from decider_spec import BTC, CRIT, ETH, SHORT, WARN
from decider_spec import Ledger as Story
from support import live

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def story(folder: Path) -> Story:
    """Write `l.sqlite`: frozen 14:03 to 14:06, a gap 14:08 to 14:10, then a cooldown."""
    story = Story(SHORT, BTC, ETH)
    story.windows(2)
    story.windows(1, BTCUSDT=CRIT)
    story.windows(3)
    story.windows(2, ETHUSDT=WARN)
    story.skip(2)
    story.windows(1)
    stored(story)
    return story


def golden(name: str, folder: Path) -> None:
    shutil.copy(GOLDEN / f"{name}.sqlite", folder / "l.sqlite")


def test_the_timeline_is_told_in_order_with_places(story: Story) -> None:
    lines = lines_of("audit", "timeline", "--from", "2026-01-05T14:03", "--to", "2026-01-05T14:06")
    assert lines == [
        "2026-01-05T14:03:00Z      v6 p6             "
        "ACTIVE -> FROZEN (throttle 0): BTCUSDT risk=0.45 > 0.40",
        "2026-01-05T14:03:00Z      v7 p7             BTCUSDT may trade 1 -> 0",
        "2026-01-05T14:03:00Z      v8 p8             ETHUSDT may trade 1 -> 0",
    ]


def test_every_line_of_a_golden_timeline_is_as_it_was(folder: Path) -> None:
    golden("operators-1", folder)
    rows = rows_of("audit", "timeline")
    assert [row["version"] for row in rows][:6] == [1, 2, 6, 7, 8, 9]
    assert {row["kind"] for row in rows} == {
        "run_started", "policy_adopted", "override_applied", "state_transitioned",
        "symbol_throttle_changed", "override_ended", "external_write_detected",
        "traded_while_frozen", "clock_fault", "run_stopped",
    }  # fmt: skip
    assert rows[-1] == {
        "version": 54, "position": 54, "at": "2026-01-05T00:20:00Z", "kind": "run_stopped",
        "symbol": None,
        "text": "run run-1 stopped: the windows asked for are decided, "
        "by its clock 2026-01-05T00:20:00Z",
    }  # fmt: skip


def test_a_timeline_of_one_symbol_leaves_the_others_out(story: Story) -> None:
    rows = rows_of("audit", "timeline", "--symbol", ETH)
    assert {row["symbol"] for row in rows} == {ETH, None}
    assert len(rows) < len(rows_of("audit", "timeline"))


def test_violations_are_told_where_they_are_asked_for(story: Story) -> None:
    usual = rows_of("audit", "timeline")
    every = rows_of("audit", "timeline", "--violations")
    assert [row["text"] for row in every if row not in usual] == [
        "window 2026-01-05T14:02:00Z CRIT: BTCUSDT risk=0.45 > 0.40",
        "window 2026-01-05T14:06:00Z WARN: ETHUSDT p95_latency=360 > 350",
        "window 2026-01-05T14:07:00Z WARN: ETHUSDT p95_latency=360 > 350",
    ]


def test_a_span_in_which_nothing_happened_says_so(story: Story) -> None:
    span = ("--from", "2026-01-05T14:01", "--to", "2026-01-05T14:02")
    assert lines_of("audit", "timeline", *span) == [
        "nothing happened from 2026-01-05T14:01:00Z to 2026-01-05T14:02:00Z: "
        "every window left all as it was"
    ]


def test_episodes_are_told_with_cause_and_end(story: Story) -> None:
    assert lines_of("audit", "episodes") == [
        "FROZEN    2026-01-05T14:03:00Z to 2026-01-05T14:06:00Z  3 min, 3 windows  v6 p6",
        "    cause      BTCUSDT risk=0.45 > 0.40",
        "    ended by   recovered after 3 OK windows -> ACTIVE",
        "COOLDOWN  2026-01-05T14:08:00Z still open  3 min, 3 windows (2 missing)  v18 p18",
        "    cause      ETHUSDT p95_latency=360 > 350",
    ]
    freeze, cooldown = rows_of("audit", "episodes")
    assert (freeze["kpi"], freeze["value"], freeze["windows_to_recover"]) == ("risk_ratio", 0.45, 3)
    assert freeze["ended_at"] == "2026-01-05T14:06:00Z"
    assert (cooldown["open"], cooldown["ended_at"], cooldown["duration_ms"]) == (
        True,
        None,
        180_000,
    )


def test_episodes_of_a_span_are_those_that_reach_into_it(story: Story) -> None:
    def states(*options: str) -> list[str]:
        return [row["state"] for row in rows_of("audit", "episodes", *options)]

    assert states("--from", "2026-01-05T14:05:59") == ["FROZEN", "COOLDOWN"]
    assert states("--from", "2026-01-05T14:06") == ["COOLDOWN"]
    assert states("--to", "2026-01-05T14:03") == []
    assert states("--to", "2026-01-05T14:03:00.001") == ["FROZEN"]
    assert states("--symbol", ETH) == ["COOLDOWN"]


def test_csv_and_parquet_hold_the_same_rows(story: Story) -> None:
    rows = rows_of("audit", "episodes")
    read = list(csv.DictReader(io.StringIO("\n".join(lines_of("audit", "episodes", "--csv")))))
    assert [row["started_at"] for row in read] == [row["started_at"] for row in rows]
    assert list(read[0]) == list(rows[0])
    lines_of("audit", "episodes", "--parquet", "--output", "episodes.parquet")
    table = pq.read_table("episodes.parquet")
    assert table.column_names == list(rows[0])
    assert table.column("value").to_pylist() == [0.45, 360.0]
    lines_of("audit", "timeline", "--parquet", "--output", "timeline.parquet")
    assert pq.read_table("timeline.parquet").num_rows == len(rows_of("audit", "timeline"))


def test_an_operators_formula_is_harmless_in_csv(folder: Path) -> None:
    story = Story(SHORT)
    story.windows(1)
    story.override("freeze")
    stored(story)
    with closing(sqlite3.connect("l.sqlite")) as connection, connection:
        connection.execute(
            'UPDATE stored_events SET state = replace(state, \'"actor":"kim"\', ?)',
            ('"actor":"=HYPERLINK(1)"',),
        )
    rows = list(csv.DictReader(io.StringIO("\n".join(lines_of("audit", "episodes", "--csv")))))
    assert rows[0]["overrides"] == "freeze by =HYPERLINK(1): drill"
    assert not any(cell.startswith(tuple("=+-@")) for row in rows for cell in row.values())


def test_a_window_is_shown_whole(story: Story) -> None:
    lines = lines_of("audit", "show", "2026-01-05T14:02:30")
    assert lines[0] == "dev:bybit  window 2026-01-05T14:02:00Z to 2026-01-05T14:03:00Z"
    assert lines[1] == (
        "> v5 p5             2026-01-05T14:03:00Z      kpi_observed: "
        "window 2026-01-05T14:02:00Z CRIT: BTCUSDT risk=0.45 > 0.40"
    )
    assert "        risk_ratio         0.45         at most 0.40: CRIT, 0.05 beyond" in lines
    assert "    BTCUSDT KPI-based 0, 0 OK in a row, frozen, halted: CRIT" in lines
    assert [line[2:4] for line in lines if " p" in line[4:6]] == ["v5", "v6", "v7", "v8"]


@pytest.mark.parametrize("what", ["v7", "7", "2026-01-05T14:02", "2026-01-05T16:02+02:00"])
def test_a_version_a_position_and_a_time_lead_to_the_same_window(story: Story, what: str) -> None:
    rows = rows_of("audit", "show", what)
    assert [row["version"] for row in rows] == [5, 6, 7, 8]
    assert rows[0]["event"]["verdict"] == "CRIT"


def test_a_missing_window_is_shown_as_its_gap(story: Story) -> None:
    rows = rows_of("audit", "show", "2026-01-05T14:09")
    assert [row["kind"] for row in rows] == ["gap_observed", "symbol_throttle_changed"]
    assert rows == rows_of("audit", "show", "2026-01-05T14:08")
    assert rows_of("audit", "show", "2026-01-05T14:10")[0]["kind"] == "kpi_observed"


def test_every_event_belongs_to_just_one_window_that_is_shown(folder: Path) -> None:
    for name in ("operators-1", "incident-1"):
        golden(name, folder)
        last = rows_of("audit", "timeline")[-1]["version"]
        shown = [rows_of("audit", "show", f"v{version}") for version in range(1, last + 1)]
        units = [[row["version"] for row in rows] for rows in shown]
        for version, unit in enumerate(units, start=1):
            assert version in unit
            assert unit == list(range(unit[0], unit[-1] + 1))
            assert all(units[other - 1] == unit for other in unit)
        for rows in shown:
            kinds = [row["kind"] for row in rows]
            assert kinds.count("kpi_observed") + kinds.count("gap_observed") <= 1


def test_a_position_finds_its_own_stream(folder: Path) -> None:
    golden("two-streams-1", folder)
    rows = {position: rows_of("audit", "show", str(position)) for position in (1, 12)}
    assert rows[1] != rows[12]
    assert [12 in [row["position"] for row in shown] for shown in rows.values()] == [False, True]


def test_two_times_are_compared(story: Story) -> None:
    rows = rows_of("audit", "diff", "2026-01-05T14:02", "2026-01-05T14:03")
    found = {(row["section"], row["key"]): (row["before"], row["after"]) for row in rows}
    assert found["state", "state"] == ("ACTIVE", "FROZEN")
    assert found["state", "reasons"] == (None, "risk=0.45 > 0.40")
    assert found["symbol", "BTCUSDT frozen"] == (None, "yes")
    assert found["symbol", "ETHUSDT may trade"] == ("1", "0")
    assert found["count", "crit"] == ("0", "1")
    same = lines_of("audit", "diff", "2026-01-05T14:02", "2026-01-05T14:02:59")
    assert same[-1] == "nothing differs"


def test_one_symbol_alone_is_compared_and_shown(story: Story) -> None:
    times = ("2026-01-05T14:02", "2026-01-05T14:03")
    rows = rows_of("audit", "diff", *times, "--symbol", "ETHUSDT")
    symbols = {row["key"] for row in rows if row["section"] == "symbol"}
    assert symbols
    assert all(key.startswith("ETHUSDT ") for key in symbols)
    assert ("state", "state") in {(row["section"], row["key"]) for row in rows}
    shown = rows_of("audit", "show", "v5", "--symbol", "ETHUSDT")
    assert {row["symbol"] for row in shown} == {None, "ETHUSDT"}
    lines = lines_of("audit", "show", "v5", "--symbol", "ETHUSDT")
    assert any(line.startswith("    ETHUSDT KPI-based") for line in lines)
    assert not any(line.startswith("    BTCUSDT KPI-based") for line in lines)
    for command in (("show", "v5"), ("diff", *times)):
        outcome = ask("audit", *command, "--symbol", "SOLUSDT")
        assert (outcome.code, "--symbol: dev:bybit has BTCUSDT" in outcome.err) == (2, True)


def test_two_policies_are_compared_and_what_loosens_is_said(folder: Path) -> None:
    golden("incident-1", folder)
    between = rows_of("audit", "diff", "2026-01-05T00:20", "2026-01-05T00:42")
    policies = {row["key"]: row for row in between if row["section"] == "policy"}
    assert policies["symbols"]["after"] == "ETHUSDT,BTCUSDT"
    assert policies["symbols"]["loosens"] is True
    assert (policies["min_ok_windows"]["before"], policies["min_ok_windows"]["after"]) == (
        "3",
        "12",
    )
    assert policies["symbols.ETHUSDT.max_risk"]["after"] == "0.15"


BAD = [
    (("timeline", "--symbol", "XRPUSDT"), 2, "--symbol: dev:bybit has BTCUSDT, ETHUSDT, not XRP"),
    (("episodes", "--symbol", "btcusdt"), 2, "--symbol: dev:bybit has BTCUSDT, ETHUSDT, not btc"),
    (
        ("timeline", "--from", "2026-01-05", "--to", "2026-01-05"), 2,
        "--from, --to: expected a start before the end, which is exclusive, was "
        "2026-01-05T00:00:00Z to 2026-01-05T00:00:00Z; a date is its beginning",
    ),
    (("timeline", "--from", "now", "--to", "-1h"), 2, "expected a start before the end"),
    (("episodes", "--from", "14:00"), 2, "--from: expected a day too, such as 'today 14:00'"),
    (("episodes", "--to", "soon"), 2, "--to: expected a time such as 2026-01-05T14:00Z"),
    (
        ("timeline", "--to", "2026-01-05T14:00"), 3,
        "nothing is recorded from the beginning to 2026-01-05T14:00:00Z; dev:bybit holds windows "
        "from 2026-01-05T14:00:00Z to 2026-01-05T14:11:00Z",
    ),
    (("episodes", "--from", "2026-01-05T14:11"), 3, "nothing is recorded from 2026-01-05T14:11"),
    (("timeline", "--json", "--csv"), 2, "expected one of --json, --csv"),
    (("timeline", "--output", "x"), 2, "--output: expected --json, --csv or --parquet with it"),
    (("show", "0"), 2, "has no position 0"),
    (("show", "999"), 2, "has no position 999"),
    (("show", "99999999999999999999999"), 2, "has no position 99999999999999999999999"),
    (("show", "v999"), 2, "dev:bybit has versions 1 to 24, not 999"),
    (("show", "v0"), 2, "dev:bybit has versions 1 to 24, not 0"),
    (("show", "window"), 2, "WINDOW: expected a time such as"),
    (("show", "2026-01-05T13:59:59"), 3, "no window from 2026-01-05T13:59:59Z is recorded"),
    (("show", "2026-01-05T14:11"), 3, "no window from 2026-01-05T14:11:00Z is recorded"),
    (("diff", "2026-01-05T14:02", "2026-01-05T14:01"), 2, "T1, T2: expected the earlier first"),
    (
        ("diff", "2026-01-05T14:00:59", "2026-01-05T14:05"), 3,
        "nothing was known at 2026-01-05T14:00:59Z: dev:bybit begins with the window from "
        "2026-01-05T14:00:00Z to 2026-01-05T14:01:00Z",
    ),
    (("timeline", "--env", "prod"), 3, "has no prod:bybit; it holds dev:bybit"),
]  # fmt: skip


@pytest.mark.parametrize(("question", "code", "answer"), BAD, ids=lambda part: str(part)[:40])
def test_a_bad_question_is_answered_clearly(
    story: Story, question: tuple[str, ...], code: int, answer: str
) -> None:
    outcome = ask("audit", *question)
    assert (outcome.code, outcome.out) == (code, "")
    assert answer in outcome.err


@pytest.mark.parametrize("command", ["timeline", "episodes", "show v1", "diff -1h now"])
def test_a_ledger_that_isnt_there_a_damaged_one_and_an_empty_one_are_told(
    folder: Path, command: str
) -> None:
    words = command.split()
    assert ask("audit", *words).code == 3
    Path("l.sqlite").write_bytes(b"no ledger at all, but more than a header of a hundred bytes" * 9)
    outcome = ask("audit", *words)
    assert outcome.code == 5
    assert "l.sqlite" in outcome.err


def test_a_damaged_event_is_named(story: Story) -> None:
    with closing(sqlite3.connect("l.sqlite")) as connection, connection:
        connection.execute("UPDATE stored_events SET state='{' WHERE originator_version=6")
    for command in (("timeline",), ("show", "v6"), ("episodes",)):
        outcome = ask("audit", *command)
        assert outcome.code == 5
        assert "stream dev:bybit, version 6: state_transitioned.v1 does not decode" in outcome.err


def test_a_stream_without_a_window_yet_cant_tell(folder: Path) -> None:
    store(Path("l.sqlite"), Story(SHORT).events)
    outcome = ask("audit", "timeline")
    assert (outcome.code, outcome.err) == (
        3, "Error: dev:bybit has no window yet: nothing has happened\n",
    )  # fmt: skip


def test_a_span_that_is_known_in_part_is_told_with_a_warning(story: Story) -> None:
    outcome = ask("audit", "timeline", "--from", "2026-01-05T13:00", "--to", "2026-01-06", "--json")
    assert outcome.code == 0
    assert "nothing is known of a part of it: dev:bybit holds windows from" in outcome.err
    assert json.loads(outcome.out.splitlines()[0])["version"] == 1


@pytest.mark.parametrize(
    "command", ["explain", "audit", *(f"audit {name}" for name in ("timeline", "episodes", "show"))]
)
def test_every_command_has_help_that_names_its_exit_codes(folder: Path, command: str) -> None:
    outcome = live(*command.split(), "--help")
    assert outcome.code == 0
    assert "Exit codes: " in " ".join(outcome.out.split())
