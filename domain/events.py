"""
The events: what was observed, what was decided, and the counters that resulted.

Nothing here is computed when it is read: `evolve` copies it. Times are milliseconds UTC. An
event's stored name and version are in `ledger.codec`; a field is never renamed or reinterpreted,
a change of meaning is a new version with an upcast. Source: DESIGN.md section 2, Events.
"""

from enum import StrEnum
from typing import Final

import msgspec

from domain.kpis import Verdict
from domain.policy import Policy
from domain.verdicts import Violation
from domain.windows import NOTHING, SymbolReadings

RULES_VERSION: Final = 1
"""The version of the rules of decision; deciding again means under the recorded one."""


class TradingState(StrEnum):
    """The states of the guide's finite state machine, from most to least trading."""

    ACTIVE = "ACTIVE"
    COOLDOWN = "COOLDOWN"
    FROZEN = "FROZEN"

    def is_worse_than(self, other: "TradingState") -> bool:
        """Return whether this state allows less trading than the other."""
        order = list(TradingState)
        return order.index(self) > order.index(other)


class CauseKind(StrEnum):
    """What made a transition."""

    VERDICT = "verdict"
    RECOVERY = "recovery"
    GAP = "gap"
    OVERRIDE = "override"
    CLOCK = "clock"
    START = "start"


class OverrideKind(StrEnum):
    """What an operator can put above the rules."""

    FREEZE = "freeze"
    CAP = "cap"
    UNFREEZE = "unfreeze"


LATENESS_MS: Final = 2_000
"""What runs were told of lateness before they recorded it, and are told by default."""


