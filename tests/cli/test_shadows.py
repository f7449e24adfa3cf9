"""Shadows decide the live windows by their own policy, in their own streams, and disturb nobody."""

import json
import random
import shutil
import signal
from itertools import pairwise
from pathlib import Path

import pytest
from support import (
    ROOT,
    decisions,
    live,
    records,
    replay_rows,
    row,
    spawn,
    wait_for_version,
    write_jsonl,
)

from cli.shadowing import Shadow, Shadows
from domain.events import KpiObserved, PolicyAdopted, StateTransitioned
from domain.policy import Policy
from domain.windows import format_time
from ledger.application import Ledger, StreamState
from ledger.location import LedgerLocation
from ledger.streams import StreamKey, controllers, parse_stream_id, shadows_of
from replay.commands import commands_of_events
from replay.replaying import replay

LOOSE = "dev:bybit:shadow-loose"
STRICT = "dev:bybit:shadow-strict"
GOLDEN = sorted((ROOT / "tests" / "golden").glob("*.sqlite"))
POLICY = Policy(min_warn_windows=1, min_ok_windows=2, unfreeze_after_ok_windows=3)


@pytest.fixture(autouse=True)
def files(folder: Path) -> None:
    Path("loose.json").write_text('{"thresholds": {"min_edge_bps": -9}}')
    Path("strict.json").write_text('{"min_warn_windows": 1}')


@pytest.fixture
def incident(folder: Path) -> Path:
    """A hundred windows: ten slow ones from the twentieth on, then an edge of -4 bps for four."""
    rows = [
        row(
            index,
            edge_bps=-4.0 if 30 <= index < 34 else 3.0,
            p95_latency_ms=400.0 if 20 <= index < 30 else 180.0,
            notional=1_000.0,
        )
        for index in range(100)
    ]
    return write_jsonl(folder / "incident.jsonl", rows)


def run(feed: Path, *options: str, ledger: str = "l.sqlite") -> None:
    outcome = live("run", "--feed", f"file:{feed}", "--ledger", ledger, "--quiet", *options)
    assert outcome.code == 0, outcome.err


def states(stream: str, ledger: str = "l.sqlite") -> list[tuple[int, str]]:
    """Return where a stream went, and from when on."""
    return [
        (record.event.since_ms, record.event.state)
        for record in records(Path(ledger), stream)
        if isinstance(record.event, StateTransitioned)
    ]


def test_a_shadow_decides_as_a_replay_under_its_policy_does(incident: Path) -> None:
    run(incident, "--shadow", "loose.json", "--shadow", "strict.json")
    for stream, file in ((LOOSE, "loose.json"), (STRICT, "strict.json")):
        rows = replay_rows(incident, "--policy", file)
        observed = [
            record.event for record in records(Path("l.sqlite"), stream)
            if isinstance(record.event, KpiObserved)
        ]  # fmt: skip
        assert [
            {symbol.memory.symbol: symbol.memory.throttle for symbol in event.symbols}
            for event in observed
        ] == [window["per_symbol_throttle"] for window in rows]
        changes = [
            after["state"]
            for before, after in zip([{"state": "ACTIVE"}, *rows], rows, strict=False)
            if before["state"] != after["state"]
        ]
        assert [state for _, state in states(stream)] == changes


def test_the_controllers_stream_and_artifacts_are_as_without_shadows(incident: Path) -> None:
    run(incident, "--artifacts", "with", "--shadow", "loose.json")
    run(incident, "--artifacts", "without", ledger="alone.sqlite")
    with_shadows = decisions(records(Path("l.sqlite")))
    assert with_shadows == decisions(records(Path("alone.sqlite")))
    found = [
        json.loads(Path(folder, "LIVE_DECISION.json").read_text()) for folder in ("with", "without")
    ]
    for decision in found:
        decision.pop("ledger")
    assert found[0] == found[1]


