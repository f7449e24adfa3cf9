"""Scraping a run over HTTP as Prometheus does, and holding what it said against its ledger."""

import math
import re
import urllib.request
from collections.abc import Mapping
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from domain.kpis import KPIS
from domain.state import State
from projections.redis_keys import valid_until
from projections.views import LedgerPlace, decision_of, summary_of

_URL = re.compile(r"metrics at (http://\S+)")


class Scrape(NamedTuple):
    """One page: each series' value by its name and labels, and each metric's type and help."""

    series: Mapping[tuple[str, frozenset[tuple[str, str]]], float]
    kinds: Mapping[str, str]
    helps: Mapping[str, str]

    def value(self, name: str, **labels: str) -> float:
        """Return the value of the one series that has these labels beside `env` and `exchange`."""
        wanted = labels.items()
        found = [
            (got, value)
            for (series, got), value in self.series.items()
            if series == name and wanted <= dict(got).items()
        ]
        assert len(found) == 1, f"{name} {labels}: {found}"
        return found[0][1]

    def by(self, name: str, *labels: str) -> dict[str | tuple[str, ...], float]:
        """Return a metric's values by these labels' values; by one label's, without a tuple."""
        found: dict[str | tuple[str, ...], float] = {}
        for (series, got), value in self.series.items():
            if series == name:
                values = tuple(dict(got)[label] for label in labels)
                found[values[0] if len(values) == 1 else values] = value
        return found

    def labels(self, name: str) -> list[dict[str, str]]:
        """Return the labels of each of a metric's series."""
        return [dict(got) for series, got in self.series if series == name]

    @property
    def names(self) -> set[str]:
        """The names of all series."""
        return {name for name, _ in self.series}


def scrape(url: str) -> Scrape:
    """Return what the address says now."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.status == 200
        return parsed(answer.read().decode())


def parsed(page: str) -> Scrape:
    """Return what a page says; a series that is there twice is a fault."""
    series: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    kinds, helps = {}, {}
    for family in text_string_to_metric_families(page):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        kinds[name], helps[name] = family.type, family.documentation
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in series, key
            series[key] = sample.value
    return Scrape(series, kinds, helps)


def metrics_url(output: str) -> str:
    """Return where a run has said that its metrics are, "" if it hasn't."""
    found = _URL.search(output)
    return "" if found is None else found[1]


def assert_agrees(found: Scrape, state: State, place: LedgerPlace) -> None:
    """Check a page's figures against the artifacts' of its own ledger version."""
    summary, decision = summary_of(state, place), decision_of(state, place)
    told_state = ("FROZEN", "COOLDOWN", "ACTIVE")[int(found.value("live_state"))]
    assert told_state == summary.state
    assert found.value("live_throttle_factor") == summary.throttle
    assert found.by("live_symbol_throttle", "symbol") == summary.per_symbol_throttle
    assert found.by("live_effective_throttle", "symbol") == summary.effective_throttle
    assert found.by("live_effective_notional_usd", "symbol") == summary.effective_notional
    assert_kpis_agree(found, state, place)
    assert found.value("live_ok_windows") == decision.counters.ok_windows
    assert found.value("live_warn_windows") == decision.counters.warn_windows
    assert found.value("live_ok_windows_required") == (summary.hysteresis.required or 0)
    warn_required = state.policy.min_warn_windows if summary.state == "ACTIVE" else 0
    assert found.value("live_warn_windows_required") == warn_required
    assert found.by("live_symbol_ok_windows", "symbol") == decision.counters.per_symbol_ok_windows
    counts = summary.counts
    by_verdict = {"OK": counts.ok, "WARN": counts.warn, "CRIT": counts.crit}
    assert found.by("live_windows_total", "verdict") == by_verdict
    for name in ("gap_windows", "late_windows", "clock_faults", "external_writes"):
        assert found.value(f"live_{name}_total") == getattr(counts, name)
    assert found.value("live_fills_while_frozen_total") == counts.fills_while_frozen
    assert found.value("live_clock_behind") == state.clock_behind
    assert found.value("live_ledger_version") == summary.ledger.version
    assert found.value("live_ledger_position") == summary.ledger.position
    assert state.observed is not None
    assert found.value("live_last_window_end_timestamp_seconds") == state.observed.end_ms / 1000
    assert found.value("live_valid_until_timestamp_seconds") == valid_until(state) / 1000
    assert found.value("live_state_since_timestamp_seconds") == (state.since_ms or 0) / 1000
    for kind in ("freeze", "cap"):
        held = [each for each in state.overrides_in_force if each.kind == kind]
        ends = [each.expires_at_ms for each in held if each.expires_at_ms is not None]
        assert found.value("live_overrides_in_force", kind=kind) == len(held)
        soonest = found.value("live_override_expiry_timestamp_seconds", kind=kind)
        assert soonest == min(ends, default=0) / 1000
    assert found.labels("live_policy_info")[0]["policy_hash"] == decision.policy_hash
    assert found.labels("live_policy_info")[0]["ramp_profile"] == summary.ramp_profile


def assert_kpis_agree(found: Scrape, state: State, place: LedgerPlace) -> None:
    """Check values and thresholds; a value that the artifacts show as null is NaN."""
    summary = summary_of(state, place)
    values = found.by("live_kpi_value", "symbol", "kpi")
    assert {of: None if math.isnan(value) else value for of, value in values.items()} == {
        (symbol, kpi): value
        for symbol, kpis in summary.kpis.per_symbol.items()
        for kpi, value in kpis.items()
    }
    assert found.by("live_kpi_threshold", "symbol", "kpi") == {
        (symbol, kpi.name): state.policy.thresholds_of(symbol)[kpi.policy_key]
        for symbol in summary.symbols
        for kpi in KPIS
    }
