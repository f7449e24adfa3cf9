"""
From a snapshot to every metric's values: the same figures as the artifacts of that version.

Before a stream's first window nothing was decided, and so nothing may be traded: state and
throttles are 0. Source: issue 4, Metrics; docs/metrics.md.
"""

import math
from collections.abc import Mapping
from typing import Final

from domain.events import Override, TradingState
from domain.kpis import KPIS, Verdict
from domain.policy import Policy
from domain.state import State
from projections.metrics_catalogue import (
    DISCARD_REASONS,
    NOTIFICATION_OUTCOMES,
    OTHER,
    OVERRIDE_KINDS,
    SEVERITIES,
    STATES,
)
from projections.metrics_snapshot import Notifications, Snapshot
from projections.redis_keys import valid_until
from projections.views import effective_notional, kpi_values

Readings = list[tuple[tuple[str, ...], float]]
"""A metric's own labels, in the catalogue's order, and the value: one for each of its series."""


def readings_of(snapshot: Snapshot) -> dict[str, Readings]:
    """Return by name the readings of each metric that follows from the snapshot alone."""
    return {
        **_of_state(snapshot),
        **_of_symbols(snapshot),
        **_of_kpis(snapshot),
        **_of_windows(snapshot),
        **_of_feed(snapshot),
        **_of_overrides(snapshot.stream.state),
        **_of_projections(snapshot),
        **_of_notifications(snapshot.notifications),
        **_of_run(snapshot),
    }


def ages_of(snapshot: Snapshot, now_ms: int) -> Readings:
    """Return the readings of `AGES`, which grow while nothing happens."""
    seconds: Readings = []
    for name, place in snapshot.places.items():
        since_ms = place.waiting_since_ms
        seconds.append(((name,), 0.0 if since_ms is None else max(0, now_ms - since_ms) / 1000))
    return seconds


def _of_state(snapshot: Snapshot) -> dict[str, Readings]:
    state = snapshot.stream.state
    is_decided = state.window is not None
    is_active = is_decided and state.trading_state is TradingState.ACTIVE
    return {
        "live_state": _one(STATES.index(state.trading_state) if is_decided else 0),
        "live_throttle_factor": _one(state.throttle if is_decided else 0.0),
        "live_state_since_timestamp_seconds": _time(state.since_ms),
        "live_valid_until_timestamp_seconds": _time(valid_until(state)),
        "live_transitions_total": [
            ((name,), snapshot.transitions.get(TradingState(name), 0)) for name in STATES
        ],
        "live_ok_windows": _one(state.ok_windows),
        "live_ok_windows_required": _one(state.ok_windows_required or 0 if is_decided else 0),
        "live_warn_windows": _one(state.warn_windows),
        "live_warn_windows_required": _one(state.policy.min_warn_windows if is_active else 0),
    }


def _of_symbols(snapshot: Snapshot) -> dict[str, Readings]:
    state = snapshot.stream.state
    is_decided = state.window is not None
    throttles = state.per_symbol_throttles() if is_decided else {}
    effective = state.effective_throttles() if is_decided else {}
    ok_windows = {memory.symbol: memory.ok_windows for memory in state.symbols}
    symbols = _symbols(snapshot)
    return {
        "live_symbol_throttle": [((name,), throttles.get(name, 0.0)) for name in symbols],
        "live_effective_throttle": [((name,), effective.get(name, 0.0)) for name in symbols],
        "live_effective_notional_usd": [
            ((name,), effective_notional(state, effective.get(name, 0.0)) or 0.0)
            for name in symbols
        ],
        "live_symbol_ok_windows": [((name,), ok_windows.get(name, 0)) for name in symbols],
    }


def _of_kpis(snapshot: Snapshot) -> dict[str, Readings]:
    state, symbols = snapshot.stream.state, _symbols(snapshot)
    policy = _policy(snapshot)
    observed = state.observed
    values = {} if observed is None else kpi_values(state, observed).per_symbol
    value_readings: Readings = []
    threshold_readings: Readings = []
    violation_readings: Readings = []
    severities = [Verdict(name) for name in SEVERITIES]
    for symbol in symbols:
        of_symbol = values.get(symbol, _NO_VALUES)
        thresholds = policy.thresholds_of(symbol)
        for kpi in KPIS:
            value = of_symbol.get(kpi.name)
            labels = (symbol, kpi.name)
            value_readings.append((labels, math.nan if value is None else value))
            threshold_readings.append((labels, thresholds[kpi.policy_key]))
            for severity in severities:
                count = snapshot.violations.get((symbol, kpi.name, severity), 0)
                violation_readings.append(((*labels, severity), count))
    return {
        "live_kpi_value": value_readings,
        "live_kpi_threshold": threshold_readings,
        "live_violations_total": violation_readings,
    }