def test_a_shadow_is_no_controllers_stream(incident: Path) -> None:
    run(incident, "--shadow", "loose.json")
    assert live("status", "--ledger", "l.sqlite").out.startswith("dev:bybit  ")
    assert len(replay_rows("l.sqlite")) == 100
    assert live("rebuild", "history", "--ledger", "l.sqlite").code == 0
    assert [path.name for path in Path("l.history").glob("*.json")] == ["dev.bybit.manifest.json"]
    ids = [
        "dev:bybit",
        "dev:bybit:dry-run",
        "dev:bybit:dry-run:shadow-x",
        LOOSE,
        "dev:okx:shadow-y",
    ]
    assert [str(parse_stream_id(stream)) for stream in ids] == ids
    assert controllers(ids) == ids[:2]
    assert shadows_of(ids, "dev:bybit") == {"loose": LOOSE}
    assert shadows_of(ids, "dev:bybit:dry-run") == {"x": "dev:bybit:dry-run:shadow-x"}


def test_a_shadow_that_comes_later_begins_in_the_state_that_the_controller_is_in(
    incident: Path,
) -> None:
    run(incident, "--iterations", "35")
    assert states("dev:bybit")[-1][1] == "FROZEN"
    run(incident, "--shadow", "loose.json")
    observed = [
        record.event.window
        for record in records(Path("l.sqlite"), LOOSE)
        if isinstance(record.event, KpiObserved)
    ]
    assert observed == [1_767_650_400_000 + 60_000 * index for index in range(35, 100)]
    # It was never ill by its own policy, and still has to earn its way out, from its own first
    # window on: one after the controller's first OK one.
    assert [state for _, state in states(LOOSE)] == ["FROZEN", "ACTIVE"]
    assert states(LOOSE)[-1][0] == 1_767_650_400_000 + 60_000 * (35 + 24)
    assert states("dev:bybit")[-1][0] == 1_767_650_400_000 + 60_000 * (34 + 24)


def test_a_shadow_that_was_left_out_for_a_run_makes_it_good(incident: Path) -> None:
    run(incident, "--iterations", "25", "--shadow", "loose.json")
    run(incident, "--iterations", "60")
    run(incident, "--shadow", "loose.json")
    run(incident, "--shadow", "loose.json", ledger="unbroken.sqlite")
    assert decisions(records(Path("l.sqlite"), LOOSE)) == decisions(
        records(Path("unbroken.sqlite"), LOOSE)
    )


def test_another_policy_of_the_same_name_is_adopted_as_a_controllers_would_be(
    incident: Path,
) -> None:
    run(incident, "--iterations", "25", "--shadow", "loose.json")
    Path("loose.json").write_text('{"thresholds": {"min_edge_bps": 2.9}}')
    run(incident, "--shadow", "loose.json")
    adopted = [
        record.event.changes
        for record in records(Path("l.sqlite"), LOOSE)
        if isinstance(record.event, PolicyAdopted)
    ]
    assert adopted == [(), ("thresholds.min_edge_bps: -9.0 -> 2.9",)]
    assert "FROZEN" in [state for _, state in states(LOOSE)]


def test_kills_leave_a_shadow_that_decided_as_an_unbroken_one(folder: Path) -> None:
    noise = random.Random(1)
    rows = [
        {**row(0, edge_bps=noise.gauss(3.6, 0.6)), "window_start": format_time(60_000 * index)}
        for index in range(700)
        if index % 97
    ]
    series = write_jsonl(folder / "series.jsonl", rows)
    for ledger in ("killed.sqlite", "unbroken.sqlite"):
        run(series, "--iterations", "5", "--shadow", "strict.json", ledger=ledger)
    version = 0
    for _ in range(6):
        process = spawn(
            "run", "--feed", f"file:{series}", "--ledger", folder / "killed.sqlite",
            "--speed", "30000", "--quiet", "--shadow", "strict.json", cwd=folder,
        )  # fmt: skip
        version = wait_for_version(
            folder / "killed.sqlite", version + noise.randint(5, 40), process
        )
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the file is too short for so many kills"
    for ledger in ("killed.sqlite", "unbroken.sqlite"):
        run(series, "--shadow", "strict.json", ledger=ledger)
    killed, unbroken = (
        decisions(records(Path(ledger), STRICT)) for ledger in ("killed.sqlite", "unbroken.sqlite")
    )
    assert killed == unbroken
    assert sum(isinstance(event, KpiObserved) for event in killed) == len(rows)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
