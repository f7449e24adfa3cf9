"""`live explain`: why, since when, and how far the way out is, as it was known then."""

import csv
import io
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from audit_support import ask, lines_of, store, stored
from decider_spec import BTC, CRIT, ETH, NO_FILLS, SHORT, WARN, at, profile, readings
from decider_spec import Ledger as Story
from hypothesis import given, settings
from random_stories import Step, ledgers, stories, tell
from support import live, row, write_jsonl

from domain.commands import ObserveClock
from domain.policy import Policy
from domain.windows import format_time
from ledger.application import Ledger
from ledger.location import LedgerLocation
from ledger.reading import stream_at_time
from projections.explaining import explain
from projections.freshness import is_stale


def explained(story: Story, minute: float, *options: str) -> dict[str, Any]:
    """Return the explanation of a story at a minute after 14:00."""
    Path("l.sqlite").unlink(missing_ok=True)
    stored(story)
    outcome = ask("explain", "--at", format_time(at(minute)), "--json", *options)
    assert outcome.code == 0, outcome.err
    view: dict[str, Any] = json.loads(outcome.out)
    return view


def incident() -> Story:
    """Frozen at 14:03 by BTCUSDT, a WARN at 14:04, then five OK windows."""
    story = Story(Policy(), BTC, ETH, limits=profile(1))
    story.windows(2)
    story.windows(1, BTCUSDT=readings(risk_ratio=0.45, p95_latency_ms=400.0))
    story.windows(1, BTCUSDT=WARN)
    story.windows(5)
    return story


def test_a_freeze_is_explained_with_rules_way_back_and_symbols(folder: Path) -> None:
    view = explained(incident(), 9.5)
    assert (view["state"], view["throttle"], view["previous_state"]) == ("FROZEN", 0.0, "ACTIVE")
    assert (view["since"], view["for_sec"]) == ("2026-01-05T14:03:00Z", 360.0)
    assert view["reasons"] == ["risk=0.45 > 0.40", "p95_latency=400 > 350"]
    risk, latency = view["deciding"]["violations"]
    assert (risk["value"], risk["threshold"], risk["verdict"]) == (0.45, 0.4, "CRIT")
    assert risk["margin"] == pytest.approx(0.05)
    assert (latency["value"], latency["margin"], latency["verdict"]) == (400.0, 50.0, "WARN")
    assert view["deciding"]["window"]["start"] == "2026-01-05T14:02:00Z"
    assert view["hysteresis"] == {
        "ok_windows": 5, "required": 24,
        "last_reset": {
            "window": "2026-01-05T14:03:00Z", "symbol": BTC, "reasons": ["p95_latency=360 > 350"],
        },
    }  # fmt: skip
    assert view["exits"] == [
        {
            "to": "ACTIVE", "needs": "19 more OK windows in a row",
            "note": "COOLDOWN first, if a waiver excuses a KPI in one of them", "windows": 19,
            "earliest": "2026-01-05T14:28:00Z", "blocked_by": [],
        }
    ]  # fmt: skip
    btc, eth = view["symbols"]
    assert (btc["frozen"], btc["ok_windows"], btc["required"]) == (True, 5, 24)
    assert btc["last_reset"]["reasons"] == ["p95_latency=360 > 350"]
    assert btc["limited_by"] == [
        "the global state FROZEN: 0", "its own freeze, 5 of 24 OK windows in a row: 0",
    ]  # fmt: skip
    assert eth["limited_by"] == [
        "beyond the limit of profile P (1 symbols): 0", "the global state FROZEN: 0",
    ]  # fmt: skip
    assert view["stale"] is False


