"""The guide's own unit tests: its five coverage bullets, one sentence each (LIVE_MODE_GUIDE.md)."""

from domain.commands import AdoptPolicy, ObserveWindow, StartRun
from domain.controller import decide, fold
from domain.events import StateTransitioned
from domain.policy import Policy
from domain.state import State
from domain.windows import SymbolReadings, WindowReadings

MINUTE_MS = 60_000
START_MS = 1_767_621_600_000  # 2026-01-05T14:00:00Z


def started(*symbols: str) -> State:
    """Return the state of a new ledger under the guide's policy."""
    start = StartRun(
        run_id="run-1",
        ledger_id="ledger-1",
        env="dev",
        exchange="bybit",
        dry_run=True,
        interval_ms=MINUTE_MS,
        feed="test",
        feed_kind="mock",
        code_version="test",
        started_at_ms=START_MS,
    )
    state = State()
    for command in (start, AdoptPolicy(window=START_MS, policy=Policy(), symbols=symbols)):
        state = fold(state, decide(Policy(), state, command))
    return state


def healthy(**changes: float) -> SymbolReadings:
    kpis = {
        "edge_bps": 3.5,
        "maker_taker_ratio": 0.9,
        "risk_ratio": 0.2,
        "p95_latency_ms": 180.0,
        "anomaly_score": 0.5,
    }
    return SymbolReadings(kpis={**kpis, **changes})


def observe(state: State, windows: int, *arrived: SymbolReadings) -> State:
    """Return the state after so many windows in which each symbol had what arrived for it."""
    symbols = dict(zip(state.symbol_names, arrived, strict=True))
    for _ in range(windows):
        start_ms = START_MS if state.next_window is None else state.next_window
        window = WindowReadings(start_ms=start_ms, symbols=symbols)
        events = decide(state.policy, state, ObserveWindow(readings=window))
        assert sum(isinstance(event, StateTransitioned) for event in events) <= 1
        state = fold(state, events)
    return state


def test_active_goes_to_cooldown_at_the_third_warn_window_in_a_row() -> None:
    state = observe(started("BTCUSDT"), 2, healthy(maker_taker_ratio=0.80))
    assert (state.trading_state, state.throttle) == ("ACTIVE", 1.0)
    state = observe(state, 1, healthy(maker_taker_ratio=0.80))
    assert (state.trading_state, state.throttle) == ("COOLDOWN", 0.5)
    assert (state.reasons, state.triggered_by) == (("maker_taker=0.80 < 0.83",), "BTCUSDT")


def test_cooldown_goes_to_frozen_at_the_first_crit_window() -> None:
    state = observe(started("BTCUSDT"), 3, healthy(p95_latency_ms=360.0))
    assert (state.trading_state, state.throttle) == ("COOLDOWN", 0.5)
    state = observe(state, 1, healthy(edge_bps=2.0, risk_ratio=0.45))
    assert (state.trading_state, state.throttle) == ("FROZEN", 0.0)
    assert state.reasons == ("edge_bps=2.0 < 2.5", "risk=0.45 > 0.40")


def test_frozen_goes_to_active_after_24_ok_windows_in_a_row_and_not_before() -> None:
    state = observe(started("BTCUSDT"), 1, healthy(risk_ratio=0.45))
    state = observe(state, 23, healthy())
    state = observe(state, 1, healthy(p95_latency_ms=360.0))  # One WARN, and it counts anew.
    state = observe(state, 23, healthy())
    assert (state.trading_state, state.throttle) == ("FROZEN", 0.0)
    state = observe(state, 1, healthy())
    assert (state.trading_state, state.throttle) == ("ACTIVE", 1.0)


def test_each_symbols_throttle_is_1_when_ok_half_when_warn_and_0_when_crit() -> None:
    state = observe(
        started("BTCUSDT", "ETHUSDT", "SOLUSDT"),
        1,
        healthy(),
        healthy(p95_latency_ms=360.0),
        healthy(edge_bps=2.0),
    )
    assert state.per_symbol_throttles() == {"BTCUSDT": 1.0, "ETHUSDT": 0.5, "SOLUSDT": 0.0}
    assert state.effective_throttles() == {"BTCUSDT": 0.0, "ETHUSDT": 0.0, "SOLUSDT": 0.0}


def test_an_anomaly_score_above_2_freezes_and_one_of_2_does_not() -> None:
    state = observe(started("BTCUSDT"), 1, healthy(anomaly_score=2.0))
    assert state.trading_state == "ACTIVE"
    state = observe(state, 1, healthy(anomaly_score=3.0))
    assert (state.trading_state, state.reasons) == ("FROZEN", ("anomaly=3.0 > 2.0",))
