"""
What the dashboard shows, and by which queries: a catalogue that names no Grafana type.

`dashboard.py` makes panels of it. The first row is LIVE_MODE_GUIDE.md's, with its queries; where
the guide writes `env="prod"` stands a variable whose default is prod. Source: issue 4, Dashboard.
"""

from typing import Final, Literal, NamedTuple

KPIS: Final = {
    "edge_bps": ("bps", "lower is worse"),
    "maker_taker_ratio": ("percentunit", "lower is worse"),
    "risk_ratio": ("percentunit", "higher is worse"),
    "p95_latency_ms": ("ms", "higher is worse"),
    "anomaly_score": ("none", "higher is worse"),
}
"""By KPI: Grafana's unit, and on which side of the threshold it is ill."""

STREAM: Final = 'env="$env",exchange=~"$exchange"'
SYMBOL: Final = f'{STREAM},symbol=~"$symbol"'

RED: Final = "red"
YELLOW: Final = "yellow"
GREEN: Final = "green"

Kind = Literal["gauge", "stat", "series", "table", "heatmap", "bars"]
Step = tuple[float | None, str]
"""From which value on which colour; None for from the beginning."""

ZERO_IS_GOOD: Final[tuple[Step, ...]] = ((None, GREEN), (1.0, RED))
ONE_IS_GOOD: Final[tuple[Step, ...]] = ((None, RED), (1.0, GREEN))
THROTTLES: Final[tuple[Step, ...]] = ((None, RED), (0.001, YELLOW), (1.0, GREEN))


class Query(NamedTuple):
    """
    One query of a panel.

    Attributes:
        expression: PromQL, with Grafana's variables.
        legend: how a series is called, with `{{label}}`.
    """

    expression: str
    legend: str = ""


class Panel(NamedTuple):
    """
    One panel.

    Attributes:
        width, height: in Grafana's grid of 24 columns.
        unit: Grafana's name of it.
        steps: colours by value.
        names: texts for values.
        top: the scale's upper end, where it is known.
    """

    title: str
    kind: Kind
    queries: tuple[Query, ...]
    about: str
    width: int = 8
    height: int = 8
    unit: str = "none"
    steps: tuple[Step, ...] = ()
    names: tuple[tuple[str, str, str], ...] = ()
    top: float | None = None


class Row(NamedTuple):
    """A titled row of panels."""

    title: str
    panels: tuple[Panel, ...]


def _kpi_panel(kpi: str, unit: str, side: str) -> Panel:
    chosen = f'{{{SYMBOL},kpi="{kpi}"}}'
    return Panel(
        kpi,
        "series",
        (
            Query(f"live_kpi_value{chosen}", "{{symbol}}"),
            Query(f"live_kpi_threshold{chosen}", "{{symbol}} threshold"),
        ),
        f"The last window's value, and its threshold (dashed); {side}. A gap is no data.",
        width=8,
        unit=unit,
    )


def _increase(metric: str, labels: str, by: str) -> str:
    return f"sum by ({by}) (increase({metric}{{{labels}}}[$__rate_interval]))"


GUIDE: Final = Row(
    "Live Ledger",
    (
        Panel(
            "Live State",
            "gauge",
            (Query(f"live_state{{{STREAM}}}", "{{exchange}}"),),
            "0 FROZEN, 1 COOLDOWN, 2 ACTIVE.",
            width=5,
            steps=((None, RED), (1.0, YELLOW), (2.0, GREEN)),
            names=(("0", "FROZEN", RED), ("1", "COOLDOWN", YELLOW), ("2", "ACTIVE", GREEN)),
            top=2.0,
        ),
        Panel(
            "Throttle Factor",
            "series",
            (Query(f"live_throttle_factor{{{STREAM}}}", "{{exchange}}"),),
            "The global throttle: ACTIVE 1.0, COOLDOWN 0.3 to 0.6, FROZEN 0.0.",
            width=8,
            unit="percentunit",
            top=1.0,
        ),
        Panel(
            "Per-Symbol Throttle",
            "table",
            (Query(f"live_symbol_throttle{{{SYMBOL}}}"),),
            "KPI-based: OK 1.0, WARN 0.5, CRIT 0.0. What may be traded is the effective throttle.",
            width=6,
            unit="percentunit",
            steps=THROTTLES,
        ),
        Panel(
            "Violations Count",
            "stat",
            (Query(f"sum(increase(live_violations_total{{{STREAM}}}[1h]))", "last hour"),),
            "KPIs beyond their thresholds, and without data, over the last hour.",
            width=5,
            steps=((None, GREEN), (1.0, YELLOW), (10.0, RED)),
        ),
    ),
)