def test_the_text_says_the_same(folder: Path) -> None:
    stored(incident())
    lines = lines_of("explain", "--at", "2026-01-05T14:09:30")
    assert lines[:9] == [
        "dev:bybit  FROZEN  0  at 2026-01-05T14:09:30Z",
        "since       2026-01-05T14:03:00Z, for 6 min; ACTIVE before",
        "cause       BTCUSDT risk=0.45 > 0.40, p95_latency=400 > 350",
        "            BTCUSDT risk=0.45 > 0.40  CRIT, 0.05 beyond",
        "            BTCUSDT p95_latency=400 > 350  WARN, 50 beyond",
        "window      2026-01-05T14:08:00Z to 2026-01-05T14:09:00Z: OK, 30 s ago",
        "way back    5 of 24 OK windows in a row to leave FROZEN; last reset at "
        "2026-01-05T14:03:00Z: BTCUSDT p95_latency=360 > 350.",
        "to ACTIVE   19 more OK windows in a row, at the earliest 2026-01-05T14:28:00Z; "
        "COOLDOWN first, if a waiver excuses a KPI in one of them",
        "",
    ]
    detail = lines_of("explain", "--at", "2026-01-05T14:04", "--symbol", BTC)
    assert detail[-6:] == [
        "BTCUSDT's KPIs in the last window",
        "edge_bps           3.5          at least 2.5: OK, 1 of room",
        "maker_taker_ratio  0.9          at least 0.83: OK, 0.07 of room",
        "risk_ratio         0.2          at most 0.40: OK, 0.2 of room",
        "p95_latency_ms     360          at most 350: WARN, 10 beyond",
        "anomaly_score      0.5          at most 2.0: OK, 1.5 of room",
    ]


def test_csv_and_parquet_have_a_row_for_each_symbol_and_kpi(folder: Path) -> None:
    view = explained(incident(), 9.5)
    asked = ("explain", "--at", "2026-01-05T14:09:30")
    outcome = ask(*asked, "--csv")
    assert outcome.code == 0, outcome.err
    rows = list(csv.DictReader(io.StringIO(outcome.out)))
    of_json = [(one["symbol"], kpi["kpi"]) for one in view["symbols"] for kpi in one["kpis"]]
    assert [(found["symbol"], found["kpi"]) for found in rows] == of_json
    assert {(found["state"], found["stale"], found["at"]) for found in rows} == {
        ("FROZEN", "false", "2026-01-05T14:09:30Z")
    }
    assert int(rows[0]["version"]) == view["ledger"]["version"]
    assert ask(*asked, "--parquet", "--output", "e.parquet").code == 0
    written = pq.read_table("e.parquet").to_pylist()
    assert [found["threshold"] for found in written] == [float(row["threshold"]) for row in rows]
    alone = ask(*asked, "--csv", "--symbol", "ETHUSDT").out
    assert {found["symbol"] for found in csv.DictReader(io.StringIO(alone))} == {"ETHUSDT"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--csv", "--what-if", "risk_ratio=0.3"), "--csv: expected no --what-if with it"),
        (("--csv", "--json"), "expected one of --json, --csv"),
        (("--json", "--output", "e.json"), "--output: expected --csv or --parquet with it"),
    ],
)
def test_forms_that_do_not_go_together_are_refused(
    folder: Path, options: tuple[str, ...], told: str
) -> None:
    stored(incident())
    outcome = ask("explain", "--at", "2026-01-05T14:09", *options)
    assert (outcome.code, told in outcome.err) == (2, True), outcome.err


def test_active_says_what_would_lead_out_of_it(folder: Path) -> None:
    story = Story(Policy())
    story.windows(2, WARN)
    view = explained(story, 2)
    assert (view["state"], view["since"], view["deciding"]) == ("ACTIVE", None, None)
    assert [(way["to"], way["needs"], way["earliest"]) for way in view["exits"]] == [
        ("COOLDOWN", "1 more WARN window in a row", "2026-01-05T14:03:00Z"),
        ("FROZEN", "one CRIT window", "2026-01-05T14:03:00Z"),
    ]


def test_a_waiver_s_help_leads_to_probation_first(folder: Path) -> None:
    story = Story(SHORT)
    story.windows(1, CRIT)
    story.windows(1, NO_FILLS)
    view = explained(story, 2)
    assert (view["exits"][0]["to"], view["exits"][0]["windows"]) == ("COOLDOWN", 2)
    excused = {kpi["kpi"]: kpi["excused"] for kpi in view["symbols"][0]["kpis"]}
    assert excused["edge_bps"] and not excused["risk_ratio"]
    assert "edge_bps           no data      at least 2.5: absent, excused by a waiver" in lines_of(
        "explain", "--at", "2026-01-05T14:02", "--symbol", BTC
    )


