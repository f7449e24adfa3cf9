"""A bundle decides elsewhere what was decided here; one that was tampered with decides nothing."""

import json
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import Outcome, live, records, replay_rows, row, write_jsonl

from domain.controller import evolve
from domain.events import GapObserved, KpiObserved, TradingState
from domain.state import State
from ledger.bundle import EVENTS, MANIFEST, STATE_BEFORE, open_bundle
from replay.replaying import row_after

Files = dict[str, bytes]

FROM_20 = {"ACTIVE": 23, "COOLDOWN": 12, "FROZEN": 35}
"""Windows in each state from minute 20 on: frozen until 55, on probation for 12 windows."""


def troubled(index: int) -> dict[str, Any]:
    """Return what is wrong in a window: WARN from 5 to 8, CRIT in 12, no edge from 50 to 53."""
    if 5 <= index <= 8:
        return {"p95_latency_ms": 400.0}
    if index == 12:
        return {"risk_ratio": 0.45, "edge_bps": 2.4999}
    return {"edge_bps": None} if 50 <= index <= 53 else {}


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ninety minutes of two symbols: a cooldown, a freeze, a gap in 30 and 31, a freeze again."""
    folder = tmp_path_factory.mktemp("desk")
    rows = [
        row(index, symbol, **(troubled(index) if symbol == "ETHUSDT" else {}))
        for index in range(90)
        for symbol in ("BTCUSDT", "ETHUSDT")
        if index not in (30, 31)
    ]
    feed, path = write_jsonl(folder / "kpis.jsonl", rows), folder / "desk.sqlite"
    args = ("--ledger", path, "--artifacts", folder / "a", "--ramp-profile", "B", "--quiet")
    assert live("run", "--feed", f"file:{feed}", *args).code == 0
    return path


@pytest.fixture(scope="module")
def made(ledger: Path) -> Callable[..., bytes]:
    """Return a function that makes a bundle of a span, once each."""

    @cache
    def make(*span: str) -> bytes:
        file = ledger.with_name("made.zip")
        outcome = live("audit", "bundle", file, "--ledger", ledger, *span)
        assert outcome.code == 0, outcome.err
        return file.read_bytes()

    return make


@pytest.fixture
def elsewhere(tmp_path: Path, made: Callable[..., bytes]) -> Callable[..., Path]:
    """Return a function that makes a bundle and takes it where there is nothing else."""

    def take(*span: str) -> Path:
        bundle = tmp_path / "incident.zip"
        bundle.write_bytes(made(*span))
        return bundle

    return take


def recorded_rows(ledger: Path, *, from_: str, to: str) -> list[dict[str, Any]]:
    """Return what was recorded after each window that starts in a span, as a replay shows it."""
    state = State()
    rows: list[dict[str, Any]] = []
    window: KpiObserved | GapObserved | None = None
    for record in records(ledger):
        state = evolve(state, record.event)
        if isinstance(record.event, KpiObserved | GapObserved):
            window = record.event
            rows.append({})
        if window is not None:
            rows[-1] = json.loads(msgspec.json.encode(row_after(state, window)))
    return [found for found in rows if from_ <= found["window"] < to]


@pytest.mark.parametrize(
    ("span", "from_", "to"),
    [
        ((), "2026-01-05T22:00", "2026-01-06"),
        (("--from", "2026-01-05T22:10Z"), "2026-01-05T22:10", "2026-01-06"),
        (("--to", "2026-01-05T22:40Z"), "2026-01-05T22:00", "2026-01-05T22:40"),
        # It begins within the freeze, with the window after the gap.
        (
            ("--from", "2026-01-05T22:32Z", "--to", "2026-01-05T23:05Z"),
            "2026-01-05T22:32",
            "2026-01-05T23:05",
        ),
        (
            ("--from", "2026-01-05T22:13Z", "--to", "2026-01-05T22:14Z"),
            "2026-01-05T22:13",
            "2026-01-05T22:14",
        ),
    ],
)
def test_a_bundle_decides_elsewhere_as_was_recorded(
    ledger: Path, elsewhere: Callable[..., Path], span: tuple[str, ...], from_: str, to: str
) -> None:
    bundle = elsewhere(*span)
    expected = recorded_rows(ledger, from_=from_, to=to)
    assert replay_rows(bundle) == expected
    assert len(expected) >= 1


def test_the_whole_ledger_and_its_bundle_replay_alike_under_another_policy(
    ledger: Path, elsewhere: Callable[..., Path], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"thresholds": {"max_risk": 0.5, "max_latency_ms": 300}}))
    bundle = elsewhere()
    rows = replay_rows(bundle, "--policy", policy)
    assert rows == replay_rows(ledger, "--policy", policy)
    assert rows != replay_rows(bundle)


def test_a_stretch_is_decided_under_another_policy_from_the_state_before_it(
    elsewhere: Callable[..., Path], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"unfreeze_after_ok_windows": 12}))
    bundle = elsewhere("--from", "2026-01-05T22:14Z")
    assert replay_rows(bundle)[0]["state"] == "FROZEN"
    states = [found["state"] for found in replay_rows(bundle, "--policy", policy)]
    assert states.index("ACTIVE") == 11


def test_policies_are_compared_over_a_bundle(elsewhere: Callable[..., Path]) -> None:
    outcome = live("replay", elsewhere("--from", "2026-01-05T22:20Z"), "--compare", "--json")
    assert outcome.code == 0, outcome.err
    recorded, again, *_ = json.loads(outcome.out)["results"]
    assert again["divergence"]["first"] is None
    # It begins in the freeze, which is no transition of this stretch.
    assert (recorded["transitions"], recorded["freezes"]) == (2, 0)
    assert recorded["windows_in"] == again["windows_in"] == FROM_20


def test_events_are_the_ledgers_bytes_and_the_same_stretch_gives_the_same_bundle(
    ledger: Path, elsewhere: Callable[..., Path]
) -> None:
    span = ("--from", "2026-01-05T22:10Z", "--to", "2026-01-05T22:40Z")
    bundle, again = elsewhere(*span), ledger.with_name("again.zip")
    assert live("audit", "bundle", again, "--ledger", ledger, *span).code == 0
    assert again.read_bytes() == bundle.read_bytes()
    opened = open_bundle(bundle)
    manifest = opened.manifest
    of_ledger = records(ledger)[manifest.first_version - 1 : manifest.last_version]
    in_bundle = list(opened.records())
    assert [(r.version, r.event, r.decided_at_ms) for r in in_bundle] == [
        (r.version, r.event, r.decided_at_ms) for r in of_ledger
    ]
    assert opened.before.trading_state is TradingState.COOLDOWN
    assert (manifest.from_window, manifest.to_window) == (
        "2026-01-05T22:10:00Z",
        "2026-01-05T22:40:00Z",
    )


def test_people_find_a_report_policies_history_and_a_plot_in_it(
    elsewhere: Callable[..., Path],
) -> None:
    files = contents(elsewhere("--from", "2026-01-05T22:10Z", "--to", "2026-01-05T22:30Z"))
    report = files["report.md"].decode()
    assert "**FROZEN** 2026-01-05T22:13:00Z" in report
    assert "ETHUSDT edge\\_bps=2.4999 \\< 2.5, risk=0.45 \\> 0.40" in report
    (policy,) = json.loads(files["policies.json"])
    assert policy["symbols"] == ["BTCUSDT", "ETHUSDT"]
    assert files["plot.svg"].startswith(b"<svg")
    assert {name for name in files if name.startswith("history/")} >= {
        "history/windows.parquet",
        "history/kpis.parquet",
        "history/transitions.parquet",
    }


def contents(bundle: Path) -> Files:
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def tampered(bundle: Path, files: Mapping[str, bytes], *more: tuple[str, bytes]) -> Path:
    """Write a bundle of just these files, and of more, which may have the same names."""
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (*files.items(), *more):
            archive.writestr(name, content)
    return bundle


def renamed(manifest: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(manifest), **changes}).encode()


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (lambda f: {**f, EVENTS: f[EVENTS].replace(b"0.22", b"0.23", 1)}, f"{EVENTS} isn't what"),
        (lambda f: {**f, EVENTS: f[EVENTS][:-50]}, f"{EVENTS} isn't what"),
        (lambda f: {**f, EVENTS: f[EVENTS] + b"\n"}, f"{EVENTS} isn't what"),
        (lambda f: {**f, STATE_BEFORE: b"{}"}, f"{STATE_BEFORE} isn't what"),
        (lambda f: {k: v for k, v in f.items() if k != EVENTS}, "expected just the"),
        (lambda f: {k: v for k, v in f.items() if k != MANIFEST}, "is it a bundle?"),
        (lambda f: {**f, "../evil": b""}, "expected just the"),
        (lambda f: {**f, MANIFEST: b"{"}, MANIFEST),
        (lambda f: {**f, MANIFEST: b"x" * (2 << 20)}, "too large"),
        (lambda f: {**f, MANIFEST: renamed(f[MANIFEST], format=2)}, "expected format 1, was 2"),
        (lambda f: {**f, MANIFEST: renamed(f[MANIFEST], fold_version=0)}, "fold version 0"),
        (lambda f: {**f, MANIFEST: renamed(f[MANIFEST], files=[])}, "expected just the 1 files"),
        (lambda f: {**f, MANIFEST: renamed(f[MANIFEST], first_version=7)}, "expected version 7"),
        (lambda f: {**f, MANIFEST: renamed(f[MANIFEST], last_version=999)}, "at its end, was"),
    ],
)
def test_a_bundle_that_is_not_as_it_was_made_is_refused(
    elsewhere: Callable[..., Path], tamper: Callable[[Files], Files], told: str
) -> None:
    bundle = elsewhere()
    tampered(bundle, tamper(contents(bundle)))
    assert_refused(live("replay", bundle), bundle, told)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_file_that_is_there_twice_is_refused(elsewhere: Callable[..., Path]) -> None:
    bundle = elsewhere()
    files = contents(bundle)
    tampered(bundle, files, (EVENTS, files[EVENTS]))
    assert_refused(live("replay", bundle), bundle, "each once")


def test_a_bomb_is_read_no_further_than_the_manifest_says(elsewhere: Callable[..., Path]) -> None:
    bundle = elsewhere()
    files = contents(bundle)
    tampered(bundle, {**files, EVENTS: b"\0" * (200 << 20)})
    assert_refused(live("replay", bundle), bundle, f"{EVENTS} isn't what")
    manifest = json.loads(files[MANIFEST])
    for file in manifest["files"]:
        file["bytes"] = 1 << 50
    tampered(bundle, {**files, MANIFEST: json.dumps(manifest).encode()})
    assert_refused(live("replay", bundle), bundle, "expected at most")


@pytest.mark.parametrize("keep", [0, 10, 4_000, -30])
def test_a_file_that_was_cut_is_refused(elsewhere: Callable[..., Path], keep: int) -> None:
    bundle = elsewhere()
    bundle.write_bytes(bundle.read_bytes()[:keep])
    assert_refused(live("replay", bundle), bundle, "can't be read as a bundle")


def assert_refused(outcome: Outcome, bundle: Path, told: str) -> None:
    assert outcome.code == 2, outcome
    assert str(bundle) in outcome.err
    assert told in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("file", "options", "code", "told"),
    [
        ("out.tar", (), 2, "FILE: expected the ending .zip, was out.tar"),
        ("none/out.zip", (), 2, "none/out.zip can't be written"),
        ("out.zip", ("--from", "2026-02-01"), 3, "nothing is recorded from 2026-02-01"),
        (
            "out.zip",
            ("--from", "2026-01-05T22:10:01Z", "--to", "2026-01-05T22:10:02Z"),
            3,
            "no window of dev:bybit starts in the span",
        ),
    ],
)
def test_bad_questions_are_answered_and_nothing_is_written(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    file: str, options: tuple[str, ...], code: int, told: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    outcome = live("audit", "bundle", file, "--ledger", ledger, *options)
    assert (outcome.code, told in outcome.err) == (code, True), outcome.err
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--symbols", "BTCUSDT"), "--symbols: "),
        (("--interval-sec", "10"), "--interval-sec: "),
    ],
)
def test_what_a_bundle_cannot_be_asked_for_is_refused(
    elsewhere: Callable[..., Path], options: tuple[str, ...], told: str
) -> None:
    outcome = live("replay", elsewhere(), *options)
    assert outcome.code == 2
    assert told in outcome.err


def test_a_recorded_profile_holds_in_a_bundle(tmp_path: Path) -> None:
    """Symbols beyond the limit stay at 0.0, as was recorded; a ledger's replay sets no limit."""
    rows = [row(index, symbol) for index in range(3) for symbol in ("BTCUSDT", "ETHUSDT")]
    feed, path = write_jsonl(tmp_path / "k.jsonl", rows), tmp_path / "l.sqlite"
    args = ("--ledger", path, "--artifacts", tmp_path / "a", "--ramp-profile", "A", "--quiet")
    assert live("run", "--feed", f"file:{feed}", *args).code == 0
    assert live("audit", "bundle", tmp_path / "b.zip", "--ledger", path).code == 0
    throttles = [found["effective_throttle"] for found in replay_rows(tmp_path / "b.zip")]
    assert throttles == [{"BTCUSDT": 1.0, "ETHUSDT": 0.0}] * 3
