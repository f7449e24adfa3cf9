"""
The catalogue of metrics: names, units, labels and meanings, as `/metrics` and docs/metrics.md tell
them.

Names are a contract with alerts and dashboards: one is added here, and never renamed or given
another meaning. Source: LIVE_MODE_GUIDE.md, Alerts & Dashboard; issue 4, Metrics.
"""

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

Kind = Literal["gauge", "counter", "histogram"]

COMMON_LABELS: Final = ("env", "exchange")
"""Every metric of ours carries these before its own; a dry run's `env` is `ENV-dry-run`."""

SEVERITIES: Final = ("WARN", "CRIT")
VERDICTS: Final = ("OK", "WARN", "CRIT")
STATES: Final = ("FROZEN", "COOLDOWN", "ACTIVE")
"""By their value in `live_state`."""

OVERRIDE_KINDS: Final = ("freeze", "cap")
NOTIFICATION_OUTCOMES: Final = ("delivered", "failed", "abandoned")
OTHER: Final = "other"
DISCARD_REASONS: Final = (
    "late", "malformed", "ignored", "future", "skipped", "stale", "untimed", "unreachable",
    "overflow", "trimmed", "behind", "missing", OTHER,
)  # fmt: skip
"""What feeds count; what another one may count some day is `other`, so that labels stay bounded."""

DURATION_BUCKETS_SEC: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """
    One metric.

    Attributes:
        name: as alerts and dashboards have it; a counter's ends in `_total`.
        unit: of the value; "" for a state, a version or a mere 1.
        labels: beside `COMMON_LABELS`.
        text: what it says, a sentence or two; the metric's help.
        first: what it says before the stream's first window.
        only: where it is there at all; "" for everywhere.
    """

    name: str
    kind: Kind
    unit: str
    text: str
    labels: tuple[str, ...] = ()
    first: str = "0"
    only: str = ""


class Group(msgspec.Struct, frozen=True):
    """Metrics that belong together."""

    title: str
    metrics: tuple[Metric, ...]


def _gauge(
    name: str, unit: str, text: str, *labels: str, first: str = "0", only: str = ""
) -> Metric:
    return Metric(
        name=name, kind="gauge", unit=unit, text=text, labels=labels, first=first, only=only
    )


def _counter(
    name: str, unit: str, text: str, *labels: str, goes_on: bool = False, only: str = ""
) -> Metric:
    first = "0, after a restart what the ledger has counted" if goes_on else "0 at a run's start"
    return Metric(
        name=name, kind="counter", unit=unit, text=text, labels=labels, first=first, only=only
    )


DURATIONS: Final = Metric(
    name="live_window_duration_seconds",
    kind="histogram",
    unit="s",
    text="How long a window took, from collecting its samples to putting out.",
    first="0 at a run's start",
)

AGES: Final = _gauge(
    "live_projection_lag_seconds",
    "s",
    "Since when the oldest event waits for the projection, by the wall clock; one of before the "
    "run counts from the run's start. 0 if none waits.",
    "projection",
)

