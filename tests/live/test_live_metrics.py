"""A whole run, scraped while it runs: its figures are the ledger's, from the beginning on."""

import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live_support import (
    PAIR,
    LiveRedis,
    Market,
    Run,
    command,
    events,
    hash_run,
    mock_run,
    recorded,
    running_redis,
    steady_policy,
    wait_for,
    windows,
)
from scraping import Scrape, assert_agrees, metrics_url, scrape
from support import FIRST_MS, row, write_jsonl

from domain.events import GapObserved, KpiObserved, StateTransitioned
from domain.kpis import KPIS
from domain.state import State
from ledger.application import Ledger
from ledger.location import LedgerLocation
from projections.metrics_catalogue import DISCARD_REASONS, all_metrics
from projections.views import LedgerPlace

SYMBOLS = PAIR.split(",")
METERED = ("--metrics-port", "0")

CONTRACT = {
    "live_state": (),
    "live_throttle_factor": (),
    "live_symbol_throttle": ("symbol",),
    "live_violations_total": ("symbol", "kpi", "severity"),
    "live_redis_up": (),
    "live_effective_throttle": ("symbol",),
    "live_effective_notional_usd": ("symbol",),
    "live_kpi_value": ("symbol", "kpi"),
    "live_kpi_threshold": ("symbol", "kpi"),
    "live_ok_windows": (),
    "live_ok_windows_required": (),
    "live_warn_windows": (),
    "live_warn_windows_required": (),
    "live_symbol_ok_windows": ("symbol",),
    "live_interval_seconds": (),
    "live_last_decision_timestamp_seconds": (),
    "live_last_window_end_timestamp_seconds": (),
    "live_valid_until_timestamp_seconds": (),
    "live_state_since_timestamp_seconds": (),
    "live_window_duration_seconds_bucket": ("le",),
    "live_window_duration_seconds_sum": (),
    "live_window_duration_seconds_count": (),
    "live_feed_last_sample_timestamp_seconds": (),
    "live_feed_lag_seconds": (),
    "live_feed_samples_discarded_total": ("reason",),
    "live_windows_total": ("verdict",),
    "live_transitions_total": ("state",),
    "live_gap_windows_total": (),
    "live_late_windows_total": (),
    "live_clock_faults_total": (),
    "live_clock_behind": (),
    "live_external_writes_total": (),
    "live_fills_while_frozen_total": (),
    "live_overrides_in_force": ("kind",),
    "live_override_expiry_timestamp_seconds": ("kind",),
    "live_projection_lag_events": ("projection",),
    "live_projection_lag_seconds": ("projection",),
    "live_ledger_version": (),
    "live_ledger_position": (),
    "live_run_started_timestamp_seconds": (),
    "live_build_info": ("version", "python", "rules_version"),
    "live_policy_info": ("policy_hash", "ramp_profile"),
}
"""Every series that alerts and dashboards may count on, with its own labels; never renamed."""


@pytest.fixture
def server() -> Iterator[LiveRedis]:
    with running_redis() as server:
        yield server


def url_of(run: Run) -> str:
    return wait_for(lambda: metrics_url(run.output), "metrics")


def scraped(run: Run, is_so: Callable[[Scrape], bool], what: str) -> Scrape:
    """Scrape until something is so, and return that page."""
    url = url_of(run)
    seen: list[Scrape] = []

    def look() -> bool:
        seen.append(scrape(url))
        return is_so(seen[-1])

    wait_for(look, what)
    return seen[-1]


def fold(folder: Path, version: int, stream: str = "dev:bybit") -> tuple[State, LedgerPlace]:
    """Return a stream as of a version, and its place."""
    with Ledger.open(LedgerLocation(folder / "l.sqlite"), read_only=True) as ledger:
        folded = ledger.stream(stream, version=version)
        return folded.state, LedgerPlace(stream, version, ledger.position(folded))


def assert_told(found: Scrape, folder: Path, stream: str = "dev:bybit") -> None:
    """Check a page against the ledger as of the version that it names."""
    assert_agrees(found, *fold(folder, int(found.value("live_ledger_version")), stream))


