"""
The tables of the history: what a column means, its type, and whether it may be unknown.

Each row comes from one event, and says from which: `ledger_version` is its place in its stream,
`position` its place in the ledger. All times are milliseconds UTC; a window is known by its start,
its end is exclusive. Source: DESIGN.md section 3, Parquet history.
"""

from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = 1
"""Raised whenever a column or its meaning changes: a history of another one is made again."""

TIME: Final = pa.timestamp("ms", tz="UTC")
TEXTS: Final = pa.list_(pa.string())


def _known(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    """Return a column that every row has a value in."""
    return pa.field(name, kind, nullable=False, metadata={"meaning": meaning})


def _maybe(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    """Return a column that may be null: unknown, or not applicable."""
    return pa.field(name, kind, nullable=True, metadata={"meaning": meaning})


_PLACE: Final = (
    _known("env", pa.string(), "the stream's environment"),
    _known("exchange", pa.string(), "the stream's venue"),
    _known("dry_run", pa.bool_(), "whether it is the stream of a dry run"),
    _known("day", pa.date32(), "the UTC day of the row's own time: its partition"),
    _known("ledger_version", pa.int64(), "the event's version in its stream, from 1"),
    _known("position", pa.int64(), "the event's position among those of all streams"),
    _maybe("decided_at", TIME, "the wall clock when it was appended"),
)
"""What every row begins with."""

_WINDOW: Final = (
    _known("window_start", TIME, "the window's start; of a gap, the first missing window's"),
    _known("window_end", TIME, "the end, exclusive; of a gap, the last missing window's"),
)

WINDOWS: Final = pa.schema(
    [
        *_PLACE,
        *_WINDOW,
        _known("windows", pa.int64(), "how many windows the row stands for: 1, or a gap's"),
        _known("is_gap", pa.bool_(), "nobody decided these windows: the runner was down"),
        _known("interval_ms", pa.int64(), "the length of one window"),
        _maybe("verdict", pa.string(), "OK, WARN or CRIT; null for a gap"),
        _known("state_before", pa.string(), "the global state in which the window was judged"),
        _known("state", pa.string(), "the global state after it: ACTIVE, COOLDOWN or FROZEN"),
        _known("throttle", pa.float64(), "the global throttle after it, 0 to 1"),
        _known("ok_windows", pa.int64(), "OK windows in a row, this one included"),
        _known("warn_windows", pa.int64(), "WARN windows in a row, this one included"),
        _maybe("ok_windows_required", pa.int64(), "OK windows it took to leave state_before"),
        _known("excused", pa.bool_(), "a waiver helped one of ok_windows"),
        _maybe("triggered_by", pa.string(), "the first symbol with the worst verdict"),
        _known("symbols", pa.int32(), "how many symbols were judged"),
        _known("symbols_ok", pa.int32(), "how many of them were OK; 0 for a gap"),
        _known("symbols_warn", pa.int32(), "how many of them were WARN; 0 for a gap"),
        _known("symbols_crit", pa.int32(), "how many of them were CRIT; 0 for a gap"),
        _known("run_id", pa.string(), "the run that appended it"),
        _known("policy_hash", pa.string(), "the policy that judged it"),
        _maybe("feed_position", pa.string(), "up to where a durable feed was read"),
        _maybe("feed_counts", pa.string(), "what the feed didn't use, as JSON: late, malformed"),
    ]
)
"""A row a window, or a gap: `KpiObserved`, `GapObserved`, and the transition that it caused."""

SYMBOLS: Final = pa.schema(
    [
        *_PLACE,
        *_WINDOW,
        _known("windows", pa.int64(), "how many windows the row stands for: 1, or a gap's"),
        _known("symbol", pa.string(), "the symbol"),
        _known("rank", pa.int32(), "its place among the symbols as configured, from 0"),
        _known("counted", pa.bool_(), "whether it is within the profile's limit"),
        _maybe("verdict", pa.string(), "OK, WARN or CRIT; null in a gap"),
        _known("throttle", pa.float64(), "the KPI-based throttle after the window"),
        _known("effective_throttle", pa.float64(), "what may be traded after the window, 0 to 1"),
        _maybe("effective_notional", pa.float64(), "that in USD; null without a profile"),
        _known("ok_windows", pa.int64(), "the symbol's own OK windows in a row"),
        _known("frozen", pa.bool_(), "it went CRIT, and hasn't had enough OK windows since"),
        _known("probation", pa.bool_(), "it recovered with a waiver's help"),
        _known("halted", pa.bool_(), "its effective throttle was 0.0"),
        _known("excused", pa.bool_(), "a waiver excused a KPI in one of ok_windows"),
        _known("excused_kpis", TEXTS, "the KPIs that a waiver excused in this window"),
        _maybe("notional", pa.float64(), "traded in the window, quote currency"),
        _maybe("fills", pa.int64(), "number of fills in the window"),
    ]
)
"""A row a symbol and window, or gap: what came of it, and what was traded."""

KPIS: Final = pa.schema(
    [
        *_PLACE,
        *_WINDOW,
        _known("symbol", pa.string(), "the symbol"),
        _known("kpi", pa.string(), "edge_bps, maker_taker_ratio, risk_ratio, ..."),
        _maybe("value", pa.float64(), "the value that was judged; null if there is no valid one"),
        _maybe("defect", pa.string(), "why there is none: absent, out_of_domain, nan, stale, ..."),
        _maybe("arrived", pa.float64(), "the number that was out of the KPI's domain"),
        _known("threshold", pa.float64(), "what it is compared with"),
        _maybe("verdict", pa.string(), "OK, WARN or CRIT; null if the KPI had no verdict"),
        _known("excused", pa.bool_(), "a waiver excused its absence"),
        _known("no_data_windows", pa.int64(), "NO_DATA windows in a row, this one included"),
    ]
)
"""A row a KPI, symbol and observed window, whether a value arrived or not."""

VIOLATIONS: Final = pa.schema(
    [
        *_PLACE,
        *_WINDOW,
        _known("symbol", pa.string(), "the symbol"),
        _known("counted", pa.bool_(), "whether it is within the profile's limit"),
        _known("kpi", pa.string(), "the KPI"),
        _known("verdict", pa.string(), "WARN or CRIT"),
        _maybe("value", pa.float64(), "the value; null where there was no data"),
        _maybe("comparator", pa.string(), "< or >: how the value stands to the threshold"),
        _maybe("threshold", pa.float64(), "the threshold; null where there was no data"),
        _maybe("margin", pa.float64(), "how far beyond it the value lies, above 0"),
        _known("no_data_windows", pa.int64(), "NO_DATA windows in a row; 0 for a breach"),
        _maybe("arrived", pa.string(), "what did arrive, where there was no data"),
        _known("reason", pa.string(), "the text that reasons show"),
    ]
)
"""A row a KPI that was not OK."""

TRANSITIONS: Final = pa.schema(
    [
        *_PLACE,
        _known(
            "happened_at", TIME, "from when on it holds: the deciding window's end, or the override"
        ),
        _maybe("window_start", TIME, "the deciding window; of a gap, the first missing one"),
        _known("from_state", pa.string(), "ACTIVE, COOLDOWN or FROZEN"),
        _known("to_state", pa.string(), "ACTIVE, COOLDOWN or FROZEN"),
        _known("throttle", pa.float64(), "the global throttle from then on"),
        _known("cause", pa.string(), "verdict, recovery, gap, override, clock or start"),
        _known("reasons", TEXTS, "why, as texts, in order"),
        _maybe("triggered_by", pa.string(), "the symbol that it was, if it was one"),
        _maybe("kpi", pa.string(), "of the worst of that symbol's violations: the KPI"),
        _maybe("kpi_verdict", pa.string(), "... its verdict"),
        _maybe("value", pa.float64(), "... its value; null where there was no data"),
        _maybe("comparator", pa.string(), "... < or >"),
        _maybe("threshold", pa.float64(), "... its threshold"),
        _known("no_data_windows", pa.int64(), "... NO_DATA windows in a row; 0 for a breach"),
        _maybe("previous_at", TIME, "when the state that it ended had begun; null for the first"),
        _known("ok_windows", pa.int64(), "OK windows in a row that led to it"),
        _known("warn_windows", pa.int64(), "WARN windows in a row that led to it"),
        _maybe("override_id", pa.string(), "the override that caused it"),
        _maybe("actor", pa.string(), "whose override it was"),
        _known("run_id", pa.string(), "the run that appended it"),
        _known("policy_hash", pa.string(), "the policy in force"),
    ]
)
"""A row a change of the global state."""

THROTTLES: Final = pa.schema(
    [
        *_PLACE,
        _known("happened_at", TIME, "from when on it holds"),
        _known("symbol", pa.string(), "the symbol"),
        _known("throttle_before", pa.float64(), "the KPI-based throttle before"),
        _known("throttle", pa.float64(), "... and from then on"),
        _known("effective_before", pa.float64(), "the effective throttle before"),
        _known("effective_throttle", pa.float64(), "... and from then on"),
        _known("state", pa.string(), "the global state from then on"),
    ]
)
"""A row a change of what may be traded of one symbol."""

POLICIES: Final = pa.schema(
    [
        *_PLACE,
        _known(
            "happened_at", TIME, "the first window that it holds for; the run's start if unknown"
        ),
        _known("policy_hash", pa.string(), "names the policy"),
        _known("symbols", TEXTS, "the symbols, in order"),
        _maybe("ramp_profile", pa.string(), "the profile's name"),
        _maybe("max_notional", pa.float64(), "the profile's limit in USD, over all symbols"),
        _maybe("max_symbols", pa.int32(), "how many symbols the profile lets trade"),
        _known("changes", TEXTS, "what changed, as texts"),
        _known("loosened", pa.bool_(), "the change could mean more trading"),
        _known("min_edge_bps", pa.float64(), "general threshold"),
        _known("min_maker_taker", pa.float64(), "general threshold"),
        _known("max_risk", pa.float64(), "general threshold"),
        _known("max_latency_ms", pa.float64(), "general threshold"),
        _known("max_anomaly", pa.float64(), "general threshold"),
        _known("min_warn_windows", pa.int32(), "WARN windows in a row that lead to COOLDOWN"),
        _known("min_ok_windows", pa.int32(), "OK windows in a row out of COOLDOWN"),
        _known("unfreeze_after_ok_windows", pa.int32(), "OK windows in a row out of FROZEN"),
        _known("no_data_freeze_windows", pa.int32(), "NO_DATA windows in a row that are CRIT"),
        _known("global_freeze_symbols", pa.int32(), "CRIT symbols that make the window CRIT"),
        _known("cooldown_throttle", pa.float64(), "the global throttle in COOLDOWN"),
        _known("required_kpis", TEXTS, "KPIs whose absence counts"),
        _known("waived_when_halted", TEXTS, "KPIs that may be absent when halted"),
        _known("policy", pa.string(), "all of it as JSON, thresholds of single symbols included"),
        _known("run_id", pa.string(), "the run that adopted it"),
    ]
)
"""A row a policy that was adopted."""

OVERRIDES: Final = pa.schema(
    [
        *_PLACE,
        _known("happened_at", TIME, "when it was applied, or ended"),
        _known("event", pa.string(), "applied or ended"),
        _known("override_id", pa.string(), "names the override"),
        _maybe("kind", pa.string(), "freeze, cap or unfreeze"),
        _maybe("symbol", pa.string(), "the one symbol that it is for; null for all"),
        _maybe("cap", pa.float64(), "the upper bound of the effective throttle, of a cap"),
        _maybe("applied_at", TIME, "when it was applied"),
        _maybe("expires_at", TIME, "when it ends by itself; null for when it is cleared"),
        _known("actor", pa.string(), "who applied or ended it; expiry, redis"),
        _known("reason", pa.string(), "why"),
    ]
)
"""A row an override that came into force, and one when it ended."""

RUNS: Final = pa.schema(
    [
        *_PLACE,
        _known("happened_at", TIME, "when it started or stopped"),
        _known("event", pa.string(), "started or stopped; a run that was killed has no stop"),
        _known("run_id", pa.string(), "names the run"),
        _maybe("reason", pa.string(), "why it stopped"),
        _known("ledger_id", pa.string(), "the stream's ledger"),
        _known("interval_ms", pa.int64(), "the stream's interval"),
        _maybe("feed", pa.string(), "where windows came from"),
        _maybe("feed_kind", pa.string(), "mock, file, redis, ..."),
        _maybe("rules_version", pa.int32(), "the rules of decision"),
        _maybe("code_version", pa.string(), "the program"),
        _maybe("host", pa.string(), "the machine"),
        _maybe("process_id", pa.int64(), "the process"),
        _maybe("fencing_token", pa.int64(), "the lease's token"),
    ]
)
"""A row a run that started, and one when it stopped of its own accord."""

INCIDENTS: Final = pa.schema(
    [
        *_PLACE,
        _known(
            "happened_at",
            TIME,
            "when; of a gap, its start; of a late window, the end of the last one",
        ),
        _known("kind", pa.string(), "gap, late_window, clock_fault, external_write, ..."),
        _maybe("window_start", TIME, "the late window; a gap's first; the slow clock's window"),
        _maybe("window_end", TIME, "of a gap: the last missing window's end, exclusive"),
        _maybe("windows", pa.int64(), "of a gap: how many windows are missing"),
        _maybe("symbol", pa.string(), "the symbol that was traded"),
        _maybe("behind_ms", pa.int64(), "how far the clock was behind the ledger"),
        _maybe("key", pa.string(), "the key that somebody wrote"),
        _maybe("found", pa.string(), "what was found there"),
        _maybe("expected", pa.string(), "what the ledger had said"),
        _maybe("frozen_since", TIME, "since when 0.0 was published"),
        _maybe("notional", pa.float64(), "of the fill, quote currency"),
        _maybe("content", pa.string(), "the hash of what arrived late"),
        _known("details", pa.string(), "the whole event as JSON"),
    ]
)
"""
A row whatever wants looking at: `gap`, `late_window`, `clock_fault`, `external_write`,
`fill_while_frozen`.
"""

TABLES: Final[dict[str, pa.Schema]] = {
    "windows": WINDOWS,
    "symbols": SYMBOLS,
    "kpis": KPIS,
    "violations": VIOLATIONS,
    "transitions": TRANSITIONS,
    "throttles": THROTTLES,
    "policies": POLICIES,
    "overrides": OVERRIDES,
    "runs": RUNS,
    "incidents": INCIDENTS,
}
"""All tables by name."""

SORTED_BY: Final[dict[str, tuple[str, ...]]] = {
    "kpis": ("kpi", "symbol", "ledger_version"),
    "symbols": ("symbol", "ledger_version"),
}
"""The order of rows in a file, where it isn't that of the ledger: so that a reader can skip."""