GROUPS: Final = (
    Group(
        "State and throttles",
        (
            _gauge("live_state", "", "The global state: 0 FROZEN, 1 COOLDOWN, 2 ACTIVE."),
            _gauge("live_throttle_factor", "0 to 1", "The global throttle."),
            _gauge(
                "live_symbol_throttle",
                "0 to 1",
                "The symbol's KPI-based throttle: who is ill.",
                "symbol",
            ),
            _gauge(
                "live_effective_throttle",
                "0 to 1",
                "What may be traded of the symbol: the least of global, KPI-based and caps; 0 "
                "beyond the profile's limit.",
                "symbol",
            ),
            _gauge(
                "live_effective_notional_usd",
                "USD",
                "What the symbol may trade: its share of the profile's notional, throttled.",
                "symbol",
            ),
            _gauge(
                "live_state_since_timestamp_seconds",
                "s, UTC",
                "From when on the present state holds; 0 if there was no transition yet.",
            ),
            _gauge(
                "live_valid_until_timestamp_seconds",
                "s, UTC",
                "Past it nothing that was decided may be believed.",
            ),
            _counter(
                "live_transitions_total", "", "Transitions, by the state they led to.", "state"
            ),
        ),
    ),
    Group(
        "KPIs and hysteresis",
        (
            _counter(
                "live_violations_total",
                "",
                "KPIs that weren't OK, one a symbol, KPI and window; no data is a violation too.",
                "symbol",
                "kpi",
                "severity",
            ),
            _gauge(
                "live_kpi_value",
                "the KPI's",
                "The value in the last window; NaN if there was no valid one.",
                "symbol",
                "kpi",
                first="NaN",
            ),
            _gauge(
                "live_kpi_threshold",
                "the KPI's",
                "The threshold that the next window is judged by.",
                "symbol",
                "kpi",
                first="the run's policy",
            ),
            _gauge("live_ok_windows", "windows", "OK windows in a row, of all symbols together."),
            _gauge(
                "live_ok_windows_required",
                "windows",
                "OK windows in a row that lead out of the present state; 0 in ACTIVE.",
            ),
            _gauge("live_warn_windows", "windows", "WARN windows in a row."),
            _gauge(
                "live_warn_windows_required",
                "windows",
                "WARN windows in a row that lead from ACTIVE to COOLDOWN; 0 in any other state.",
            ),
            _gauge(
                "live_symbol_ok_windows", "windows", "The symbol's OK windows in a row.", "symbol"
            ),
        ),
    ),
    Group(
        "Windows and decisions",
        (
            _gauge("live_interval_seconds", "s", "A window's length.", first="the run's interval"),
            _counter(
                "live_windows_total",
                "windows",
                "Windows decided, by verdict.",
                "verdict",
                goes_on=True,
            ),
            _counter(
                "live_gap_windows_total",
                "windows",
                "Windows that nobody decided: downtime, or decided too late.",
                goes_on=True,
            ),
            _counter(
                "live_late_windows_total",
                "windows",
                "Windows that came when they had been decided already, with other content.",
                goes_on=True,
            ),
            _gauge(
                "live_last_decision_timestamp_seconds",
                "s, UTC",
                "When a window was last appended to the ledger, by the wall clock.",
            ),
            _gauge(
                "live_last_window_end_timestamp_seconds", "s, UTC", "The last decided window's end."
            ),
            DURATIONS,
        ),
    ),
    Group(
        "Feed",
        (
            _gauge(
                "live_feed_last_sample_timestamp_seconds",
                "s, UTC",
                "The newest sample's own time; samples that are malformed or of the future aside.",
                first="0 at a run's start",
            ),
            _gauge(
                "live_feed_lag_seconds",
                "s",
                "How long before the last window's end the newest sample was; 0 if it was after.",
                first="NaN, as long as no sample has come",
            ),
            _counter(
                "live_feed_samples_discarded_total",
                "",
                "What a feed delivered and didn't use, or couldn't deliver.",
                "reason",
            ),
        ),
    ),
    Group(
        "Operators and intruders",
        (
            _gauge("live_overrides_in_force", "", "Overrides in force.", "kind"),
            _gauge(
                "live_override_expiry_timestamp_seconds",
                "s, UTC",
                "When the soonest of them expires; 0 if none does.",
                "kind",
            ),
            _counter(
                "live_external_writes_total",
                "",
                "Writes of others to our Redis keys, towards more trading or unreadable.",
                goes_on=True,
            ),
            _counter(
                "live_fills_while_frozen_total",
                "",
                "Reports of fills that added risk after 0.0 was published: the bot disobeys.",
                goes_on=True,
            ),
            _counter(
                "live_clock_faults_total",
                "",
                "Times that the clock was found behind the ledger.",
                goes_on=True,
            ),
            _gauge("live_clock_behind", "", "1 while the clock is behind the ledger."),
        ),
    ),
    Group(
        "Ledger and projections",
        (
            _gauge("live_ledger_version", "events", "The stream's last version."),
            _gauge("live_ledger_position", "", "The position of the stream's last event."),
            _gauge(
                "live_redis_up",
                "",
                "1 if Redis answered the last publication, else 0.",
                first="as at the run's start",
                only="a run that publishes to Redis",
            ),
            _gauge(
                "live_projection_lag_events",
                "events",
                "How far the projection is behind the ledger; all of it until the run has put it "
                "out once.",
                "projection",
            ),
            AGES,
        ),
    ),
    Group(
        "Notifications",
        (
            _gauge(
                "live_notifications_pending",
                "",
                "Notifications that wait for delivery, one a target.",
                only="a run that notifies",
            ),
            _counter(
                "live_notifications_total",
                "",
                "What became of notifications: delivered, failed attempts, abandoned.",
                "outcome",
                only="a run that notifies",
            ),
        ),
    ),
    Group(
        "Run",
        (
            _gauge(
                "live_run_started_timestamp_seconds",
                "s, UTC",
                "When the run began.",
                first="the run's start",
            ),
            _gauge(
                "live_build_info",
                "",
                "1; which code decides, by which version of the rules.",
                "version",
                "python",
                "rules_version",
                first="1",
            ),
            _gauge(
                "live_policy_info",
                "",
                "1; the policy and the profile that the next window is decided by.",
                "policy_hash",
                "ramp_profile",
                first="1",
            ),
        ),
    ),
)


def all_metrics() -> Iterator[Metric]:
    """Yield every metric, in the order of the catalogue."""
    for group in GROUPS:
        yield from group.metrics
