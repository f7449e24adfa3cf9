"""
The shape of an explanation: what the state was, why, and what would have to happen to leave it.

Times are ISO in UTC. `projections.explaining` makes it; `live explain --json` is it.
"""

import msgspec

from domain.events import TradingState
from domain.kpis import Verdict
from domain.state import Counts
from projections.views import (
    Hysteresis,
    LedgerPlace,
    OverrideView,
    ResetView,
    ViolationView,
    WindowSpan,
)


class KpiView(msgspec.Struct, frozen=True):
    """
    One KPI of one symbol in a window.

    Attributes:
        value: the value that was judged; null if there is no valid one.
        arrived: what did arrive instead, a defect's name or a number out of the KPI's domain; null
            if nothing did.
        threshold, breached_when: the rule; a value on its threshold is OK.
        headroom: how far the value lies from the threshold on the healthy side, in the KPI's unit;
            below 0, how far beyond it.
        verdict: null where the KPI had none: it was absent and isn't required, or was excused.
        excused: a waiver excused its absence.
    """

    kpi: str
    value: float | None
    arrived: str | float | None
    threshold: float
    breached_when: str
    headroom: float | None
    verdict: Verdict | None
    excused: bool
    no_data_windows: int


class DecidingWindow(msgspec.Struct, frozen=True):
    """The window whose verdict led to the present state, and the symbol's violations in it."""

    window: WindowSpan
    version: int
    violations: tuple[ViolationView, ...]


class Exit(msgspec.Struct, frozen=True):
    """
    One way out of a state.

    Attributes:
        to: the state that it leads to.
        needs: what would have to happen, in words.
        note: what may make it lead elsewhere.
        windows: how many windows at least; null where none is enough.
        earliest: when that could be, if all that is asked for comes; null where it can't be said.
        blocked_by: what keeps it from being counted at all.
    """

    to: TradingState
    needs: str
    note: str | None
    windows: int | None
    earliest: str | None
    blocked_by: tuple[str, ...]


class SymbolExplanation(msgspec.Struct, frozen=True):
    """
    One symbol: what may be traded of it, what bounds that, and how it does.

    Attributes:
        verdict: in the last window that was observed.
        limited_by: all that keeps `effective_throttle` below 1.0, in words.
        frozen, probation: as the rules remember it.
        ok_windows, required: OK windows in a row of its own, and how many lead out of its freeze
            or probation; null if it is in neither.
        last_reset: the last window that set `ok_windows` back, if it is known.
    """

    symbol: str
    verdict: Verdict | None
    per_symbol_throttle: float
    effective_throttle: float
    effective_notional: float | None
    limited_by: tuple[str, ...]
    frozen: bool
    probation: bool
    ok_windows: int
    required: int | None
    last_reset: ResetView | None
    kpis: tuple[KpiView, ...]
    violations: tuple[ViolationView, ...]


class Explanation(msgspec.Struct, frozen=True):
    """
    The state of a stream at a time, as it was known then.

    Attributes:
        at: the time that was asked for.
        valid_until: past it, nothing that was known then may be believed.
        stale: `at` lies past it: what follows says how it was, not how it is.
        age_sec: from the end of the last observed window to `at`.
        for_sec: from `since` to the end of the last window accounted for.
        missing_windows: how many windows after the last observed one are known to be missing.
    """

    stream: str
    at: str
    valid_until: str
    stale: bool
    age_sec: float
    state: TradingState
    throttle: float
    previous_state: TradingState | None
    since: str | None
    for_sec: float | None
    reasons: tuple[str, ...]
    triggered_by: str | None
    deciding: DecidingWindow | None
    window: WindowSpan
    warn_windows: int
    hysteresis: Hysteresis
    exits: tuple[Exit, ...]
    overrides: tuple[OverrideView, ...]
    clock_behind: bool
    missing_windows: int
    symbols: tuple[SymbolExplanation, ...]
    counts: Counts
    policy_hash: str
    ledger: LedgerPlace