def counted(folder: Path, version: int) -> tuple[Counter[Any], Counter[str]]:
    """Return violations and transitions up to a version, as the ledger has them."""
    violations: Counter[Any] = Counter()
    transitions: Counter[str] = Counter()
    for record in recorded(folder):
        if record.version <= version and isinstance(record.event, KpiObserved):
            violations.update(
                (symbol.memory.symbol, violation.kpi, violation.verdict)
                for symbol in record.event.symbols
                for violation in symbol.violations
            )
        elif record.version <= version and isinstance(record.event, StateTransitioned):
            transitions[record.event.state] += 1
    return violations, transitions


def test_every_series_is_there_before_the_first_window(server: LiveRedis, tmp_path: Path) -> None:
    # A window of a day: none is over while this test runs, but by one chance in some thousands.
    with Run(tmp_path, *mock_run(server.url, *METERED, interval="86400")) as run:
        found = scrape(url_of(run))
        assert not recorded(tmp_path)
    assert {name for name in found.names if name.startswith("live_")} == set(CONTRACT)
    for name, own in CONTRACT.items():
        for labels in found.labels(name):
            assert set(labels) == {"env", "exchange", *own}, name
            assert (labels["env"], labels["exchange"]) == ("dev", "bybit")
    for metric in all_metrics():
        if metric.name in found.kinds:
            assert (found.kinds[metric.name], found.helps[metric.name]) == (
                metric.kind,
                metric.text,
            )
    assert found.by("live_violations_total", "symbol", "kpi", "severity") == {
        (symbol, kpi.name, severity): 0
        for symbol in SYMBOLS
        for kpi in KPIS
        for severity in ("WARN", "CRIT")
    }
    assert found.by("live_feed_samples_discarded_total", "reason") == dict.fromkeys(
        DISCARD_REASONS, 0
    )
    for name in ("live_symbol_throttle", "live_effective_throttle", "live_symbol_ok_windows"):
        assert found.by(name, "symbol") == dict.fromkeys(SYMBOLS, 0)
    not_zero = {
        "live_kpi_threshold", "live_redis_up", "live_interval_seconds", "live_build_info",
        "live_policy_info", "live_run_started_timestamp_seconds",
    }  # fmt: skip
    for (name, series), value in found.series.items():
        if name in ("live_kpi_value", "live_feed_lag_seconds"):
            assert math.isnan(value)
        elif name in CONTRACT and name not in not_zero:
            assert value == 0, (name, series)
    assert found.value("live_redis_up") == 1
    assert found.value("live_interval_seconds") == 86_400
    assert abs(found.value("live_run_started_timestamp_seconds") - time.time()) < 60


def test_a_scrape_of_a_running_run_says_what_its_ledger_says(
    server: LiveRedis, tmp_path: Path
) -> None:
    args = mock_run(server.url, *METERED, "--feed", "mock://warn?seed=3", interval="0.25")
    seen: list[Scrape] = []

    def is_cool(found: Scrape) -> bool:
        if found.value("live_ledger_version"):
            assert_told(found, tmp_path)
            seen.append(found)
        return found.value("live_transitions_total", state="COOLDOWN") == 1

    with Run(tmp_path, *args) as run:
        last = scraped(run, is_cool, "a transition")
        assert run.stop() == 0
    assert len(seen) > 3
    version = int(last.value("live_ledger_version"))
    violations, transitions = counted(tmp_path, version)
    assert violations[SYMBOLS[0], "p95_latency_ms", "WARN"] >= 3
    told = last.by("live_violations_total", "symbol", "kpi", "severity")
    assert {of: count for of, count in told.items() if count} == violations
    assert transitions == {"COOLDOWN": 1}
    assert last.by("live_transitions_total", "state") == {"FROZEN": 0, "COOLDOWN": 1, "ACTIVE": 0}
    assert last.value("live_window_duration_seconds_count") >= 3
    decided = [
        record.decided_at_ms
        for record in recorded(tmp_path)
        if record.version <= version and isinstance(record.event, KpiObserved)
    ]
    assert last.value("live_last_decision_timestamp_seconds") == (decided[-1] or 0) / 1000
    state, _ = fold(tmp_path, version)
    assert state.observed is not None
    newest = last.value("live_feed_last_sample_timestamp_seconds")
    assert (newest, last.value("live_feed_lag_seconds")) == (state.observed.end_ms / 1000, 0)


