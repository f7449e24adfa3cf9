"""Overrides: freeze, cap and unfreeze, their scopes, ends and refusals."""

import pytest
from decider_spec import (
    BTC,
    CRIT,
    ETH,
    SHORT,
    START_MS,
    Ledger,
    at,
    frozen,
    in_cooldown,
    kinds,
    only,
    readings,
)
from msgspec.structs import replace

from domain.commands import (
    ExpireOverrides,
    ObserveClock,
)
from domain.errors import CommandRefused
from domain.events import (
    OverrideEnded,
    StateTransitioned,
    SymbolThrottleChanged,
)
from domain.policy import Policy

# freeze


@pytest.mark.parametrize("windows", [0, 2])
def test_a_freeze_freezes_at_once(windows: int) -> None:
    ledger = Ledger(None, BTC, ETH)
    ledger.windows(windows)
    events = ledger.override("freeze")
    assert kinds(events) == ["OverrideApplied", "StateTransitioned", *["SymbolThrottleChanged"] * 2]
    assert (ledger.mode, ledger.effective) == (("FROZEN", 0.0), [0.0, 0.0])
    assert ledger.state.since_ms == ledger.next_window + 30_000
    assert ledger.per_symbol == [1.0, 1.0]


def test_a_freeze_from_cooldown_freezes_too() -> None:
    ledger = in_cooldown()
    moved = only(ledger.override("freeze"), StateTransitioned)
    assert (moved.previous, moved.state) == ("COOLDOWN", "FROZEN")


def test_a_freeze_of_what_is_frozen_is_no_transition_but_sets_the_count_back() -> None:
    ledger = frozen(SHORT)
    ledger.windows(2)
    assert kinds(ledger.override("freeze")) == ["OverrideApplied"]
    assert ledger.counters == (0, 0)


def test_a_freeze_is_held_for_good_until_it_is_cleared() -> None:
    ledger = Ledger(SHORT)
    ledger.override("freeze")
    ledger.windows(50)
    assert (ledger.mode, ledger.counters) == (("FROZEN", 0.0), (0, 0))


def test_recovery_is_counted_from_the_clearing() -> None:
    ledger = Ledger(SHORT)
    ledger.override("freeze")
    ledger.windows(5)
    ledger.clear()  # at the start of the next window, which is the first to count
    ledger.windows(2)
    assert ledger.mode == ("FROZEN", 0.0)
    ledger.windows(1)
    assert ledger.mode == ("ACTIVE", 1.0)


def test_a_window_in_which_the_freeze_held_for_a_moment_does_not_count() -> None:
    ledger = Ledger(SHORT)
    ledger.override("freeze")
    ledger.windows(5)
    ledger.clear(at_ms=ledger.next_window + 1)
    ledger.windows(1)
    assert ledger.counters == (0, 0)
    ledger.windows(2)
    assert ledger.mode == ("FROZEN", 0.0)
    ledger.windows(1)
    assert ledger.mode == ("ACTIVE", 1.0)


def test_a_freeze_ends_when_it_expires_and_recovery_is_counted_from_there() -> None:
    ledger = Ledger(SHORT)
    ledger.override("freeze", at_ms=START_MS, minutes=4)
    ledger.windows(4)
    assert (ledger.counters, ledger.state.overrides) == ((0, 0), ())
    ledger.windows(2)
    assert ledger.mode == ("FROZEN", 0.0)
    ledger.windows(1)
    assert ledger.mode == ("ACTIVE", 1.0)


def test_a_freeze_of_one_symbol_leaves_the_others_and_the_global_state() -> None:
    ledger = Ledger(SHORT, BTC, ETH)
    events = ledger.override("freeze", ETH)
    assert kinds(events) == ["OverrideApplied", "SymbolThrottleChanged"]
    assert (ledger.mode, ledger.effective) == (("ACTIVE", 1.0), [1.0, 0.0])
    ledger.windows(9)
    assert (ledger.mode, ledger.effective) == (("ACTIVE", 1.0), [1.0, 0.0])
    assert ledger.verdict == "OK"


