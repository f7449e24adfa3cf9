"""
Given, when, then for the controller: a stream that tests tell in windows and commands.

    ledger = Ledger(policy, BTC, ETH)
    ledger.windows(3, BTCUSDT=WARN)             # given
    events = ledger.when(ApplyOverride(...))    # when
    assert ledger.mode == ("COOLDOWN", 0.5)     # then
"""

from typing import Any, TypeVar

from msgspec.structs import replace

from domain.commands import (
    AdoptPolicy,
    ApplyOverride,
    ClearOverride,
    Command,
    ObserveWindow,
    PassWindows,
    StartRun,
)
from domain.controller import decide, fold
from domain.events import Event, KpiObserved, Override, OverrideKind, RampProfile, TradingState
from domain.kpis import KPIS, Reading
from domain.policy import Policy
from domain.state import State
from domain.windows import SymbolReadings, WindowReadings

MINUTE_MS = 60_000
START_MS = 1_767_621_600_000  # 2026-01-05T14:00:00Z
KPI_NAMES = tuple(kpi.name for kpi in KPIS)
BTC, ETH, SOL = "BTCUSDT", "ETHUSDT", "SOLUSDT"
HEALTHY: dict[str, Reading] = {
    "edge_bps": 3.5,
    "maker_taker_ratio": 0.9,
    "risk_ratio": 0.2,
    "p95_latency_ms": 180.0,
    "anomaly_score": 0.5,
}

SHORT = Policy(min_warn_windows=2, min_ok_windows=2, unfreeze_after_ok_windows=3)
"""The default policy with shorter counts, for tests in which the counts don't matter."""

EventT = TypeVar("EventT")


def readings(**changes: Reading | None) -> SymbolReadings:
    """Return a healthy symbol's readings with the changes; None leaves a KPI out."""
    merged = {**HEALTHY, **changes}
    return SymbolReadings(kpis={name: value for name, value in merged.items() if value is not None})


OK = readings()
WARN = readings(p95_latency_ms=360.0)
CRIT = readings(risk_ratio=0.45)
NO_FILLS = readings(edge_bps=None, maker_taker_ratio=None)
NOTHING = SymbolReadings()
BY_VERDICT = {"OK": OK, "WARN": WARN, "CRIT": CRIT}


def at(minute: float) -> int:
    """Return the time so many minutes after 14:00."""
    return START_MS + round(minute * MINUTE_MS)


def start_run(**changes: Any) -> StartRun:
    start = StartRun(
        run_id="run-1",
        ledger_id="ledger-1",
        env="dev",
        exchange="bybit",
        dry_run=False,
        interval_ms=MINUTE_MS,
        feed="mock",
        feed_kind="mock",
        code_version="0.1.0",
        started_at_ms=START_MS,
    )
    return replace(start, **changes)


def profile(symbols_max: int, notional_max: float = 300.0) -> RampProfile:
    return RampProfile(name="P", max_notional=notional_max, max_symbols=symbols_max)