NOW: Final = Row(
    "Can it be believed?",
    (
        Panel(
            "Believed for",
            "stat",
            (Query(f"live_valid_until_timestamp_seconds{{{STREAM}}} - time()", "{{exchange}}"),),
            "Until valid_until; below 0 a bot must have stopped.",
            width=4,
            height=4,
            unit="s",
            steps=((None, RED), (0.0, GREEN)),
        ),
        Panel(
            "Last decision",
            "stat",
            (Query(f"time() - live_last_decision_timestamp_seconds{{{STREAM}}}", "{{exchange}}"),),
            "How long ago a window was last appended to the ledger.",
            width=4,
            height=4,
            unit="s",
        ),
        Panel(
            "In this state for",
            "stat",
            (
                Query(
                    f"time() - (live_state_since_timestamp_seconds{{{STREAM}}} > 0"
                    f" or live_run_started_timestamp_seconds{{{STREAM}}})",
                    "{{exchange}}",
                ),
            ),
            "Since the last transition; without one since the run's start.",
            width=4,
            height=4,
            unit="s",
        ),
        Panel(
            "Runner",
            "stat",
            (Query('max by (instance) (up{job="live-ledger"})', "{{instance}}"),),
            "Whether each runner's metrics can be scraped.",
            width=4,
            height=4,
            steps=ONE_IS_GOOD,
            names=(("0", "DOWN", RED), ("1", "UP", GREEN)),
        ),
        Panel(
            "Redis",
            "stat",
            (Query(f"live_redis_up{{{STREAM}}}", "{{exchange}}"),),
            "Whether Redis answered the last publication.",
            width=4,
            height=4,
            steps=ONE_IS_GOOD,
            names=(("0", "DOWN", RED), ("1", "UP", GREEN)),
        ),
        Panel(
            "Overrides in force",
            "stat",
            (Query(f"live_overrides_in_force{{{STREAM}}}", "{{kind}}"),),
            "By operators, by kind.",
            width=4,
            height=4,
            steps=((None, GREEN), (1.0, YELLOW)),
        ),
        Panel(
            "Alerts",
            "table",
            (Query('ALERTS{alertname=~"Live.+"}'),),
            "Firing and pending, the watchdog among them: without it alerting is down.",
            width=12,
            height=7,
        ),
        Panel(
            "Overrides expire in",
            "stat",
            (
                Query(
                    f"(live_override_expiry_timestamp_seconds{{{STREAM}}} > 0) - time()"
                    f" or live_override_expiry_timestamp_seconds{{{STREAM}}}",
                    "{{kind}}",
                ),
            ),
            "The soonest of each kind; 0 if none expires.",
            width=6,
            height=7,
            unit="s",
        ),
        Panel(
            "Run",
            "table",
            (
                Query(
                    f"live_build_info{{{STREAM}}} * on (instance)"
                    f" group_left (policy_hash, ramp_profile) live_policy_info{{{STREAM}}}"
                ),
            ),
            "Which code decides, by which policy.",
            width=6,
            height=7,
        ),
    ),
)

TRADING: Final = Row(
    "What may be traded, and the way back",
    (
        Panel(
            "Effective throttle",
            "series",
            (Query(f"live_effective_throttle{{{SYMBOL}}}", "{{symbol}}"),),
            "The least of global, KPI-based and caps; 0 beyond the profile's limit.",
            unit="percentunit",
            top=1.0,
        ),
        Panel(
            "Effective notional",
            "series",
            (Query(f"live_effective_notional_usd{{{SYMBOL}}}", "{{symbol}}"),),
            "Each symbol's share of the profile's notional, throttled.",
            unit="currencyUSD",
        ),
        Panel(
            "Hysteresis progress",
            "series",
            (
                Query(f"live_ok_windows{{{STREAM}}}", "OK windows"),
                Query(f"live_ok_windows_required{{{STREAM}}}", "OK windows required"),
                Query(f"live_warn_windows{{{STREAM}}}", "WARN windows"),
                Query(f"live_warn_windows_required{{{STREAM}}}", "WARN windows required"),
            ),
            "Windows in a row. OK ones lead out of COOLDOWN and FROZEN, WARN ones from ACTIVE to "
            "COOLDOWN; 0 required where that way isn't open.",
        ),
        Panel(
            "Symbols' OK windows",
            "series",
            (Query(f"live_symbol_ok_windows{{{SYMBOL}}}", "{{symbol}}"),),
            "In a row, each symbol alone: one that went CRIT stays at 0.0 until it has enough.",
        ),
        Panel(
            "Symbols' own throttle",
            "series",
            (Query(f"live_symbol_throttle{{{SYMBOL}}}", "{{symbol}}"),),
            "KPI-based: who is ill.",
            unit="percentunit",
            top=1.0,
        ),
        Panel(
            "Transitions",
            "bars",
            (Query(_increase("live_transitions_total", STREAM, "state"), "to {{state}}"),),
            "Into which state.",
        ),
    ),
)