def test_a_frozen_symbol_recovers_by_its_own_windows_from_the_end_of_its_freeze() -> None:
    ledger = Ledger(SHORT, BTC, ETH)
    ledger.override("freeze", ETH)
    ledger.windows(9)
    ledger.clear()
    ledger.windows(2)
    assert ledger.effective == [1.0, 0.0]
    ledger.windows(1)
    assert ledger.effective == [1.0, 1.0]


def test_a_freeze_for_a_moment_between_windows_sets_its_symbols_count_back() -> None:
    ledger = Ledger(replace(SHORT, global_freeze_symbols=2), BTC, ETH)
    ledger.windows(1, BTCUSDT=CRIT)
    ledger.windows(2)
    ledger.override("freeze", BTC, at_ms=ledger.next_window)
    ledger.clear(ledger.next_window)
    ledger.windows(2)
    assert ledger.per_symbol == [0.0, 1.0]
    ledger.windows(1)
    assert ledger.per_symbol == [1.0, 1.0]


def test_a_crit_during_a_freeze_is_no_second_transition() -> None:
    ledger = Ledger(SHORT)
    ledger.override("freeze")
    assert not [e for e in ledger.windows(1, CRIT) if isinstance(e, StateTransitioned)]
    assert ledger.cause == (("override freeze by kim: drill",), None)


# cap


def test_a_cap_bounds_the_effective_throttle_and_nothing_else() -> None:
    ledger = Ledger(None, BTC, ETH)
    events = ledger.override("cap", ETH, cap=0.4)
    changed = only(events, SymbolThrottleChanged)
    assert (changed.symbol, changed.effective_before, changed.effective) == (ETH, 1.0, 0.4)
    assert changed.throttle == changed.throttle_before == 1.0
    assert (ledger.mode, ledger.per_symbol) == (("ACTIVE", 1.0), [1.0, 1.0])


def test_the_lowest_cap_wins_and_a_higher_one_raises_nothing() -> None:
    ledger = Ledger(None, BTC, ETH)
    ledger.override("cap", cap=0.6)
    ledger.override("cap", ETH, cap=0.8)
    assert ledger.effective == [0.6, 0.6]
    ledger.override("cap", ETH, cap=0.2)
    assert ledger.effective == [0.6, 0.2]
    ledger.clear()
    assert ledger.effective == [0.6, 0.6]


def test_a_cap_holds_until_it_expires() -> None:
    ledger = Ledger()
    ledger.override("cap", cap=0.4, at_ms=START_MS, minutes=2)
    ledger.windows(1)
    assert ledger.effective == [0.4]
    events = ledger.windows(1)
    assert only(events, OverrideEnded) == OverrideEnded(id="cap-2", at_ms=at(2), ended_by="expiry")
    assert (ledger.effective, ledger.state.overrides) == ([1.0], ())


def test_what_has_expired_can_be_ended_between_windows() -> None:
    ledger = Ledger()
    ledger.override("cap", cap=0.4, at_ms=START_MS, minutes=2)
    ledger.override("cap", cap=0.3, at_ms=START_MS)
    assert ledger.when(ExpireOverrides(at_ms=at(2) - 1)) == []
    assert kinds(ledger.when(ExpireOverrides(at_ms=at(2)))) == ["OverrideEnded"]
    assert (ledger.effective, len(ledger.state.overrides_in_force)) == ([0.3], 1)
    assert ledger.when(ExpireOverrides(at_ms=at(9))) == []


def test_what_expires_in_a_gap_ends_in_it() -> None:
    ledger = Ledger(Policy(no_data_freeze_windows=99, min_warn_windows=99))
    ledger.windows(1)
    ledger.override("cap", cap=0.4, at_ms=at(1), minutes=3)
    assert kinds(ledger.skip(10))[:2] == ["OverrideEnded", "GapObserved"]
    assert ledger.effective == [0.5]


def test_a_cap_that_was_cleared_is_over_with_its_window() -> None:
    ledger = Ledger()
    ledger.override("cap", cap=0.4)
    (ended, _) = ledger.clear()
    assert ended == OverrideEnded(id="cap-2", at_ms=START_MS, ended_by="kim")
    assert ledger.effective == [1.0]
    ledger.windows(1)
    assert ledger.state.overrides == ()


# unfreeze


