"""The global state: every state x window verdict x counters, at and below their limits."""

import pytest
from decider_spec import (
    BTC,
    BY_VERDICT,
    CRIT,
    ETH,
    NO_FILLS,
    OK,
    SHORT,
    START_MS,
    WARN,
    Ledger,
    frozen,
    in_cooldown,
    only,
    readings,
)
from msgspec.structs import replace

from domain.commands import ObserveClock
from domain.events import CauseKind, StateTransitioned, TradingState
from domain.policy import Policy

ACTIVE, COOLDOWN, FROZEN = ("ACTIVE", 1.0), ("COOLDOWN", 0.5), ("FROZEN", 0.0)

# min_warn_windows 2, min_ok_windows 3, unfreeze_after_ok_windows 4
POLICY = Policy(min_warn_windows=2, min_ok_windows=3, unfreeze_after_ok_windows=4)


def reach(state: str, ok_windows: int, warn_windows: int) -> Ledger:
    """Return a ledger in that state with those counters."""
    match state:
        case "ACTIVE":
            ledger = Ledger(POLICY)
        case "COOLDOWN":
            ledger = in_cooldown(POLICY)
        case _:
            ledger = frozen(POLICY)
    ledger.windows(ok_windows)
    ledger.windows(warn_windows, WARN)
    assert (ledger.mode[0], ledger.counters) == (state, (ok_windows, warn_windows))
    return ledger


@pytest.mark.parametrize(
    ("state", "ok", "warn", "verdict", "after", "counters"),
    [
        # from      counters  window    to         counters after
        ("ACTIVE", 0, 0, "OK", ACTIVE, (1, 0)),
        ("ACTIVE", 9, 0, "OK", ACTIVE, (10, 0)),
        ("ACTIVE", 0, 1, "OK", ACTIVE, (1, 0)),
        ("ACTIVE", 0, 0, "WARN", ACTIVE, (0, 1)),
        ("ACTIVE", 9, 0, "WARN", ACTIVE, (0, 1)),
        ("ACTIVE", 0, 1, "WARN", COOLDOWN, (0, 0)),
        ("ACTIVE", 0, 0, "CRIT", FROZEN, (0, 0)),
        ("ACTIVE", 9, 0, "CRIT", FROZEN, (0, 0)),
        ("ACTIVE", 0, 1, "CRIT", FROZEN, (0, 0)),
        ("COOLDOWN", 0, 0, "OK", COOLDOWN, (1, 0)),
        ("COOLDOWN", 1, 0, "OK", COOLDOWN, (2, 0)),
        ("COOLDOWN", 2, 0, "OK", ACTIVE, (0, 0)),
        ("COOLDOWN", 0, 1, "OK", COOLDOWN, (1, 0)),
        ("COOLDOWN", 0, 0, "WARN", COOLDOWN, (0, 1)),
        ("COOLDOWN", 2, 0, "WARN", COOLDOWN, (0, 1)),
        ("COOLDOWN", 0, 5, "WARN", COOLDOWN, (0, 6)),
        ("COOLDOWN", 0, 0, "CRIT", FROZEN, (0, 0)),
        ("COOLDOWN", 2, 0, "CRIT", FROZEN, (0, 0)),
        ("COOLDOWN", 0, 5, "CRIT", FROZEN, (0, 0)),
        ("FROZEN", 0, 0, "OK", FROZEN, (1, 0)),
        ("FROZEN", 2, 0, "OK", FROZEN, (3, 0)),
        ("FROZEN", 3, 0, "OK", ACTIVE, (0, 0)),
        ("FROZEN", 0, 1, "OK", FROZEN, (1, 0)),
        ("FROZEN", 0, 0, "WARN", FROZEN, (0, 1)),
        ("FROZEN", 3, 0, "WARN", FROZEN, (0, 1)),
        ("FROZEN", 0, 5, "WARN", FROZEN, (0, 6)),
        ("FROZEN", 0, 0, "CRIT", FROZEN, (0, 0)),
        ("FROZEN", 3, 0, "CRIT", FROZEN, (0, 0)),
        ("FROZEN", 0, 5, "CRIT", FROZEN, (0, 0)),
    ],
)
def test_each_state_and_verdict_leads_where_the_table_says_by_at_most_one_transition(
    state: str,
    ok: int,
    warn: int,
    verdict: str,
    after: tuple[str, float],
    counters: tuple[int, int],
) -> None:
    ledger = reach(state, ok, warn)
    events = ledger.windows(1, BY_VERDICT[verdict])
    assert (ledger.mode, ledger.counters) == (after, counters)
    transitions = [event for event in events if isinstance(event, StateTransitioned)]
    assert [(one.previous, one.state) for one in transitions] == (
        [] if after[0] == state else [(state, after[0])]
    )


