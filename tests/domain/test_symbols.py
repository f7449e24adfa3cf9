"""Symbols: their own throttle and latch, probation, the window's verdict, profile limits."""

import pytest
from decider_spec import (
    BTC,
    BY_VERDICT,
    CRIT,
    ETH,
    NO_FILLS,
    NOTHING,
    OK,
    SHORT,
    SOL,
    WARN,
    Ledger,
    frozen,
    last_observed,
    only,
    profile,
)
from msgspec.structs import replace

from domain.events import SymbolThrottleChanged
from domain.policy import Policy
from domain.windows import SymbolReadings

ALONE = replace(SHORT, global_freeze_symbols=2)
"""One symbol's CRIT doesn't freeze the others."""


# The window's verdict.


@pytest.mark.parametrize(
    ("freezes_at", "btc", "eth", "sol", "window"),
    [
        (1, "OK", "OK", "OK", "OK"),
        (1, "OK", "WARN", "OK", "WARN"),
        (1, "WARN", "WARN", "WARN", "WARN"),
        (1, "OK", "OK", "CRIT", "CRIT"),
        (1, "WARN", "CRIT", "OK", "CRIT"),
        (2, "OK", "OK", "CRIT", "WARN"),
        (2, "CRIT", "WARN", "OK", "WARN"),
        (2, "CRIT", "OK", "CRIT", "CRIT"),
        (3, "CRIT", "CRIT", "OK", "WARN"),
        (3, "CRIT", "CRIT", "CRIT", "CRIT"),
    ],
)
def test_the_window_is_crit_if_enough_symbols_are_and_else_warn_if_any_is_ill(
    freezes_at: int, btc: str, eth: str, sol: str, window: str
) -> None:
    ledger = Ledger(Policy(global_freeze_symbols=freezes_at), BTC, ETH, SOL)
    ledger.windows(1, BTCUSDT=BY_VERDICT[btc], ETHUSDT=BY_VERDICT[eth], SOLUSDT=BY_VERDICT[sol])
    assert ledger.verdict == window


@pytest.mark.parametrize(
    ("btc", "eth", "window"),
    [
        # ETHUSDT was frozen on its own before this window.
        ("OK", "OK", "OK"),
        ("OK", "WARN", "OK"),
        ("OK", "CRIT", "OK"),
        ("WARN", "CRIT", "WARN"),
        ("CRIT", "OK", "WARN"),
        ("CRIT", "CRIT", "CRIT"),
    ],
)
def test_a_symbol_that_was_frozen_on_its_own_counts_only_towards_the_freeze(
    btc: str, eth: str, window: str
) -> None:
    ledger = Ledger(ALONE, BTC, ETH)
    ledger.windows(1, ETHUSDT=CRIT)
    assert ledger.verdict == "WARN"
    ledger.windows(1, BTCUSDT=BY_VERDICT[btc], ETHUSDT=BY_VERDICT[eth])
    assert ledger.verdict == window


def test_if_every_symbol_was_frozen_on_its_own_the_window_is_warn() -> None:
    ledger = Ledger(replace(ALONE, min_warn_windows=9), BTC, ETH)
    ledger.windows(1, BTCUSDT=CRIT)
    ledger.windows(1, ETHUSDT=CRIT)
    ledger.windows(1)
    assert (ledger.verdict, ledger.per_symbol) == ("WARN", [0.0, 0.0])


def test_with_a_global_freeze_at_one_symbol_a_frozen_symbol_counts_towards_the_warn() -> None:
    ledger = frozen(SHORT, BTC, ETH)
    ledger.windows(1, BTCUSDT=WARN)
    assert ledger.verdict == "WARN"


def test_scenario_3_one_symbol_is_frozen_and_the_others_stay_active() -> None:
    ledger = Ledger(Policy(global_freeze_symbols=2), BTC, ETH, SOL)
    ledger.windows(1, ETHUSDT=CRIT)
    ledger.windows(10, ETHUSDT=CRIT)
    assert ledger.mode == ("ACTIVE", 1.0)
    assert ledger.per_symbol == [1.0, 0.0, 1.0]
    assert ledger.effective == [1.0, 0.0, 1.0]
    ledger.windows(23)
    assert ledger.effective == [1.0, 0.0, 1.0]
    ledger.windows(1)
    assert ledger.effective == [1.0, 1.0, 1.0]