@pytest.mark.parametrize("limit", [3, 17, 1_000])
def test_followed_in_bits_or_at_once_overrides_gaps_and_all(
    folder: Path, golden: Path, limit: int
) -> None:
    copy = Path(shutil.copy(golden, folder))
    with Ledger.open(LedgerLocation(copy)) as ledger:
        for stream_id in controllers(ledger.stream_ids()):
            key = parse_stream_id(stream_id)
            beside = StreamKey(key.env, key.exchange, key.dry_run, "candidate")
            shadow = Shadow(ledger, StreamState(stream_id), beside, POLICY)
            window = None
            while shadow.catch_up(limit):
                if shadow.stream.state.window != window:
                    # A run that is killed here, and started again.
                    window = shadow.stream.state.window
                    shadow = Shadow(ledger, StreamState(stream_id), beside, POLICY)
            events = [record.event for record in ledger.records(stream_id)]
            commands = commands_of_events(
                events, policy=POLICY, symbols=None, profile=None, keep_profile=True
            )
            rows = list(replay(commands))
            state = shadow.stream.state
            assert state == ledger.stream(str(beside)).state
            assert len(rows) > 1
            assert state.trading_state is rows[-1].state
            assert state.effective_throttles() == rows[-1].effective_throttle
            transitions = [
                after.state for before, after in pairwise(rows) if before.state is not after.state
            ]
            assert state.counts.windows + state.counts.gaps >= len(rows)
            assert state.counts.transitions >= len(transitions)


def test_a_shadow_that_fails_is_told_of_once_and_dropped_and_the_others_go_on(
    incident: Path,
) -> None:
    run(incident)
    told: list[str] = []
    with Ledger.open(LedgerLocation(Path("l.sqlite"))) as ledger:
        start = StreamState("dev:bybit")
        key = StreamKey("dev", "bybit", shadow="loose")
        other = StreamKey("dev", "bybit", shadow="strict")
        shadows = Shadows(
            [Shadow(ledger, start, key, POLICY), Shadow(ledger, start, other, POLICY)], told.append
        )
        # Somebody else writes to the stream of the first.
        Shadow(ledger, start, key, POLICY).catch_up(1_000)
        shadows.catch_up()
        shadows.finish()
        assert ledger.stream(STRICT).state.counts.windows == 100
    assert len(told) == 1
    assert told[0].startswith("shadow loose is dropped: another runner has written to ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shadow", "none.json"], "--shadow: none.json can't be read"),
        (["--shadow", "bad.json"], "bad.json: unknown key 'x'"),
        (["--shadow", "a b.json"], "--shadow: expected a name of 1 to 32 of a-z 0-9 _ -"),
        (
            ["--shadow", "loose.json", "--shadow", "sub/LOOSE.json"],
            "--shadow: loose is there twice",
        ),
        (["--shadow", "two.json"], "--shadow two: global_freeze_symbols: expected at most"),
    ],
)
def test_a_shadow_that_cannot_be_is_refused_before_anything_is_written(
    incident: Path, options: list[str], message: str
) -> None:
    Path("sub").mkdir()
    for name in ("a b.json", "sub/LOOSE.json"):
        Path(name).write_text("{}")
    Path("bad.json").write_text('{"x": 1}')
    Path("two.json").write_text('{"global_freeze_symbols": 2}')
    outcome = live("run", "--feed", f"file:{incident}", "--ledger", "l.sqlite", *options)
    assert outcome.code == 2
    assert message in outcome.err
    assert not Path("l.sqlite").exists() or records(Path("l.sqlite")) == []


