"""
The CI gate over a history: whether the last windows, all together, kept every threshold.

Each window is judged as the gate judges the last one: by the domain's own comparison, against the
gate's thresholds. A window that is missing is neither kept nor breached. What a share comes to is
PASS or FAIL only if the windows that can't be told couldn't change it. Source: issue 5, `live
gate --history`; LIVE_MODE_GUIDE.md, CI Gate.
"""

from collections.abc import Iterator
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import BadInput, CannotTell
from domain.kpis import KPIS, Kpi
from domain.verdicts import format_threshold
from domain.windows import format_time
from projections.gate import (
    Check,
    GateLimits,
    GateResult,
    Outcome,
    age_check,
    env_check,
    feed_check,
    outcome_of,
    state_check,
)
from projections.history import History, StreamHistory
from projections.views import LedgerPlace

WINDOWS_MAX: Final = 100_000

_BREACHED, _UNTOLD, _KEPT = range(3)
"""How one KPI fared in one window; the least of a window's is the window's."""


class HistoryLimits(msgspec.Struct, frozen=True):
    """
    What is asked of a history.

    Attributes:
        gate: the thresholds, the age, the env.
        windows: how many windows, the last one that is known included.
        min_ok_share: the share of them that have to keep every threshold, 0 to 1.
    """

    gate: GateLimits
    windows: int
    min_ok_share: float


def check_history_limits(limits: HistoryLimits) -> HistoryLimits:
    """
    Return the limits if a history can be held against them.

    Raises:
        BadInput: naming the option.
    """
    if not 1 <= limits.windows <= WINDOWS_MAX:
        raise BadInput(f"--windows: expected 1 to {WINDOWS_MAX}, was {limits.windows}")
    if not 0 < limits.min_ok_share <= 1:
        raise BadInput(
            f"--min-ok-share: expected more than 0 and at most 1, was {limits.min_ok_share:g}"
        )
    return limits


def judge_history(history: History, limits: HistoryLimits, *, now_ms: int) -> GateResult:
    """
    Return every check of the history's last windows, and what they come to together.

    Args:
        history: of one stream.
        limits: from `check_history_limits`.
        now_ms: the time to hold the last window's end against, milliseconds since the epoch, UTC.

    Raises:
        CannotTell: if it holds no window.
        HistoryDamaged: if a file can't be read, naming it.
    """
    stream = _only_stream(history)
    ends_ms, interval_ms = stream.ends_ms, stream.state.interval_ms
    if ends_ms is None:
        raise CannotTell(f"{stream.key}: no window has been decided yet")
    from_ms = ends_ms - limits.windows * interval_ms
    windows = history.table("windows", from_ms=from_ms).filter(~pc.field("is_gap"))
    kpis = history.table("kpis", from_ms=from_ms)
    checks = (
        age_check(format_time(ends_ms), limits.gate, now_ms),
        *env_check(stream.key.env, limits.gate),
        *_feeds(history, windows, limits.gate),
        state_check(stream.state.trading_state, stream.state.throttle),
        _coverage(windows, limits, interval_ms),
        *_shares(kpis, limits),
    )
    outcome = outcome_of(checks)
    return GateResult(outcome, outcome.exit_code, checks, _place(stream, windows))


def _only_stream(history: History) -> StreamHistory:
    if len(history.streams) > 1:
        raise BadInput(
            f"{history.folder} holds {', '.join(history.streams)}; "
            "choose one with --env, --exchange and --dry-run"
        )
    return next(iter(history.streams.values()))


def _place(stream: StreamHistory, windows: pa.Table) -> LedgerPlace | None:
    """Return the last window that was judged, None if all of them are missing."""
    if not windows.num_rows:
        return None
    version, position = (pc.max(windows[name]).as_py() for name in ("ledger_version", "position"))
    return LedgerPlace(str(stream.key), version, position)


def _feeds(history: History, windows: pa.Table, limits: GateLimits) -> Iterator[Check]:
    """Yield whether the windows' runs had a feed that was asked for."""
    runs = set(windows["run_id"].to_pylist())
    started = history.table(
        "runs", columns=["run_id", "feed"], where=pc.field("event") == "started"
    )
    feeds = {run["feed"]: None for run in started.to_pylist() if run["run_id"] in runs}
    for feed in feeds:
        yield from feed_check(feed, limits)