def test_the_guides_defaults_are_3_warn_12_ok_and_24_ok_windows() -> None:
    ledger = Ledger()
    ledger.windows(2, WARN)
    assert ledger.mode == ACTIVE
    ledger.windows(1, WARN)
    assert ledger.mode == COOLDOWN
    ledger.windows(11)
    assert ledger.mode == COOLDOWN
    ledger.windows(1)
    assert ledger.mode == ACTIVE
    ledger.windows(1, CRIT)
    ledger.windows(23)
    assert ledger.mode == FROZEN
    ledger.windows(1)
    assert ledger.mode == ACTIVE


def test_counters_count_windows_and_not_symbols() -> None:
    ledger = Ledger(POLICY, BTC, ETH)
    ledger.windows(1, WARN)
    assert (ledger.mode, ledger.counters) == (ACTIVE, (0, 1))
    ledger.windows(1, OK)
    assert ledger.counters == (1, 0)


def test_warn_windows_of_different_symbols_and_kpis_count_together() -> None:
    ledger = Ledger(POLICY, BTC, ETH)
    ledger.windows(1, BTCUSDT=WARN)
    ledger.windows(1, ETHUSDT=readings(maker_taker_ratio=0.5))
    assert ledger.mode == COOLDOWN


def test_a_crit_window_goes_before_the_cooldown_that_its_warns_were_due_for() -> None:
    ledger = reach("ACTIVE", 0, 1)
    ledger.windows(1, readings(p95_latency_ms=360.0, risk_ratio=0.45))
    assert ledger.mode == FROZEN


@pytest.mark.parametrize("throttle", [0.3, 0.45, 0.6])
def test_the_throttle_in_cooldown_is_the_policys(throttle: float) -> None:
    ledger = in_cooldown(replace(POLICY, cooldown_throttle=throttle))
    assert ledger.effective == [min(throttle, 0.5)]
    ledger.windows(1)
    assert ledger.effective == [throttle]


def test_a_single_window_may_be_enough_if_the_policy_says_so() -> None:
    policy = Policy(min_warn_windows=1, min_ok_windows=1, unfreeze_after_ok_windows=1)
    ledger = Ledger(policy)
    modes = []
    for arrived in (WARN, OK, CRIT, OK, WARN, CRIT):
        ledger.windows(1, arrived)
        modes.append(ledger.mode)
    assert modes == [COOLDOWN, ACTIVE, FROZEN, ACTIVE, COOLDOWN, FROZEN]


# Probation: out of FROZEN with a waiver's help.


@pytest.mark.parametrize("excused_at", [0, 1, 2, 3])
def test_a_recovery_that_a_waiver_helped_in_any_of_its_windows_leads_to_cooldown(
    excused_at: int,
) -> None:
    ledger = frozen(POLICY)
    for window in range(4):
        ledger.windows(1, NO_FILLS if window == excused_at else OK)
    assert ledger.mode == COOLDOWN
    ledger.windows(2)
    assert ledger.mode == COOLDOWN
    ledger.windows(1)
    assert ledger.mode == ACTIVE


def test_a_waiver_before_the_last_interruption_brings_no_probation() -> None:
    ledger = frozen(POLICY)
    ledger.windows(3, NO_FILLS)
    ledger.windows(1, WARN)
    ledger.windows(4)
    assert ledger.mode == ACTIVE