def test_replay_shows_how_shadows_would_have_differed(incident: Path) -> None:
    run(incident, "--shadow", "loose.json", "--shadow", "strict.json")
    found = json.loads(live("replay", "l.sqlite", "--shadow", "--json").out)
    results = {result["name"]: result for result in found["results"]}
    assert list(results) == ["recorded", "loose", "strict", "always on", "always off"]
    replayed = json.loads(
        live(
            "replay", "l.sqlite", "--policy", "loose.json", "--policy", "strict.json", "--json"
        ).out
    )
    for result in replayed["results"]:
        shadow = results[result["name"].removesuffix(".json")]
        assert {**shadow, "name": ""} == {
            **result, "name": "", "policy_hash": shadow["policy_hash"],
        }  # fmt: skip
    assert results["loose"]["divergence"]["first"] == "2026-01-05T22:30:00Z"
    assert results["loose"]["policy_hash"] == replayed["results"][1]["policy_hash"]


def test_windows_that_not_all_have_are_left_out_of_the_comparison(incident: Path) -> None:
    run(incident, "--iterations", "35", "--shadow", "strict.json")
    run(incident, "--shadow", "strict.json", "--shadow", "loose.json")
    found = json.loads(live("replay", "l.sqlite", "--shadow", "--json").out)
    assert (found["first"], found["windows"]) == ("2026-01-05T22:35:00Z", 65)
    assert found["results"][0]["freezes"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["replay", "l.sqlite", "--shadow"], 3, "dev:bybit has no shadow; run it with --shadow"),
        (["replay", "incident.jsonl", "--shadow"], 2, "--shadow: expected a ledger, was the file"),
        (
            ["replay", "l.sqlite", "--shadow", "--policy", "loose.json"],
            2,
            "--shadow: expected no --policy and no --ramp-profile beside it",
        ),
        (["accuracy", "--ledger", "l.sqlite"], 3, "dev:bybit has no shadow; run it with --shadow"),
        (
            ["accuracy", "--ledger", "l.sqlite", "--shadow", "x"],
            3,
            "dev:bybit has no shadow x; it has none",
        ),
        (["accuracy", "--ledger", "none.sqlite"], 3, "none.sqlite"),
    ],
)
def test_where_there_is_no_shadow_nothing_can_be_told(
    incident: Path, arguments: list[str], code: int, message: str
) -> None:
    run(incident)
    outcome = live(*arguments)
    assert outcome.code == code
    assert message in outcome.err


def test_accuracy_passes_fails_and_cannot_tell(incident: Path) -> None:
    run(incident, "--shadow", "loose.json", "--shadow", "strict.json")
    ledger = ("--ledger", "l.sqlite")
    strict = live("accuracy", *ledger, "--shadow", "strict")
    assert strict.code == 0
    assert strict.out.startswith("PASS       strict: 98 of 100 windows agree (98.0%)\n")
    assert "first difference 2026-01-05T22:20:00Z; live/shadow: " in strict.out
    assert "ACTIVE/COOLDOWN 2" in strict.out
    both = live("accuracy", *ledger)
    assert both.code == 1
    assert "FAIL       loose: 73 of 100 windows agree" in both.out
    assert "more trading in 27, less in 0" in both.out
    assert live("accuracy", *ledger, "--last", "20", "--min-windows", "20").code == 0
    short = live("accuracy", *ledger, "--last", "20")
    assert (short.code, short.out[:10]) == (3, "CAN'T TELL")
    found = json.loads(live("accuracy", *ledger, "--json").out)
    assert [(one["verdict"], one["agreement"]["looser"]) for one in found] == [
        ("FAIL", 27), ("PASS", 0),
    ]  # fmt: skip


def test_a_dry_run_beside_can_be_held_against_the_live_decisions(incident: Path) -> None:
    run(incident)
    run(incident, "--dry-run")
    outcome = live("accuracy", "--ledger", "l.sqlite", "--env", "dev", "--exchange", "bybit")
    assert (outcome.code, outcome.out.splitlines()[0]) == (
        0,
        "PASS       dry-run: 100 of 100 windows agree (100.0%)",
    )