def test_what_the_ledger_counts_goes_on_after_a_kill_and_the_rest_begins_anew(
    server: LiveRedis, tmp_path: Path
) -> None:
    args = mock_run(server.url, *METERED, "--feed", "mock://warn?seed=3")
    with Run(tmp_path, *args) as run:
        before = scraped(
            run, lambda found: found.value("live_transitions_total", state="COOLDOWN") == 1, "WARN"
        )
        run.kill()
    known = len(windows(tmp_path))
    gaps = sum(gap.windows for gap in events(tmp_path, GapObserved))
    decided = max(
        record.decided_at_ms or 0
        for record in recorded(tmp_path)
        if isinstance(record.event, KpiObserved)
    )
    with Run(tmp_path, *args) as run:
        after = scrape(url_of(run))
        told = sum(after.by("live_windows_total", "verdict").values())
        assert known <= told <= known + 1
        assert told >= sum(before.by("live_windows_total", "verdict").values())
        assert after.value("live_gap_windows_total") >= gaps
        assert after.value("live_last_decision_timestamp_seconds") >= decided / 1000
        assert after.value("live_transitions_total", state="COOLDOWN") <= 1
        assert after.value("live_state") in (0, 1), "it is in the state that it was killed in"
        assert_told(after, tmp_path)
        began = int(before.value("live_ledger_version"))
        later = scraped(
            run, lambda found: found.value("live_window_duration_seconds_count") >= 2, "windows"
        )
        assert_told(later, tmp_path)
        assert run.stop() == 0
    version = int(later.value("live_ledger_version"))
    assert version > began
    of_this_run = counted(tmp_path, version)[0]
    of_this_run.subtract(counted(tmp_path, last_version_of_first_run(tmp_path))[0])
    counts = later.by("live_violations_total", "symbol", "kpi", "severity")
    assert {of: count for of, count in counts.items() if count} == +of_this_run


def last_version_of_first_run(folder: Path) -> int:
    """Return the version before the second run's start."""
    starts = [r.version for r in recorded(folder) if type(r.event).__name__ == "RunStarted"]
    return starts[1] - 1


def test_redis_down_is_said_and_what_it_lacks_grows_until_it_is_back(
    server: LiveRedis, tmp_path: Path
) -> None:
    def lag(found: Scrape, name: str) -> tuple[float, float]:
        return (
            found.value("live_projection_lag_events", projection=name),
            found.value("live_projection_lag_seconds", projection=name),
        )

    with Run(tmp_path, *mock_run(server.url, *METERED)) as run:
        up = scraped(
            run,
            lambda found: found.value("live_ledger_version") > 2 and lag(found, "redis") == (0, 0),
            "a publication",
        )
        assert up.value("live_redis_up") == 1
        server.kill()
        down = scraped(run, lambda found: lag(found, "redis")[0] >= 3, "three windows of lag")
        assert down.value("live_redis_up") == 0
        assert lag(down, "redis")[1] > 0.25
        assert lag(down, "artifacts")[0] <= 1, "the other projection goes on"
        later = scraped(
            run, lambda found: lag(found, "redis")[0] > lag(down, "redis")[0], "more lag"
        )
        assert lag(later, "redis")[1] > lag(down, "redis")[1]
        server.restart()
        scraped(run, lambda found: found.value("live_redis_up") == 1, "Redis up")
        scraped(run, lambda found: lag(found, "redis") == (0, 0), "no lag")
        assert run.stop() == 0


def test_a_run_that_begins_without_redis_says_so_from_the_start(
    server: LiveRedis, tmp_path: Path
) -> None:
    server.kill()
    with Run(tmp_path, *mock_run(server.url, *METERED, interval="86400")) as run:
        found = scrape(url_of(run))
    assert found.value("live_redis_up") == 0
    assert found.value("live_projection_lag_events", projection="redis") == 0


def test_artifacts_that_cannot_be_written_are_a_lag(tmp_path: Path) -> None:
    def behind(found: Scrape) -> float:
        return found.value("live_projection_lag_events", projection="artifacts")

    latest = tmp_path / "artifacts/live/latest"
    with Run(tmp_path, *mock_run(None, *METERED)) as run:
        wait_for((latest / "LIVE_REPORT.md").exists, "artifacts")
        latest.rename(tmp_path / "aside")
        latest.write_text("a file in the place of the folder")
        scraped(run, lambda found: behind(found) >= 2, "lag")
        latest.unlink()
        latest.mkdir()
        found = scraped(run, lambda found: behind(found) == 0, "no lag")
        assert "live_redis_up" not in found.names
        assert run.stop() == 0
    shutil.rmtree(tmp_path / "aside")