def test_an_unfreeze_is_active_at_once_with_every_symbols_freeze_cleared() -> None:
    ledger = Ledger(SHORT, BTC, ETH)
    ledger.windows(1, CRIT)
    moved = only(ledger.override("unfreeze"), StateTransitioned)
    assert (moved.previous, moved.state, moved.throttle) == ("FROZEN", "ACTIVE", 1.0)
    assert (ledger.mode, ledger.per_symbol) == (("ACTIVE", 1.0), [1.0, 1.0])
    assert ledger.effective == [1.0, 1.0]


def test_an_unfreeze_sets_counters_no_data_counts_and_breach_memory_to_zero() -> None:
    ledger = Ledger(replace(SHORT, min_warn_windows=9))
    ledger.windows(1, readings(anomaly_score=3.0))
    ledger.override("unfreeze")
    ledger.windows(1, readings(anomaly_score=None))
    assert ledger.verdict == "OK"
    ledger.windows(2, readings(risk_ratio=None))
    assert ledger.counters == (0, 2)
    ledger.override("unfreeze")
    assert ledger.counters == (0, 0)
    assert ledger.state.symbols[0].no_data == {}
    ledger.windows(1, readings(risk_ratio=None))
    assert ledger.reasons_of() == ["risk=no data (1 windows)"]


def test_an_unfreeze_silences_no_rule() -> None:
    ledger = frozen()
    ledger.override("unfreeze")
    ledger.windows(1, CRIT)
    assert (ledger.mode, ledger.cause) == (("FROZEN", 0.0), (("risk=0.45 > 0.40",), BTC))


def test_an_unfreeze_from_cooldown_is_active_and_from_active_is_no_transition() -> None:
    ledger = in_cooldown()
    ledger.override("unfreeze")
    assert ledger.mode == ("ACTIVE", 1.0)
    assert kinds(ledger.override("unfreeze")) == ["OverrideApplied"]


def test_an_unfreeze_of_one_symbol_clears_that_symbol_only() -> None:
    ledger = Ledger(replace(SHORT, global_freeze_symbols=2, min_warn_windows=9), BTC, ETH)
    ledger.windows(1, BTCUSDT=CRIT)
    ledger.windows(1, ETHUSDT=CRIT)
    assert ledger.effective == [0.0, 0.0]
    counters = ledger.counters
    assert kinds(ledger.override("unfreeze", BTC)) == ["OverrideApplied", "SymbolThrottleChanged"]
    assert (ledger.effective, ledger.counters) == ([1.0, 0.0], counters)


def test_an_unfreeze_leaves_caps_in_force() -> None:
    ledger = frozen()
    ledger.override("cap", cap=0.3)
    ledger.override("unfreeze")
    assert ledger.effective == [0.3]


def test_an_unfreeze_reaches_symbols_that_were_removed() -> None:
    ledger = Ledger(SHORT, BTC, ETH)
    ledger.windows(1, ETHUSDT=CRIT)
    ledger.adopt(SHORT, BTC)
    ledger.override("unfreeze")
    ledger.adopt(SHORT, BTC, ETH)
    assert ledger.effective == [1.0, 1.0]


@pytest.mark.parametrize(
    ("freeze", "unfreeze"),
    [(None, None), (None, BTC), (BTC, None), (BTC, BTC)],
)
def test_an_unfreeze_is_refused_while_a_freeze_override_is_in_force(
    freeze: str | None, unfreeze: str | None
) -> None:
    ledger = Ledger(None, BTC, ETH)
    ledger.override("freeze", freeze)
    with pytest.raises(CommandRefused, match=r"a freeze by kim is in force \(freeze-2\)"):
        ledger.override("unfreeze", unfreeze)
    ledger.clear()
    assert ledger.override("unfreeze", unfreeze)


def test_an_unfreeze_is_refused_while_the_clock_is_behind() -> None:
    ledger = Ledger()
    ledger.windows(3)
    ledger.when(ObserveClock(window=START_MS))
    with pytest.raises(CommandRefused, match="the clock is behind the ledger"):
        ledger.override("unfreeze")
    ledger.windows(1)
    ledger.override("unfreeze")
    assert ledger.mode == ("ACTIVE", 1.0)