# The symbol's own throttle and latch.


@pytest.mark.parametrize(("verdict", "throttle"), [("OK", 1.0), ("WARN", 0.5), ("CRIT", 0.0)])
def test_a_symbols_own_throttle_follows_its_verdict(verdict: str, throttle: float) -> None:
    ledger = Ledger(ALONE, BTC, ETH)
    ledger.windows(1, BTCUSDT=BY_VERDICT[verdict])
    assert ledger.per_symbol == [throttle, 1.0]


def test_a_symbol_that_was_warn_is_back_with_its_first_ok_window() -> None:
    ledger = Ledger(None)
    ledger.windows(1, WARN)
    ledger.windows(1, OK)
    assert ledger.per_symbol == [1.0]


@pytest.mark.parametrize("interruption", [WARN, CRIT, NOTHING])
def test_a_symbol_that_went_crit_needs_its_ok_windows_in_a_row(
    interruption: SymbolReadings,
) -> None:
    ledger = Ledger(ALONE, BTC, ETH)
    ledger.windows(1, BTCUSDT=CRIT)
    ledger.windows(2)
    ledger.windows(1, BTCUSDT=interruption)
    ledger.windows(2)
    assert ledger.per_symbol == [0.0, 1.0]
    ledger.windows(1)
    assert ledger.per_symbol == [1.0, 1.0]


def test_a_frozen_symbol_that_is_only_warn_stays_at_zero() -> None:
    ledger = Ledger(ALONE, BTC, ETH)
    ledger.windows(1, BTCUSDT=CRIT)
    ledger.windows(1, BTCUSDT=WARN)
    assert ledger.per_symbol == [0.0, 1.0]


def test_a_symbol_recovers_alone_whatever_the_others_do() -> None:
    ledger = Ledger(replace(ALONE, min_warn_windows=99), BTC, ETH)
    ledger.windows(1, BTCUSDT=CRIT)
    ledger.windows(3, ETHUSDT=WARN)
    assert ledger.per_symbol == [1.0, 0.5]


def test_a_symbol_that_recovered_on_its_own_waits_for_the_global_state() -> None:
    ledger = frozen(SHORT, BTC, ETH)
    ledger.windows(2)
    ledger.windows(1, ETHUSDT=WARN)
    assert (ledger.per_symbol, ledger.effective) == ([1.0, 0.5], [0.0, 0.0])


def test_the_effective_throttle_is_the_least_of_global_symbol_and_caps() -> None:
    ledger = Ledger(replace(SHORT, cooldown_throttle=0.6), BTC, ETH, SOL)
    ledger.windows(2, BTCUSDT=WARN)
    assert (ledger.mode, ledger.per_symbol) == (("COOLDOWN", 0.6), [0.5, 1.0, 1.0])
    assert ledger.effective == [0.5, 0.6, 0.6]
    ledger.override("cap", SOL, cap=0.2)
    assert ledger.effective == [0.5, 0.6, 0.2]
    ledger.override("cap", cap=0.55)
    assert ledger.effective == [0.5, 0.55, 0.2]


def test_every_change_of_a_symbols_throttle_is_told_once_with_before_and_after() -> None:
    ledger = Ledger(ALONE, BTC, ETH)
    events = ledger.windows(1, BTCUSDT=CRIT)
    assert only(events, SymbolThrottleChanged) == SymbolThrottleChanged(
        symbol=BTC,
        at_ms=ledger.next_window,
        throttle_before=1.0,
        throttle=0.0,
        effective_before=1.0,
        effective=0.0,
    )
    assert not [e for e in ledger.windows(1) if isinstance(e, SymbolThrottleChanged)]


# Probation of a symbol.