KPI_ROW: Final = Row(
    "KPIs against their thresholds",
    (
        *(_kpi_panel(kpi, unit, side) for kpi, (unit, side) in KPIS.items()),
        Panel(
            "Violations by symbol and KPI",
            "bars",
            (
                Query(
                    _increase("live_violations_total", SYMBOL, "symbol, kpi, severity"),
                    "{{symbol}} {{kpi}} {{severity}}",
                ),
            ),
            "WARN and CRIT; no data is a violation too.",
        ),
    ),
)

WINDOWS: Final = Row(
    "Feed and windows",
    (
        Panel(
            "Feed lag",
            "series",
            (
                Query(f"live_feed_lag_seconds{{{STREAM}}}", "at the last window's end"),
                Query(
                    f"time() - (live_feed_last_sample_timestamp_seconds{{{STREAM}}} > 0"
                    f" or live_run_started_timestamp_seconds{{{STREAM}}})",
                    "now",
                ),
            ),
            "How old the newest sample is; before the first, since the run's start.",
            unit="s",
        ),
        Panel(
            "Samples discarded",
            "bars",
            (
                Query(
                    _increase("live_feed_samples_discarded_total", STREAM, "reason"), "{{reason}}"
                ),
            ),
            "What a feed delivered and the runner didn't use, or it couldn't deliver.",
        ),
        Panel(
            "Windows",
            "bars",
            (
                Query(_increase("live_windows_total", STREAM, "verdict"), "{{verdict}}"),
                Query(_increase("live_gap_windows_total", STREAM, "exchange"), "missing"),
                Query(_increase("live_late_windows_total", STREAM, "exchange"), "late"),
            ),
            "Decided, by verdict; missing, that nobody decided; late, that came after.",
        ),
        Panel(
            "Window duration",
            "heatmap",
            (Query(_increase("live_window_duration_seconds_bucket", STREAM, "le"), "{{le}}"),),
            "From collecting a window's samples to putting out.",
            width=12,
            unit="s",
        ),
        Panel(
            "Window duration, quantiles",
            "series",
            tuple(
                Query(
                    f"histogram_quantile({quantile}, "
                    f"{_increase('live_window_duration_seconds_bucket', STREAM, 'le')})",
                    name,
                )
                for quantile, name in ((0.5, "median"), (0.95, "p95"), (0.99, "p99"))
            ),
            "It must stay well under one interval.",
            width=12,
            unit="s",
        ),
    ),
)

OUTPUTS: Final = Row(
    "Ledger and outputs",
    (
        Panel(
            "Projection lag",
            "series",
            (Query(f"live_projection_lag_seconds{{{STREAM}}}", "{{projection}}"),),
            "For how long the oldest event waits for each output.",
            unit="s",
        ),
        Panel(
            "Projection lag in events",
            "series",
            (Query(f"live_projection_lag_events{{{STREAM}}}", "{{projection}}"),),
            "How far each output is behind the ledger.",
        ),
        Panel(
            "Ledger",
            "series",
            (
                Query(f"live_ledger_version{{{STREAM}}}", "version"),
                Query(f"live_ledger_position{{{STREAM}}}", "position"),
            ),
            "The stream's last version, and its place in the ledger.",
        ),
        Panel(
            "What must never happen",
            "stat",
            (
                Query(f"live_external_writes_total{{{STREAM}}}", "external writes"),
                Query(f"live_fills_while_frozen_total{{{STREAM}}}", "fills while frozen"),
                Query(f"live_clock_faults_total{{{STREAM}}}", "clock faults"),
                Query(f"live_clock_behind{{{STREAM}}}", "clock behind"),
            ),
            "Since the stream began.",
            width=12,
            height=5,
            steps=ZERO_IS_GOOD,
        ),
        Panel(
            "Memory",
            "series",
            (Query('process_resident_memory_bytes{job="live-ledger"}', "{{instance}}"),),
            "Of the runners' processes.",
            width=6,
            height=5,
            unit="bytes",
        ),
        Panel(
            "CPU",
            "series",
            (
                Query(
                    'rate(process_cpu_seconds_total{job="live-ledger"}[$__rate_interval])',
                    "{{instance}}",
                ),
            ),
            "Of one core, by the runners' processes.",
            width=6,
            height=5,
            unit="percentunit",
        ),
    ),
)

NOTIFICATIONS: Final = Row(
    "Notifications",
    (
        Panel(
            "Notifications waiting",
            "series",
            (Query(f"live_notifications_pending{{{STREAM}}}", "{{exchange}}"),),
            "In the outbox.",
            width=12,
            height=6,
        ),
        Panel(
            "Notifications",
            "bars",
            (Query(_increase("live_notifications_total", STREAM, "outcome"), "{{outcome}}"),),
            "Delivered, failed and tried again, given up.",
            width=12,
            height=6,
        ),
    ),
)

ROWS: Final = (GUIDE, NOW, TRADING, KPI_ROW, WINDOWS, OUTPUTS, NOTIFICATIONS)
