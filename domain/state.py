"""
The controller's state: what a fold over the events of one stream knows.

All values are frozen; `domain.controller.evolve` makes the next one.
Source: DESIGN.md section 1 (Global state, Per symbol, Cause, Overrides).
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from domain.events import (
    LATENESS_MS,
    KpiObserved,
    Override,
    OverrideKind,
    RampProfile,
    RunStarted,
    SymbolMemory,
    TradingState,
)
from domain.policy import Policy

FOLD_VERSION: Final = 2
"""Raised whenever `State` or `evolve` changes: a snapshot of another fold version is ignored."""


class Reset(msgspec.Struct, frozen=True):
    """What last set the count of OK windows back: the window, and why."""

    window: int | None
    symbol: str | None
    reasons: tuple[str, ...]


class Counts(msgspec.Struct, frozen=True, omit_defaults=True):
    """How much the stream holds, since its beginning."""

    windows: int = 0
    ok: int = 0
    warn: int = 0
    crit: int = 0
    gaps: int = 0
    gap_windows: int = 0
    late_windows: int = 0
    transitions: int = 0
    clock_faults: int = 0
    external_writes: int = 0
    fills_while_frozen: int = 0


class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The controller of one stream.

    Attributes:
        run: the latest run; None before the first.
        ledger_id, interval_ms: fixed by the first run.
        policy, policy_hash, symbols, profile: what the next window is decided by; a symbol's
            memory stands in configured order.
        retired: memories of symbols that were removed.
        trading_state, throttle: the global state and its throttle.
        previous, since_ms, reasons, triggered_by: the transition that led there.
        ok_windows, warn_windows, excused: the global counters.
        last_reset: what last set `ok_windows` back.
        window: the start of the last window that is accounted for, observed or missing.
        observed: the last window that was observed.
        overrides: those in force, and those that ended in the window under way.
        clock_behind: the clock lies behind the ledger; no window can be decided.
    """

    run: RunStarted | None = None
    ledger_id: str = ""
    interval_ms: int = 0
    policy: Policy = msgspec.field(default_factory=Policy)
    policy_hash: str = ""
    symbols: tuple[SymbolMemory, ...] = ()
    retired: tuple[SymbolMemory, ...] = ()
    profile: RampProfile | None = None
    trading_state: TradingState = TradingState.ACTIVE
    throttle: float = 1.0
    previous: TradingState | None = None
    since_ms: int | None = None
    reasons: tuple[str, ...] = ()
    triggered_by: str | None = None
    ok_windows: int = 0
    warn_windows: int = 0
    excused: bool = False
    last_reset: Reset | None = None
    window: int | None = None
    observed: KpiObserved | None = None
    overrides: tuple[Override, ...] = ()
    clock_behind: bool = False
    counts: Counts = Counts()

    @property
    def symbol_names(self) -> tuple[str, ...]:
        """The symbols, in configured order."""
        return tuple(memory.symbol for memory in self.symbols)

    @property
    def symbols_within_limit(self) -> int:
        """How many of the symbols, from the first on, the ramp profile lets trade."""
        if self.profile is None:
            return len(self.symbols)
        return min(len(self.symbols), self.profile.max_symbols)

    @property
    def next_window(self) -> int | None:
        """The start of the first window that isn't accounted for; None before the first."""
        return None if self.window is None else self.window + self.interval_ms

    @property
    def lateness_ms(self) -> int:
        """How long after a window's end its samples may still come, as the last run was told."""
        return LATENESS_MS if self.run is None else self.run.lateness_ms

    @property
    def overrides_in_force(self) -> tuple[Override, ...]:
        """The overrides that haven't ended."""
        return tuple(override for override in self.overrides if override.ended_at_ms is None)

    @property
    def ok_windows_required(self) -> int | None:
        """OK windows in a row that lead out of the present state; None in ACTIVE."""
        match self.trading_state:
            case TradingState.ACTIVE:
                return None
            case TradingState.COOLDOWN:
                return self.policy.min_ok_windows
            case TradingState.FROZEN:
                return self.policy.unfreeze_after_ok_windows

    def per_symbol_throttles(self) -> dict[str, float]:
        """Return each symbol's KPI-based throttle: who is ill."""
        return {memory.symbol: memory.throttle for memory in self.symbols}

    def effective_throttles(self) -> dict[str, float]:
        """Return what may be traded of each symbol, 0.0 to 1.0."""
        throttles = effective_throttles(self, self.throttle, self.symbols)
        return dict(zip(self.symbol_names, throttles, strict=True))


def effective_throttles(
    state: State, throttle: float, memories: tuple[SymbolMemory, ...]
) -> Iterator[float]:
    """
    Yield each symbol's effective throttle: the least of global, per-symbol and override caps.

    Beyond the profile's limit it is 0.0. Source: DESIGN.md section 1, Per symbol.
    """
    limit = state.symbols_within_limit
    caps = [override for override in state.overrides_in_force if override.cap is not None]
    for index, memory in enumerate(memories):
        effective = min(throttle, memory.throttle) if index < limit else 0.0
        for override in caps:
            if override.cap is not None and override.symbol in (None, memory.symbol):
                effective = min(effective, override.cap)
        yield effective


def is_held(state: State, symbol: str | None, window_start_ms: int) -> bool:
    """Return whether a freeze override for just this scope held in any part of the window."""
    return any(
        override.kind is OverrideKind.FREEZE
        and override.symbol == symbol
        and (override.ended_at_ms is None or override.ended_at_ms > window_start_ms)
        for override in state.overrides
    )
