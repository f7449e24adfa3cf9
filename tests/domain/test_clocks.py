"""A clock that lies behind the ledger freezes it until the clock has passed."""

import pytest
from decider_spec import (
    CRIT,
    MINUTE_MS,
    NO_FILLS,
    SHORT,
    START_MS,
    WARN,
    Ledger,
    at,
    kinds,
    readings,
)

from domain.commands import ObserveClock
from domain.events import ClockFault
from domain.windows import SymbolReadings


def test_a_clock_in_an_earlier_window_than_the_last_is_a_fault_that_freezes() -> None:
    ledger = Ledger()
    ledger.windows(3)
    events = ledger.when(ObserveClock(window=at(1)))
    assert kinds(events) == ["ClockFault", "StateTransitioned", "SymbolThrottleChanged"]
    assert events[0] == ClockFault(window=at(1), last_window=at(2), behind_ms=MINUTE_MS)
    assert (ledger.mode, ledger.effective) == (("FROZEN", 0.0), [0.0])
    assert ledger.cause == (("clock is 60 s behind the ledger",), None)
    assert ledger.state.clock_behind


@pytest.mark.parametrize("minute", [2, 3, 99])
def test_a_clock_in_the_last_window_or_later_is_none(minute: int) -> None:
    ledger = Ledger()
    assert ledger.when(ObserveClock(window=START_MS - MINUTE_MS)) == []
    ledger.windows(3)
    assert ledger.when(ObserveClock(window=at(minute))) == []


def test_a_clock_that_stays_behind_is_one_fault() -> None:
    ledger = Ledger()
    ledger.windows(3)
    ledger.when(ObserveClock(window=at(0)))
    assert ledger.when(ObserveClock(window=at(1))) == []
    assert ledger.state.counts.clock_faults == 1


@pytest.mark.parametrize("waiting", [CRIT, WARN])
def test_a_clock_fault_freezes_any_state_and_recovery_counts_from_there(
    waiting: SymbolReadings,
) -> None:
    ledger = Ledger(SHORT)
    ledger.windows(2, waiting)
    ledger.windows(1)
    assert ledger.counters[0] == 1
    ledger.when(ObserveClock(window=START_MS))
    assert (ledger.mode, ledger.counters) == (("FROZEN", 0.0), (0, 0))
    ledger.windows(2)
    assert ledger.mode == ("FROZEN", 0.0)
    ledger.windows(1)
    assert ledger.mode == ("ACTIVE", 1.0)


def test_the_next_window_says_that_the_clock_has_passed_and_a_new_fault_is_told() -> None:
    ledger = Ledger()
    ledger.windows(3)
    ledger.when(ObserveClock(window=at(0)))
    ledger.windows(1, NO_FILLS)
    assert not ledger.state.clock_behind
    assert kinds(ledger.when(ObserveClock(window=at(0)))) == ["ClockFault"]


def test_a_gap_after_a_fault_says_that_the_clock_has_passed_too() -> None:
    ledger = Ledger()
    ledger.windows(3)
    ledger.when(ObserveClock(window=at(0)))
    ledger.skip(2)
    assert not ledger.state.clock_behind
    assert kinds(ledger.when(ObserveClock(window=at(0)))) == ["ClockFault"]


def test_a_fault_waives_from_the_next_window_on_like_any_freeze() -> None:
    ledger = Ledger()
    ledger.windows(3)
    ledger.when(ObserveClock(window=at(0)))
    ledger.windows(1, readings())
    ledger.windows(1, NO_FILLS)
    assert ledger.verdict == "OK"