def test_overrides_say_what_they_bound_and_block(folder: Path) -> None:
    story = Story(SHORT, BTC, ETH)
    story.windows(1)
    story.override("freeze", minutes=10.0)
    story.override("cap", ETH, cap=0.25)
    view = explained(story, 2)
    assert view["deciding"] is None
    assert view["reasons"] == ["override freeze by kim: drill"]
    (way,) = view["exits"]
    assert way["blocked_by"] == ["freeze by kim: drill, until 2026-01-05T14:11:30Z"]
    # Held to 14:11:30: the window from 14:12 is the first that counts.
    assert (way["windows"], way["earliest"]) == (3, "2026-01-05T14:15:00Z")
    assert view["symbols"][1]["limited_by"] == [
        "the global state FROZEN: 0", "cap 0.25 ETHUSDT by kim: drill: 0.25",
    ]  # fmt: skip
    assert [override["kind"] for override in view["overrides"]] == ["freeze", "cap"]


def test_a_freeze_until_it_is_cleared_has_no_earliest_end(folder: Path) -> None:
    story = Story(SHORT)
    story.windows(1)
    story.override("freeze")
    (way,) = explained(story, 2)["exits"]
    assert way["earliest"] is None
    assert way["blocked_by"] == ["freeze by kim: drill, until it is cleared"]


def test_a_clock_that_is_behind_blocks_everything(folder: Path) -> None:
    story = Story(SHORT)
    story.windows(3)
    story.when(ObserveClock(window=at(0)))
    view = explained(story, 3)
    assert view["clock_behind"] is True
    assert view["exits"][0]["earliest"] is None
    assert "clock       behind the ledger: no window can be decided" in lines_of(
        "explain", "--at", "2026-01-05T14:03"
    )


def test_no_data_and_what_isnt_required_are_told_apart(folder: Path) -> None:
    story = Story(SHORT)
    story.windows(1, readings(risk_ratio=-1.0, anomaly_score=None, p95_latency_ms=None))
    stored(story)
    lines = lines_of("explain", "--at", "2026-01-05T14:01", "--symbol", BTC)
    assert lines[-3:] == [
        "risk_ratio         no data      at most 0.40: WARN, -1.0 arrived (1 windows)",
        "p95_latency_ms     no data      at most 350: WARN, absent (1 windows)",
        "anomaly_score      no data      at most 2.0: absent, not required",
    ]


def test_what_came_later_is_not_known_then(folder: Path) -> None:
    story = incident()
    story.skip(30)
    story.windows(1)
    view = explained(story, 9.5)
    assert (view["counts"]["windows"], view["ledger"]["version"]) == (9, 13)
    assert "gaps" not in view["counts"]


def test_a_time_in_a_gap_is_stale(folder: Path) -> None:
    story = Story(SHORT)
    story.windows(3)
    story.skip(30)
    story.windows(1)
    stored(story)
    outcome = ask("explain", "--at", "2026-01-05T14:05:02.001")
    assert outcome.code == 3
    assert outcome.out.startswith("dev:bybit  STALE ACTIVE  1  at 2026-01-05T14:05:02.001Z")
    assert outcome.err == (
        "Error: STALE at 2026-01-05T14:05:02.001Z: the last window known then ended "
        "2026-01-05T14:03:00Z; nothing is to be believed past 2026-01-05T14:05:02Z\n"
    )
    assert ask("explain", "--at", "2026-01-05T14:05:02").code == 0


def test_now_is_stale_for_a_recorded_file_and_not_for_a_fresh_run(folder: Path) -> None:
    path = write_jsonl(folder / "x.jsonl", [row(0), row(1)])
    live("run", "--feed", f"file:{path}", "--ledger", "l.sqlite")
    outcome = ask("explain", "--json")
    assert outcome.code == 3
    assert json.loads(outcome.out)["stale"] is True
    live("run", "--dry-run", "--feed", "mock://incident", "--iterations", "40")
    outcome = live("explain")
    assert outcome.code == 0
    assert "way back    0 of 24 OK windows in a row to leave FROZEN" in outcome.out


def test_a_ledger_ahead_of_the_clock_is_never_believed(folder: Path) -> None:
    path = write_jsonl(folder / "x.jsonl", [{**row(0), "window_start": "2099-01-05T22:00:00Z"}])
    live("run", "--feed", f"file:{path}", "--ledger", "l.sqlite")
    outcome = ask("explain")
    assert outcome.code == 3
    assert "STALE" in outcome.out