def _of_windows(snapshot: Snapshot) -> dict[str, Readings]:
    counts, observed = snapshot.stream.state.counts, snapshot.stream.state.observed
    by_verdict = {"OK": counts.ok, "WARN": counts.warn, "CRIT": counts.crit}
    return {
        "live_interval_seconds": _one(snapshot.about.interval_ms / 1000),
        "live_windows_total": [((verdict,), count) for verdict, count in by_verdict.items()],
        "live_gap_windows_total": _one(counts.gap_windows),
        "live_late_windows_total": _one(counts.late_windows),
        "live_last_decision_timestamp_seconds": _time(snapshot.decided_at_ms),
        "live_last_window_end_timestamp_seconds": _time(
            None if observed is None else observed.end_ms
        ),
    }


def _of_feed(snapshot: Snapshot) -> dict[str, Readings]:
    lag_ms = snapshot.lag_ms
    discarded = dict.fromkeys(DISCARD_REASONS, 0)
    for reason, count in snapshot.discarded.items():
        discarded[reason if reason in discarded else OTHER] += count
    return {
        "live_feed_last_sample_timestamp_seconds": _time(snapshot.newest_ms),
        "live_feed_lag_seconds": _one(math.nan if lag_ms is None else lag_ms / 1000),
        "live_feed_samples_discarded_total": [
            ((reason,), count) for reason, count in discarded.items()
        ],
    }


def _of_overrides(state: State) -> dict[str, Readings]:
    by_kind: dict[str, list[Override]] = {kind: [] for kind in OVERRIDE_KINDS}
    for override in state.overrides_in_force:
        by_kind[override.kind].append(override)
    counts = state.counts
    return {
        "live_overrides_in_force": [((kind,), len(found)) for kind, found in by_kind.items()],
        "live_override_expiry_timestamp_seconds": [
            ((kind,), _soonest(found)) for kind, found in by_kind.items()
        ],
        "live_external_writes_total": _one(counts.external_writes),
        "live_fills_while_frozen_total": _one(counts.fills_while_frozen),
        "live_clock_faults_total": _one(counts.clock_faults),
        "live_clock_behind": _one(state.clock_behind),
    }


def _of_projections(snapshot: Snapshot) -> dict[str, Readings]:
    version = snapshot.stream.version
    found: dict[str, Readings] = {
        "live_ledger_version": _one(version),
        "live_ledger_position": _one(snapshot.position),
        "live_projection_lag_events": [
            ((name,), max(0, version - place.version)) for name, place in snapshot.places.items()
        ],
    }
    if snapshot.redis_up is not None:
        found["live_redis_up"] = _one(snapshot.redis_up)
    return found


def _of_notifications(notifications: Notifications | None) -> dict[str, Readings]:
    if notifications is None:
        return {}
    return {
        "live_notifications_pending": _one(notifications.pending),
        "live_notifications_total": [
            ((outcome,), getattr(notifications, outcome)) for outcome in NOTIFICATION_OUTCOMES
        ],
    }


def _of_run(snapshot: Snapshot) -> dict[str, Readings]:
    about, state = snapshot.about, snapshot.stream.state
    profile = state.profile if state.symbols else about.profile
    return {
        "live_run_started_timestamp_seconds": _time(about.started_at_ms),
        "live_build_info": [((about.version, about.python, str(about.rules_version)), 1)],
        "live_policy_info": [
            (
                (
                    state.policy_hash if state.symbols else about.policy_hash,
                    "" if profile is None else profile.name,
                ),
                1,
            )
        ],
    }


def _symbols(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the symbols to tell of: until the run's own are in force, both those and the old."""
    known = snapshot.stream.state.symbol_names
    return (
        known if snapshot.has_adopted else tuple(dict.fromkeys([*known, *snapshot.about.symbols]))
    )


def _policy(snapshot: Snapshot) -> Policy:
    """Return the policy in force, in a new ledger that of the run."""
    state = snapshot.stream.state
    return state.policy if state.symbols else snapshot.about.policy


_NO_VALUES: Final[Mapping[str, float | None]] = {}


def _soonest(overrides: list[Override]) -> float:
    ends = [held.expires_at_ms for held in overrides if held.expires_at_ms is not None]
    return min(ends, default=0) / 1000


def _one(value: float) -> Readings:
    """Return the readings of a metric without labels of its own."""
    return [((), float(value))]


def _time(time_ms: int | None) -> Readings:
    """Return a time in seconds since the epoch, 0 for none."""
    return _one((time_ms or 0) / 1000)
