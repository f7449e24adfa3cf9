"""A whole run, scraped while it runs: its figures are the ledger's, from the beginning on."""

import math
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_support import (
    PAIR,
    LiveRedis,
    Run,
    command,
    mock_run,
    recorded,
    running_redis,
    wait_for,
    windows,
)
from scraping import Scrape, metrics_url, scrape, series_names

from domain.events import KpiObserved, StateTransitioned
from domain.kpis import KPIS
from domain.state import State
from ledger.application import Ledger
from ledger.location import LedgerLocation
from projections.metrics_catalogue import DISCARD_REASONS, all_metrics
from projections.redis_keys import valid_until
from projections.views import LedgerPlace, decision_of, summary_of

SYMBOLS = PAIR.split(",")
METERED = ("--metrics-port", "0")


@pytest.fixture
def server() -> Iterator[LiveRedis]:
    with running_redis() as server:
        yield server


def page(run: Run) -> Scrape:
    """Return what a run's metrics say now; wait until it serves them."""
    return scrape(wait_for(lambda: metrics_url(run.output), "metrics"))


def test_every_series_is_there_before_the_first_window(server: LiveRedis, tmp_path: Path) -> None:
    # A window of a day: none is over while this test runs, but by one chance in some thousands.
    with Run(tmp_path, *mock_run(server.url, *METERED, interval="86400")) as run:
        found = page(run)
        assert not recorded(tmp_path)
    expected = {name for metric in all_metrics() for name in series_names(metric)}
    assert {name for name in found.names if name.startswith("live_")} == expected
    for metric in all_metrics():
        assert found.kinds[metric.name] == metric.kind
        assert found.helps[metric.name] == metric.text
        for name in series_names(metric):
            labels = {"env", "exchange", *metric.labels, *(["le"] if "_bucket" in name else [])}
            assert all(set(got) == labels for got in found.labels(name)), name
            assert all(
                got["env"] == "dev" and got["exchange"] == "bybit" for got in found.labels(name)
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
    assert all(map(math.isnan, found.by("live_kpi_value", "symbol", "kpi").values()))
    assert math.isnan(found.value("live_feed_lag_seconds"))
    # Nothing is decided, so nothing may be traded.
    assert found.value("live_state") == found.value("live_throttle_factor") == 0
    for name in ("live_symbol_throttle", "live_effective_throttle"):
        assert found.by(name, "symbol") == dict.fromkeys(SYMBOLS, 0)
    assert found.value("live_redis_up") == 1
    assert found.value("live_interval_seconds") == 86_400
    assert found.by("live_kpi_threshold", "symbol", "kpi") == {
        (symbol, kpi.name): kpi.threshold for symbol in SYMBOLS for kpi in KPIS
    }


def assert_agrees(found: Scrape, folder: Path, stream: str = "dev:bybit") -> State:
    """Check a scrape's figures against the artifacts' of its own ledger version."""
    version = int(found.value("live_ledger_version"))
    with Ledger.open(LedgerLocation(folder / "l.sqlite"), read_only=True) as ledger:
        folded = ledger.stream(stream, version=version)
        place = LedgerPlace(stream, version, ledger.position(folded))
    state = folded.state
    summary, decision = summary_of(state, place), decision_of(state, place)
    told_state = ("FROZEN", "COOLDOWN", "ACTIVE")[int(found.value("live_state"))]
    assert told_state == summary.state
    assert found.value("live_throttle_factor") == summary.throttle
    assert found.by("live_symbol_throttle", "symbol") == summary.per_symbol_throttle
    assert found.by("live_effective_throttle", "symbol") == summary.effective_throttle
    assert found.by("live_effective_notional_usd", "symbol") == summary.effective_notional
    values = {
        labels: None if math.isnan(value) else value
        for labels, value in found.by("live_kpi_value", "symbol", "kpi").items()
    }
    assert values == {
        (symbol, kpi): value
        for symbol, kpis in summary.kpis.per_symbol.items()
        for kpi, value in kpis.items()
    }
    assert found.by("live_kpi_threshold", "symbol", "kpi") == {
        (symbol, kpi.name): state.policy.thresholds_of(symbol)[kpi.policy_key]
        for symbol in summary.symbols
        for kpi in KPIS
    }
    assert found.value("live_ok_windows") == decision.counters.ok_windows
    assert found.value("live_warn_windows") == decision.counters.warn_windows
    assert found.value("live_ok_windows_required") == (summary.hysteresis.required or 0)
    assert found.by("live_symbol_ok_windows", "symbol") == decision.counters.per_symbol_ok_windows
    counts = summary.counts
    by_verdict = {"OK": counts.ok, "WARN": counts.warn, "CRIT": counts.crit}
    assert found.by("live_windows_total", "verdict") == by_verdict
    assert found.value("live_gap_windows_total") == counts.gap_windows
    assert found.value("live_late_windows_total") == counts.late_windows
    assert found.value("live_clock_faults_total") == counts.clock_faults
    assert found.value("live_external_writes_total") == counts.external_writes
    assert found.value("live_fills_while_frozen_total") == counts.fills_while_frozen
    assert found.value("live_ledger_position") == summary.ledger.position
    assert state.observed is not None
    assert found.value("live_last_window_end_timestamp_seconds") == state.observed.end_ms / 1000
    assert found.value("live_valid_until_timestamp_seconds") == valid_until(state) / 1000
    assert found.value("live_state_since_timestamp_seconds") == (state.since_ms or 0) / 1000
    return state


def counted(folder: Path, version: int) -> tuple[Counter[tuple[str, str, str]], Counter[str]]:
    """Return violations and transitions up to a version, as the ledger has them."""
    violations: Counter[tuple[str, str, str]] = Counter()
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


def test_a_scrape_of_a_running_run_says_what_its_ledger_says(
    server: LiveRedis, tmp_path: Path
) -> None:
    args = mock_run(server.url, *METERED, "--feed", "mock://warn?seed=3", interval="0.25")
    seen: list[Scrape] = []
    with Run(tmp_path, *args) as run:
        url = wait_for(lambda: metrics_url(run.output), "metrics")
        wait_for(lambda: windows(tmp_path), "a window")
        while not seen or not seen[-1].value("live_transitions_total", state="COOLDOWN"):
            seen.append(scrape(url))
            if seen[-1].value("live_ledger_version"):
                assert_agrees(seen[-1], tmp_path)
        assert run.stop() == 0
    last = seen[-1]
    violations, transitions = counted(tmp_path, int(last.value("live_ledger_version")))
    assert violations[SYMBOLS[0], "p95_latency_ms", "WARN"] >= 3
    told = last.by("live_violations_total", "symbol", "kpi", "severity")
    assert {labels: value for labels, value in told.items() if value} == violations
    assert transitions == {"COOLDOWN": 1}
    assert last.by("live_transitions_total", "state") == {"FROZEN": 0, "COOLDOWN": 1, "ACTIVE": 0}
    assert last.value("live_window_duration_seconds_count") >= 3
    assert last.value("live_feed_lag_seconds") == 0


def test_a_port_that_is_taken_ends_the_run_before_anything_is_decided(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        args = mock_run(None, "--metrics-port", port, "--iterations", "1")
        refused = command(tmp_path, "run", *args)
    assert refused.code == 2
    assert "--metrics-port" in refused.err and port in refused.err
    assert not (tmp_path / "l.sqlite").exists()