BAD = [
    (("--at", "2026-01-05T14:00:59"), 3, "nothing was known at 2026-01-05T14:00:59Z: dev:bybit "
     "begins with the window from 2026-01-05T14:00:00Z to 2026-01-05T14:01:00Z"),
    (("--at", "whenever"), 2, "--at: expected a time such as"),
    (("--symbol", "XRPUSDT"), 2, "--symbol: dev:bybit has BTCUSDT, ETHUSDT, not XRPUSDT"),
    (("--windows", "5"), 2, "--windows: expected --what-if with it"),
    (("--what-if", "edge_bps"), 2, "--what-if: expected NAME=VALUE, was 'edge_bps'"),
    (("--what-if", "edge=2"), 2, "--what-if: unknown name 'edge'; known: edge_bps, maker_taker"),
    (("--what-if", "edge_bps=much"), 2, "--what-if: expected a finite number after =, was"),
    (("--what-if", "edge_bps=1", "--what-if", "edge_bps=2", "--symbol", BTC), 2,
     "--what-if: expected each name once, was edge_bps twice"),
    (("--what-if", "edge_bps=nan"), 2, "--what-if: expected a finite number after =, was"),
    (("--what-if", "max_risk=-1"), 2, "--what-if: thresholds.max_risk: expected a finite number"),
    (("--what-if", "min_ok_windows=2.5"), 2, "--what-if: "),
    (("--what-if", "min_ok_windows=5", "--symbol", BTC), 2, "min_ok_windows is everybody's"),
    (("--what-if", "min_ok_windows=99"), 2, "--what-if: unfreeze_after_ok_windows: expected"),
    (("--what-if", "edge_bps=1"), 2, "--what-if: the window was OK; name one of BTCUSDT, ETHUSDT"),
    (("--what-if", "edge_bps=1", "--symbol", "SOLUSDT"), 2, "--symbol: dev:bybit has BTCUSDT"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "code", "answer"), BAD, ids=lambda part: str(part)[:40])
def test_a_bad_question_is_answered_clearly(
    folder: Path, options: tuple[str, ...], code: int, answer: str
) -> None:
    stored(incident())
    when = () if "--at" in options else ("--at", "2026-01-05T14:09")
    outcome = ask("explain", *when, *options)
    assert (outcome.code, outcome.out) == (code, "")
    assert answer in outcome.err


def test_a_symbol_that_came_later_is_told_as_that(folder: Path) -> None:
    story = incident()
    story.adopt(Policy(), BTC, ETH, "SOLUSDT")
    story.windows(1)
    stored(story)
    outcome = ask("explain", "--at", "2026-01-05T14:09", "--symbol", "SOLUSDT")
    assert outcome.code == 2
    assert "had BTCUSDT, ETHUSDT at 2026-01-05T14:09:00Z, not SOLUSDT" in outcome.err


def test_a_damaged_snapshot_is_said_and_changes_nothing(folder: Path) -> None:
    stored(incident())
    with Ledger.open(LedgerLocation(Path("l.sqlite"))) as ledger:
        ledger.take_state_snapshot(ledger.stream("dev:bybit"))
    whole = ask("explain", "--at", "2026-01-05T14:09")
    with closing(sqlite3.connect("l.sqlite")) as connection, connection:
        connection.execute("UPDATE stored_snapshots SET state=replace(state, 'FROZEN', 'ACTIVE')")
        assert connection.total_changes == 1
    outcome = ask("explain", "--at", "2026-01-05T14:09")
    assert (outcome.code, outcome.out) == (0, whole.out)
    assert "has another digest than its own; it was ignored" in outcome.err
    for command in ("status", "report"):
        assert "has another digest than its own; it was ignored" in ask(command).err