def _coverage(windows: pa.Table, limits: HistoryLimits, interval_ms: int) -> Check:
    """Check that as many windows as were asked for were decided."""
    observed = windows.num_rows
    missing = limits.windows - observed
    outcome = Outcome.UNKNOWN if missing else Outcome.PASS
    span = f"{limits.windows * interval_ms / 1000:g} s"
    sentence = f"{observed} of {limits.windows} windows ({span}) were decided"
    if missing:
        sentence += f"; {missing} are missing"
    frozen = pc.sum(pc.equal(windows["state"], "FROZEN")).as_py() or 0
    if frozen:
        sentence += f"; the state was FROZEN after {frozen}"
    return Check("coverage", None, outcome, sentence, observed, ">=", limits.windows)


def _shares(kpis: pa.Table, limits: HistoryLimits) -> Iterator[Check]:
    """Yield the share of windows that kept everything, then that of each symbol and KPI."""
    fared = pa.concat_tables(
        _fared(kpis.filter(pc.field("kpi") == kpi.name), kpi, limits.gate.thresholds[kpi.name])
        for kpi in KPIS
    )
    of_windows = fared.group_by("ledger_version").aggregate([("fared", "min")])["fared_min"]
    yield _share_check("ok_share", None, of_windows, limits, "windows kept every threshold")
    symbols = fared["symbol"].unique().to_pylist()
    for symbol in symbols:
        of_symbol = fared.filter(pc.field("symbol") == symbol)
        for kpi in KPIS:
            rows = of_symbol.filter(pc.field("kpi") == kpi.name)
            yield _share_check(kpi.name, symbol, rows["fared"], limits, _told(rows["value"], kpi))


def _fared(rows: pa.Table, kpi: Kpi, threshold: float) -> pa.Table:
    """
    Return how a KPI fared in each of its rows, as `_BREACHED`, `_UNTOLD` or `_KEPT`.

    An absent KPI that nobody missed is kept; one that a waiver excused is not: like the gate on the
    last window, this one concludes nothing from what isn't there.
    """
    rows = rows.append_column("fared", _codes(rows, kpi, threshold))
    return rows.select(["ledger_version", "symbol", "kpi", "value", "fared"])


def _codes(rows: pa.Table, kpi: Kpi, threshold: float) -> pa.ChunkedArray:
    is_breach = pc.less if kpi.breached_when == "<" else pc.greater
    is_missed = pc.or_(pc.is_valid(rows["verdict"]), rows["excused"])
    return pc.if_else(
        pc.is_valid(rows["value"]),
        pc.if_else(is_breach(rows["value"], threshold), _BREACHED, _KEPT),
        pc.if_else(is_missed, _UNTOLD, _KEPT),
    )


def _share_check(
    name: str, symbol: str | None, fared: pa.ChunkedArray, limits: HistoryLimits, told: str
) -> Check:
    """Check a share: PASS or FAIL if the windows that can't be told couldn't change it."""
    kept, breached = (pc.sum(pc.equal(fared, code)).as_py() or 0 for code in (_KEPT, _BREACHED))
    needed = limits.min_ok_share * limits.windows
    if kept >= needed:
        outcome = Outcome.PASS
    elif limits.windows - breached < needed:
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.UNKNOWN
    untold = limits.windows - kept - breached
    sentence = f"{kept} of {limits.windows} {told}"
    if breached:
        sentence += f", {breached} didn't"
    if untold:
        sentence += f", {untold} can't be told"
    share = kept / limits.windows
    return Check(name, symbol, outcome, sentence, share, ">=", limits.min_ok_share)


def _told(values: pa.ChunkedArray, kpi: Kpi) -> str:
    """Return what kept it: `windows kept edge_bps, the worst 2.61`."""
    worst = (pc.min if kpi.breached_when == "<" else pc.max)(values).as_py()
    text = f"windows kept {kpi.label}"
    return text if worst is None else f"{text} (worst {format_threshold(kpi, worst)})"