class Ledger:
    """One stream: the events so far, and the state that they fold to."""

    def __init__(
        self,
        policy: Policy | None = None,
        *symbols: str,
        limits: RampProfile | None = None,
        published: TradingState = TradingState.ACTIVE,
    ) -> None:
        self.state = State()
        self.events: list[Event] = []
        self.when(start_run(published=published))
        self.adopt(policy or Policy(), *(symbols or (BTC,)), profile=limits)

    def when(self, command: Command) -> list[Event]:
        """Decide the command, fold what follows, and return it."""
        events = decide(self.policy, self.state, command)
        self.state = fold(self.state, events)
        self.events += events
        return events

    def windows(
        self, count: int, every: SymbolReadings = OK, **symbols: SymbolReadings
    ) -> list[Event]:
        """Decide so many windows alike, symbols not named by `every`; return the last's events."""
        events: list[Event] = []
        for _ in range(count):
            arrived = {name: symbols.get(name, every) for name in self.state.symbol_names}
            events = self.when(
                ObserveWindow(readings=WindowReadings(start_ms=self.next_window, symbols=arrived))
            )
        return events

    def skip(self, windows: int) -> list[Event]:
        """Let so many windows go missing, and account for them."""
        return self.when(PassWindows(until=self.next_window + windows * MINUTE_MS))

    def adopt(self, policy: Policy, *symbols: str, **changes: Any) -> list[Event]:
        """Adopt a policy from the next window on, symbols and limits as they are if not given."""
        adoption = AdoptPolicy(
            window=self.next_window,
            policy=policy,
            symbols=symbols or self.state.symbol_names,
            profile=self.state.profile,
        )
        return self.when(replace(adoption, **changes))

    def override(
        self,
        kind: str,
        symbol: str | None = None,
        *,
        cap: float | None = None,
        minutes: float | None = None,
        at_ms: int | None = None,
    ) -> list[Event]:
        """Apply an override half a minute into the next window, for so many minutes or for good."""
        applied = self.next_window + MINUTE_MS // 2 if at_ms is None else at_ms
        return self.when(
            ApplyOverride(
                override=Override(
                    id=f"{kind}-{len(self.events)}",
                    kind=OverrideKind(kind),
                    actor="kim",
                    reason="drill",
                    applied_at_ms=applied,
                    symbol=symbol,
                    cap=cap,
                    expires_at_ms=None if minutes is None else applied + round(minutes * MINUTE_MS),
                )
            )
        )

    def clear(self, at_ms: int | None = None) -> list[Event]:
        """Clear the newest override in force, at the next window's start unless told."""
        newest = self.state.overrides_in_force[-1].id
        moment = self.next_window if at_ms is None else at_ms
        return self.when(ClearOverride(id=newest, at_ms=moment, actor="kim"))

    @property
    def policy(self) -> Policy:
        return self.state.policy

    @property
    def next_window(self) -> int:
        return START_MS if self.state.next_window is None else self.state.next_window

    @property
    def mode(self) -> tuple[str, float]:
        """The global state and its throttle."""
        return self.state.trading_state.value, self.state.throttle

    @property
    def counters(self) -> tuple[int, int]:
        """Consecutive OK and WARN windows."""
        return self.state.ok_windows, self.state.warn_windows

    @property
    def cause(self) -> tuple[tuple[str, ...], str | None]:
        return self.state.reasons, self.state.triggered_by

    @property
    def per_symbol(self) -> list[float]:
        return list(self.state.per_symbol_throttles().values())

    @property
    def effective(self) -> list[float]:
        return list(self.state.effective_throttles().values())

    @property
    def verdict(self) -> str:
        """The last observed window's."""
        assert self.state.observed is not None
        return self.state.observed.verdict.value

    def reasons_of(self, symbol: str = BTC) -> list[str]:
        """What the last observed window says of a symbol, one text a violation."""
        observed = self.state.observed
        assert observed is not None
        return [
            violation.reason
            for one in observed.symbols
            if one.memory.symbol == symbol
            for violation in one.violations
        ]


def only(events: list[Event], kind: type[EventT]) -> EventT:
    """Return the one event of its kind."""
    found = [event for event in events if isinstance(event, kind)]
    assert len(found) == 1, f"expected one {kind.__name__}, was {events}"
    return found[0]


def kinds(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def frozen(policy: Policy | None = None, *symbols: str, **changes: Any) -> Ledger:
    """Return a ledger of one window, in which the first symbol was CRIT."""
    ledger = Ledger(policy, *symbols, **changes)
    ledger.windows(1, **{ledger.state.symbol_names[0]: CRIT})
    assert ledger.mode == ("FROZEN", 0.0)
    return ledger


def in_cooldown(policy: Policy | None = None, *symbols: str) -> Ledger:
    """Return a ledger that WARN windows of the first symbol have just led to COOLDOWN."""
    ledger = Ledger(policy, *symbols)
    ledger.windows(ledger.policy.min_warn_windows, **{ledger.state.symbol_names[0]: WARN})
    assert ledger.mode == ("COOLDOWN", ledger.policy.cooldown_throttle)
    return ledger


def last_observed(events: list[Event]) -> KpiObserved:
    return only(events, KpiObserved)