def test_what_if_tells_both_decisions_and_what_followed(folder: Path) -> None:
    story = Story(SHORT, BTC, ETH)
    story.windows(1)
    story.windows(1, BTCUSDT=CRIT)
    story.windows(4)
    stored(story)
    when = ("explain", "--at", "2026-01-05T14:02", "--what-if")
    assert lines_of(*when, "risk_ratio=0.3") == [
        "dev:bybit  what if BTCUSDT risk_ratio 0.3 instead of 0.45",
        "window      2026-01-05T14:01:00Z to 2026-01-05T14:02:00Z, v4",
        "recorded    CRIT, FROZEN 0",
        "            BTCUSDT risk=0.45 > 0.40  CRIT",
        "            may trade BTCUSDT 0, ETHUSDT 0",
        "what if     OK, ACTIVE 1",
        "            may trade BTCUSDT 1, ETHUSDT 1",
        "exact       until 2026-01-05T14:02:00Z: from then on something else may be traded, which "
        "would have changed what was measured; what follows is a MODEL",
        "then        4 windows, until 2026-01-05T14:06:00Z",
        "recorded    2 ACTIVE, 2 FROZEN",
        "            2026-01-05T14:05:00Z  FROZEN -> ACTIVE (1): recovered after 3 OK windows",
        "what if     4 ACTIVE",
    ]
    view = json.loads("\n".join(lines_of(*when, "edge_bps=2.6", "--json")))
    assert view["exact_until"] is None
    assert view["changed"] == view["recorded"]
    view = json.loads("\n".join(lines_of(*when, "max_risk=0.5", "--windows", "1", "--json")))
    assert view["change"] == ["thresholds.max_risk 0.5 instead of 0.4"]
    assert (view["windows"], view["is_cut"], view["until"]) == (1, True, "2026-01-05T14:03:00Z")
    assert view["changed"]["state"] == "ACTIVE"


def test_what_if_takes_several_and_absent(folder: Path) -> None:
    story = Story(SHORT, BTC, ETH)
    story.windows(3)
    stored(story)
    when = ("explain", "--at", "2026-01-05T14:01", "--symbol", ETH, "--json")
    changes = ("--what-if", "edge_bps=none", "--what-if", "max_risk=0.1")
    view = json.loads("\n".join(lines_of(*when, *changes)))
    assert view["change"] == [
        "ETHUSDT edge_bps - instead of 3.5", "symbols.ETHUSDT.max_risk 0.1 instead of 0.4",
    ]  # fmt: skip
    assert [one["reason"] for one in view["changed"]["violations"]] == [
        "edge_bps=no data (1 windows)", "risk=0.20 > 0.10",
    ]  # fmt: skip
    assert [(one["state"], one["exact"]) for one in view["changed_after"]] == []
    assert view["changed_windows"] == {"ACTIVE": 0, "COOLDOWN": 0, "FROZEN": 2}


@settings(max_examples=60, deadline=None)
@given(story=ledgers(), steps=stories)
def test_every_state_can_be_explained_and_never_beyond_its_time(
    tmp_path_factory: pytest.TempPathFactory, story: Story, steps: list[Step]
) -> None:
    story.windows(1)
    tell(story, steps)
    path = tmp_path_factory.mktemp("story") / "ledger.sqlite"
    store(path, story.events)
    last_ms = story.next_window
    with Ledger.open(LedgerLocation(path), read_only=True) as ledger:
        for at_ms in range(at(1), last_ms + 5 * 60_000, 60_000):
            stream = stream_at_time(ledger, "dev:bybit", at_ms)
            view = explain(ledger, stream, at_ms)
            state = stream.state
            assert state.observed is not None
            assert view.stale == is_stale(state, at_ms)
            assert view.state == state.trading_state
            if view.deciding is not None:
                assert tuple(one.reason for one in view.deciding.violations) == state.reasons
            for symbol in view.symbols:
                bounds = [float(text.rpartition(": ")[2]) for text in symbol.limited_by]
                assert symbol.effective_throttle == min([1.0, *bounds])
            for way in view.exits:
                assert way.windows is not None
                assert way.windows >= 1


def test_the_golden_incident_is_explained_as_it_always_was(folder: Path) -> None:
    shutil.copy(Path(__file__).parents[1] / "golden" / "incident-1.sqlite", "l.sqlite")
    view = json.loads(ask("explain", "--at", "2026-01-05T00:21:30", "--json").out)
    assert (view["state"], view["reasons"]) == ("COOLDOWN", ["recovered after 4 OK windows"])
    assert view["hysteresis"]["last_reset"]["reasons"] == [
        "edge_bps=no data (3 windows)", "maker_taker=no data (3 windows)",
    ]  # fmt: skip
    assert view["symbols"][0]["limited_by"] == [
        "the global state COOLDOWN: 0.5", "its own probation, 1 of 3 OK windows in a row: 0.5",
    ]  # fmt: skip