@pytest.mark.parametrize("interruption", ["gap", "freeze", "clock", "loosening"])
def test_a_waiver_before_whatever_set_the_count_back_brings_no_probation(
    interruption: str,
) -> None:
    ledger = frozen(POLICY)
    ledger.windows(3, NO_FILLS)
    match interruption:
        case "gap":
            ledger.skip(1)
        case "freeze":
            ledger.override("freeze", at_ms=ledger.next_window)
            ledger.clear(ledger.next_window)
        case "clock":
            ledger.when(ObserveClock(window=START_MS))
        case _:
            ledger.adopt(replace(POLICY, min_warn_windows=9))
    ledger.windows(3)
    assert ledger.mode == FROZEN
    ledger.windows(1)
    assert ledger.mode == ACTIVE


def test_a_waiver_for_one_symbol_is_enough_for_probation() -> None:
    ledger = frozen(POLICY, BTC, ETH)
    ledger.windows(4, ETHUSDT=NO_FILLS)
    assert ledger.mode == COOLDOWN
    assert (ledger.per_symbol, ledger.effective) == ([1.0, 1.0], [0.5, 0.5])


def test_on_probation_the_symbol_that_was_frozen_has_half_as_well() -> None:
    ledger = frozen(replace(POLICY, cooldown_throttle=0.6), BTC, ETH)
    ledger.windows(4, BTCUSDT=NO_FILLS)
    assert (ledger.mode[0], ledger.effective) == ("COOLDOWN", [0.5, 0.6])


def test_on_probation_trading_goes_on_so_that_fills_are_required_again() -> None:
    ledger = frozen(POLICY)
    ledger.windows(4, NO_FILLS)
    ledger.windows(1, NO_FILLS)
    assert ledger.verdict == "WARN"
    ledger.windows(2, NO_FILLS)
    assert ledger.mode == FROZEN


# Starting.


def test_a_new_ledger_starts_active_without_a_cause() -> None:
    ledger = Ledger()
    assert (ledger.mode, ledger.counters, ledger.cause) == (ACTIVE, (0, 0), ((), None))
    assert ledger.state.since_ms is None


@pytest.mark.parametrize(
    ("published", "mode"),
    [
        (TradingState.ACTIVE, ACTIVE),
        (TradingState.COOLDOWN, COOLDOWN),
        (TradingState.FROZEN, FROZEN),
    ],
)
def test_a_new_ledger_starts_in_what_is_published_if_that_is_worse(
    published: TradingState, mode: tuple[str, float]
) -> None:
    ledger = Ledger(published=published)
    assert (ledger.mode, ledger.effective) == (mode, [mode[1]])
    if published is not TradingState.ACTIVE:
        assert only(ledger.events, StateTransitioned).cause is CauseKind.START
        assert ledger.cause == (
            (f"another controller published {published} for this stream",),
            None,
        )


def test_a_state_taken_over_is_left_by_the_same_rules() -> None:
    ledger = Ledger(SHORT, published=TradingState.FROZEN)
    ledger.windows(3)
    assert ledger.mode == ACTIVE


@pytest.mark.parametrize(("state", "required"), [("ACTIVE", None), ("COOLDOWN", 3), ("FROZEN", 4)])
def test_the_way_back_says_how_many_ok_windows_it_takes(state: str, required: int | None) -> None:
    assert reach(state, 0, 0).state.ok_windows_required == required


def test_frozen_is_worse_than_cooldown_and_cooldown_than_active() -> None:
    assert TradingState.FROZEN.is_worse_than(TradingState.COOLDOWN)
    assert TradingState.COOLDOWN.is_worse_than(TradingState.ACTIVE)
    assert not TradingState.ACTIVE.is_worse_than(TradingState.ACTIVE)


def test_the_state_counts_windows_by_verdict_and_transitions() -> None:
    ledger = Ledger(POLICY)
    ledger.windows(2)
    ledger.windows(2, WARN)
    ledger.windows(1, CRIT)
    counts = ledger.state.counts
    assert (counts.windows, counts.ok, counts.warn, counts.crit) == (5, 2, 2, 1)
    assert counts.transitions == 2