def test_a_live_feed_is_told_with_its_age_its_faults_and_its_missing_values(
    server: LiveRedis, tmp_path: Path
) -> None:
    with Market(server, "dev", SYMBOLS) as market:
        market.kpis["ETHUSDT"] = {"edge_bps": "much", "ts": None}
        args = hash_run(server.url, *METERED, "--derive-anomaly", *steady_policy(tmp_path))
        with Run(tmp_path, *args) as run:
            found = scraped(run, lambda found: found.value("live_ledger_version") > 3, "windows")
            assert_told(found, tmp_path)
            newest = found.value("live_feed_last_sample_timestamp_seconds")
            assert 0 <= time.time() - newest < 30
            assert 0 <= found.value("live_feed_lag_seconds") < 30
            assert math.isnan(found.value("live_kpi_value", symbol="ETHUSDT", kpi="edge_bps"))
            assert found.value("live_kpi_value", symbol="BTCUSDT", kpi="edge_bps") == 3.2
            decided = found.value("live_ledger_version")
            discarded = found.by("live_feed_samples_discarded_total", "reason")
            expected = Counter[str]()
            for record in recorded(tmp_path):
                if record.version <= decided and isinstance(record.event, KpiObserved):
                    expected.update(record.event.feed_counts)
            assert expected["malformed"] and expected["untimed"]
            assert {name: count for name, count in discarded.items() if count} == expected
            market.kpis["BTCUSDT"] = {"ts": 1}
            # The last good sample stays the newest one, and grows old.
            silent = scraped(run, lambda found: found.value("live_feed_lag_seconds") > 0.5, "lag")
            assert silent.value("live_feed_last_sample_timestamp_seconds") >= newest
            assert run.stop() == 0


def test_an_override_is_told_while_it_is_in_force(server: LiveRedis, tmp_path: Path) -> None:
    def held(found: Scrape) -> float:
        return found.value("live_overrides_in_force", kind="cap")

    with Run(tmp_path, *mock_run(server.url, *METERED)) as run:
        scraped(run, lambda found: found.value("live_state") == 2, "ACTIVE")
        words = ("cap", "0.25", "--for", "1h", "--reason", "a test", "--by", "ann")
        done = command(tmp_path, "override", *words, "--ledger", "l.sqlite")
        assert done.code == 0, done.err
        found = scraped(run, lambda found: held(found) == 1, "a cap")
        assert_told(found, tmp_path)
        assert found.by("live_effective_throttle", "symbol") == dict.fromkeys(SYMBOLS, 0.25)
        ends = found.value("live_override_expiry_timestamp_seconds", kind="cap")
        assert 3_000 < ends - time.time() <= 3_600
        assert run.stop() == 0


def test_a_dry_run_is_told_of_an_environment_of_its_own(server: LiveRedis, tmp_path: Path) -> None:
    with Run(tmp_path, *mock_run(server.url, *METERED, "--dry-run")) as run:
        found = scraped(run, lambda found: found.value("live_state") == 2, "ACTIVE")
        assert_told(found, tmp_path, "dev:bybit:dry-run")
        assert run.stop() == 0
    ours = [dict(labels) for name, labels in found.series if name.startswith("live_")]
    assert {labels["env"] for labels in ours} == {"dev-dry-run"}
    assert "live_redis_up" not in found.names
    projections = set(found.by("live_projection_lag_events", "projection"))
    assert projections == {"artifacts", "history"}


def test_a_file_at_its_own_pace_is_told_as_it_is_decided(tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "k.jsonl", (row(index, edge_bps=2.0) for index in range(40)))
    args = ("--feed", f"file:{rows}", "--ledger", "l.sqlite", "--speed", "240", *METERED)
    with Run(tmp_path, *args) as run:
        found = scraped(
            run, lambda found: found.value("live_state_since_timestamp_seconds") > 0, "CRIT"
        )
        assert_told(found, tmp_path)
        assert found.value("live_feed_lag_seconds") == 0
        newest = found.value("live_feed_last_sample_timestamp_seconds")
        assert newest == found.value("live_last_window_end_timestamp_seconds")
        assert newest - FIRST_MS / 1000 == 60 * found.value("live_windows_total", verdict="CRIT")
        assert run.stop() == 0
