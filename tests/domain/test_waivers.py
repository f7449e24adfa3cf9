"""Waivers: what a symbol that may not trade need not report. Rule 4 of No data is never OK."""

import math

import pytest
from decider_spec import (
    BTC,
    CRIT,
    ETH,
    NO_FILLS,
    Ledger,
    frozen,
    in_cooldown,
    last_observed,
    profile,
    readings,
)

from domain.events import TradingState
from domain.kpis import Defect, Reading
from domain.policy import Policy

EDGE_1 = "edge_bps=no data (1 windows)"


def test_a_halted_symbol_may_lack_the_kpis_that_exist_only_over_fills() -> None:
    ledger = frozen()
    observed = last_observed(ledger.windows(1, NO_FILLS))
    assert ledger.verdict == "OK"
    assert observed.symbols[0].excused_kpis == ("edge_bps", "maker_taker_ratio")
    assert (observed.excused, ledger.counters) == (True, (1, 0))


def test_a_symbol_that_is_halted_only_because_another_froze_everything_is_waived_too() -> None:
    ledger = frozen(None, BTC, ETH)
    ledger.windows(1, ETHUSDT=NO_FILLS)
    assert ledger.verdict == "OK"


@pytest.mark.parametrize("reading", [Defect.STALE, Defect.NAN, math.nan])
def test_a_waiver_never_excuses_a_malformed_value(reading: Reading) -> None:
    ledger = frozen()
    ledger.windows(1, readings(edge_bps=reading))
    assert (ledger.verdict, ledger.reasons_of()) == ("WARN", [EDGE_1])


def test_a_waiver_excuses_no_breach() -> None:
    ledger = frozen()
    ledger.windows(1, readings(edge_bps=1.0, maker_taker_ratio=None))
    assert (ledger.verdict, ledger.reasons_of()) == ("CRIT", ["edge_bps=1.0 < 2.5"])


def test_what_is_not_waived_must_be_there_even_when_halted() -> None:
    ledger = frozen()
    ledger.windows(1, readings(risk_ratio=None))
    assert (ledger.verdict, ledger.reasons_of()) == ("WARN", ["risk=no data (1 windows)"])


def test_nothing_is_waived_in_active_in_cooldown_or_in_the_freezing_window_itself() -> None:
    ledger = Ledger()
    ledger.windows(1, NO_FILLS)
    assert ledger.verdict == "WARN"
    ledger = in_cooldown()
    ledger.windows(1, NO_FILLS)
    assert ledger.verdict == "WARN"
    ledger = Ledger()
    ledger.windows(1, readings(edge_bps=None, risk_ratio=0.45))
    assert ledger.reasons_of() == [EDGE_1, "risk=0.45 > 0.40"]


def test_before_a_ledgers_first_window_nothing_is_halted() -> None:
    ledger = Ledger(published=TradingState.FROZEN)
    ledger.windows(1, NO_FILLS)
    assert (ledger.mode, ledger.verdict) == (("FROZEN", 0.0), "WARN")
    ledger.windows(1, NO_FILLS)
    assert ledger.verdict == "OK"


def test_a_symbol_beyond_the_limit_is_halted_after_its_first_window() -> None:
    ledger = Ledger(None, BTC, ETH, limits=profile(1))
    ledger.windows(1, ETHUSDT=NO_FILLS)
    assert ledger.reasons_of(ETH) == [EDGE_1, "maker_taker=no data (1 windows)"]
    ledger.windows(1, ETHUSDT=NO_FILLS)
    assert ledger.reasons_of(ETH) == []


def test_a_cap_of_zero_halts_and_waives() -> None:
    ledger = Ledger()
    ledger.override("cap", BTC, cap=0.0)
    ledger.windows(1)
    ledger.windows(1, NO_FILLS)
    assert (ledger.verdict, ledger.effective) == ("OK", [0.0])


def test_a_symbol_that_is_halted_alone_is_waived_alone() -> None:
    ledger = Ledger(Policy(global_freeze_symbols=2), BTC, ETH)
    ledger.windows(1, BTCUSDT=CRIT)
    assert ledger.effective == [0.0, 1.0]
    ledger.windows(1, NO_FILLS)
    assert ledger.reasons_of(BTC) == []
    assert ledger.reasons_of(ETH) == [EDGE_1, "maker_taker=no data (1 windows)"]


# Rule 4 says "whose effective throttle after the previous window was 0.0", and nothing of what
# happened since: a symbol that couldn't trade up to now can't have had fills.


def test_a_cap_of_zero_that_expires_with_the_window_still_waives_in_that_window() -> None:
    ledger = Ledger()
    ledger.override("cap", BTC, cap=0.0, at_ms=ledger.next_window, minutes=2)
    ledger.windows(1)
    assert ledger.effective == [0.0]
    ledger.windows(1, NO_FILLS)
    assert (ledger.verdict, ledger.effective) == ("OK", [1.0])


def test_unfreezing_a_symbol_while_all_are_frozen_leaves_its_waiver() -> None:
    ledger = frozen(None, BTC, ETH)
    ledger.override("unfreeze", BTC)
    assert ledger.effective == [0.0, 0.0]
    ledger.windows(1, NO_FILLS)
    assert ledger.verdict == "OK"


def test_the_first_window_after_an_unfreeze_still_waives_what_only_fills_bring() -> None:
    ledger = frozen()
    ledger.override("unfreeze")
    ledger.windows(1, NO_FILLS)
    assert ledger.verdict == "OK"
    ledger.windows(1, NO_FILLS)
    assert ledger.verdict == "WARN"