def recovered_by_waiver() -> Ledger:
    """Return a ledger whose BTCUSDT recovered from its freeze without fills."""
    ledger = Ledger(replace(ALONE, min_ok_windows=2), BTC, ETH)
    ledger.windows(1, BTCUSDT=CRIT)
    ledger.windows(1, BTCUSDT=NO_FILLS)
    ledger.windows(2)
    assert ledger.per_symbol == [0.5, 1.0]
    return ledger


def test_a_symbol_that_a_waiver_helped_has_half_until_enough_ok_windows_more() -> None:
    ledger = recovered_by_waiver()
    ledger.windows(1)
    assert (ledger.per_symbol, ledger.effective) == ([0.5, 1.0], [0.5, 1.0])
    ledger.windows(1)
    assert (ledger.per_symbol, ledger.effective) == ([1.0, 1.0], [1.0, 1.0])


def test_a_symbol_on_probation_starts_counting_again_after_a_warn() -> None:
    ledger = recovered_by_waiver()
    ledger.windows(1)
    ledger.windows(1, BTCUSDT=WARN)
    ledger.windows(1)
    assert ledger.per_symbol == [0.5, 1.0]
    ledger.windows(1)
    assert ledger.per_symbol == [1.0, 1.0]


def test_a_symbol_on_probation_that_goes_crit_is_frozen_again_in_full() -> None:
    ledger = recovered_by_waiver()
    ledger.windows(1, BTCUSDT=CRIT)
    ledger.windows(2)
    assert ledger.per_symbol == [0.0, 1.0]
    ledger.windows(1)
    assert ledger.per_symbol == [1.0, 1.0]


def test_without_a_waivers_help_there_is_no_probation() -> None:
    ledger = Ledger(ALONE, BTC, ETH)
    ledger.windows(1, BTCUSDT=CRIT)
    ledger.windows(1, BTCUSDT=NO_FILLS)
    ledger.windows(1, BTCUSDT=WARN)  # The excused window is no longer one of the OK windows.
    ledger.windows(3)
    assert ledger.per_symbol == [1.0, 1.0]


def test_a_kpi_that_may_be_absent_anyway_needs_no_waiver_and_brings_no_probation() -> None:
    policy = replace(SHORT, waived_when_halted=("anomaly_score",))
    ledger = frozen(policy)
    ledger.windows(3, replace(OK, kpis={k: v for k, v in OK.kpis.items() if k != "anomaly_score"}))
    assert (ledger.mode, ledger.per_symbol) == (("ACTIVE", 1.0), [1.0])


# Symbols beyond the profile's limit.


def test_a_symbol_beyond_the_limit_is_observed_and_reported_but_may_not_trade() -> None:
    ledger = Ledger(None, BTC, ETH, limits=profile(1))
    observed = last_observed(ledger.windows(1, ETHUSDT=WARN))
    assert ledger.reasons_of(ETH) == ["p95_latency=360 > 350"]
    assert observed.symbols[1].readings == WARN
    assert (ledger.per_symbol, ledger.effective) == ([1.0, 0.5], [1.0, 0.0])


@pytest.mark.parametrize("verdict", ["WARN", "CRIT"])
def test_a_symbol_beyond_the_limit_does_not_enter_the_windows_verdict(verdict: str) -> None:
    ledger = Ledger(SHORT, BTC, ETH, limits=profile(1))
    observed = last_observed(ledger.windows(5, ETHUSDT=BY_VERDICT[verdict]))
    assert (observed.verdict, observed.triggered_by) == ("OK", None)
    assert (ledger.mode, ledger.counters) == (("ACTIVE", 1.0), (5, 0))


def test_a_waiver_for_a_symbol_beyond_the_limit_brings_no_global_probation() -> None:
    ledger = frozen(SHORT, BTC, ETH, limits=profile(1))
    ledger.windows(3, ETHUSDT=NO_FILLS)
    assert ledger.mode == ("ACTIVE", 1.0)


def test_without_a_profile_there_is_no_limit_and_a_larger_limit_than_symbols_is_none() -> None:
    assert Ledger(None, BTC, ETH).effective == [1.0, 1.0]
    assert Ledger(None, BTC, ETH, limits=profile(5)).effective == [1.0, 1.0]