class _Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of all events."""


class RampProfile(_Event, frozen=True):
    """The limits of a ramp profile. `max_notional` is in USD, over all symbols within the limit."""

    name: str
    max_notional: float
    max_symbols: int


class SymbolMemory(_Event, frozen=True):
    """
    What the rules remember of one symbol from window to window.

    Attributes:
        symbol: its name.
        throttle: the KPI-based throttle after the window (the guide's per-symbol throttle).
        ok_windows: consecutive OK windows, of the current leg if it is on probation.
        frozen: it went CRIT, and hasn't had enough OK windows since.
        probation: it recovered with a waiver's help, and hasn't had enough OK windows since.
        excused: a waiver excused a KPI in one of `ok_windows`.
        halted: its effective throttle after the window was 0.0.
        no_data: consecutive NO_DATA windows by KPI, where there are any.
        breached: KPIs whose last valid value was a breach.
    """

    symbol: str
    throttle: float = 1.0
    ok_windows: int = 0
    frozen: bool = False
    probation: bool = False
    excused: bool = False
    halted: bool = False
    no_data: dict[str, int] = {}
    breached: tuple[str, ...] = ()


class SymbolObservation(_Event, frozen=True):
    """One symbol in one window: what arrived, how it was judged, what is remembered."""

    memory: SymbolMemory
    readings: SymbolReadings = NOTHING
    verdict: Verdict = Verdict.OK
    violations: tuple[Violation, ...] = ()
    excused_kpis: tuple[str, ...] = ()


class Override(_Event, frozen=True):
    """
    An operator's word above the rules.

    Attributes:
        id: names it among the stream's overrides.
        kind: freeze, cap or unfreeze.
        symbol: the one symbol it is for; None for all.
        cap: the upper bound of the effective throttle, for a cap.
        expires_at_ms: when it ends by itself; None for when it is cleared.
        ended_at_ms: when it ended; it is kept until the window that it ended in is over.
    """

    id: str
    kind: OverrideKind
    actor: str
    reason: str
    applied_at_ms: int
    symbol: str | None = None
    cap: float | None = None
    expires_at_ms: int | None = None
    ended_at_ms: int | None = None


class RunStarted(_Event, frozen=True):
    """
    A runner began to write. The first one fixes the stream's interval and ledger id.

    `lateness_ms` is how long after a window's end its samples may still come, as the run was told.
    """

    run_id: str
    ledger_id: str
    env: str
    exchange: str
    dry_run: bool
    interval_ms: int
    feed: str
    feed_kind: str
    rules_version: int
    code_version: str
    started_at_ms: int
    host: str = ""
    process_id: int = 0
    fencing_token: int | None = None
    lateness_ms: int = LATENESS_MS


class RunStopped(_Event, frozen=True):
    """A runner ended of its own accord, after the window that it was in."""

    run_id: str
    reason: str
    at_ms: int


class PolicyAdopted(_Event, frozen=True):
    """From the next window on, this policy, these symbols and these limits hold."""

    policy: Policy
    policy_hash: str
    symbols: tuple[str, ...]
    profile: RampProfile | None = None
    changes: tuple[str, ...] = ()
    loosened: bool = False


class KpiObserved(_Event, frozen=True):
    """
    One window of all symbols, decided.

    Attributes:
        window: the window's start.
        interval_ms: the window's length.
        content: the hash of what arrived (`domain.windows.content_hash`).
        verdict: the window's.
        throttle: the global throttle after the window's rules, before any transition it caused.
        triggered_by: the first symbol with the worst verdict, if the window was not OK.
        ok_windows, warn_windows: consecutive windows of that verdict, this one included.
        excused: a waiver excused a KPI in one of `ok_windows`.
        feed_position: up to where a durable feed was read.
        feed_counts: what the feed counted and didn't use: `late`, `malformed`, `ignored`, ...
    """

    window: int
    interval_ms: int
    content: str
    verdict: Verdict
    throttle: float
    symbols: tuple[SymbolObservation, ...]
    triggered_by: str | None = None
    ok_windows: int = 0
    warn_windows: int = 0
    excused: bool = False
    feed_position: str | None = None
    feed_counts: dict[str, int] = {}

    @property
    def end_ms(self) -> int:
        """The window's end."""
        return self.window + self.interval_ms


class GapObserved(_Event, frozen=True):
    """
    Windows that nobody decided, and what they came to: the same as windows without data.

    Attributes:
        window: the first missing window's start.
        windows: how many are missing.
        memories: what is remembered of each symbol after them.
        throttle, ok_windows, warn_windows: the global ones after them.
    """

    window: int
    windows: int
    interval_ms: int
    throttle: float
    memories: tuple[SymbolMemory, ...]
    ok_windows: int = 0
    warn_windows: int = 0

    @property
    def end_ms(self) -> int:
        """The end of the last missing window."""
        return self.window + self.windows * self.interval_ms


class StateTransitioned(_Event, frozen=True):
    """
    The global state changed, and why. It holds until the next one.

    Attributes:
        since_ms: from when on: the end of the deciding window, or the moment of an override.
        cause: what kind of cause it was.
        triggered_by: the symbol that it was, if it was one.
        warn_windows: WARN windows in a row since, where a gap went on after the transition.
    """

    previous: TradingState
    state: TradingState
    throttle: float
    since_ms: int
    cause: CauseKind
    reasons: tuple[str, ...]
    triggered_by: str | None = None
    warn_windows: int = 0


class SymbolThrottleChanged(_Event, frozen=True):
    """What may be traded of one symbol changed: the KPI-based throttle, the effective one, both."""

    symbol: str
    at_ms: int
    throttle_before: float
    throttle: float
    effective_before: float
    effective: float


class LateWindowObserved(_Event, frozen=True):
    """A window arrived that is older than the last, or other than recorded. Nothing changed."""

    window: int
    content: str
    symbols: dict[str, SymbolReadings]


class ClockFault(_Event, frozen=True):
    """The clock's window lies before the ledger's last one. `behind_ms` says how far."""

    window: int
    last_window: int
    behind_ms: int


class OverrideApplied(_Event, frozen=True):
    """An override came into force."""

    override: Override


class OverrideEnded(_Event, frozen=True):
    """An override expired or was cleared."""

    id: str
    at_ms: int
    ended_by: str
    reason: str = ""


class ExternalWriteDetected(_Event, frozen=True):
    """Somebody wrote a key of ours, towards more trading, or something that can't be read."""

    key: str
    found: str
    expected: str
    at_ms: int


class TradedWhileFrozen(_Event, frozen=True):
    """A fill that added risk came more than the grace period after 0.0 was published."""

    symbol: str
    filled_at_ms: int
    frozen_since_ms: int
    notional: float


Event = (
    RunStarted
    | PolicyAdopted
    | KpiObserved
    | StateTransitioned
    | SymbolThrottleChanged
    | GapObserved
    | LateWindowObserved
    | ClockFault
    | OverrideApplied
    | OverrideEnded
    | ExternalWriteDetected
    | TradedWhileFrozen
    | RunStopped
)
