"""What others write to our keys, fills after a freeze: adopted, reported, or nothing to do."""

import pytest
from decider_spec import (
    BTC,
    ETH,
    SHORT,
    Ledger,
    at,
    frozen,
    in_cooldown,
    kinds,
    only,
)

from domain.commands import ReportExternalWrite, ReportFill
from domain.errors import CommandRefused
from domain.events import ExternalWriteDetected, OverrideApplied, TradedWhileFrozen


def write(
    ledger: Ledger, found: str, expected: str, symbol: str | None = None
) -> ReportExternalWrite:
    name = "state" if symbol is None else f"throttle:{symbol}"
    return ReportExternalWrite(
        id="redis-1",
        key=f"prod:bybit:live:{name}",
        symbol=symbol,
        found=found,
        expected=expected,
        at_ms=ledger.next_window,
    )


def test_the_panic_set_to_frozen_is_adopted_as_a_freeze_by_redis_until_cleared() -> None:
    ledger = Ledger(SHORT)
    events = ledger.when(write(ledger, "FROZEN", "ACTIVE"))
    override = only(events, OverrideApplied).override
    assert (override.kind, override.actor, override.expires_at_ms) == ("freeze", "redis", None)
    assert ledger.mode == ("FROZEN", 0.0)
    reason = "override freeze by redis: prod:bybit:live:state was set to FROZEN"
    assert ledger.cause == ((reason,), None)
    ledger.windows(9)
    assert ledger.mode == ("FROZEN", 0.0)
    ledger.clear()
    ledger.windows(3)
    assert ledger.mode == ("ACTIVE", 1.0)


def test_cooldown_written_over_active_is_adopted_as_a_cap_at_its_throttle() -> None:
    ledger = Ledger()
    override = only(ledger.when(write(ledger, "COOLDOWN", "ACTIVE")), OverrideApplied).override
    assert (override.kind, override.cap, override.symbol) == ("cap", 0.5, None)
    assert (ledger.mode, ledger.effective) == (("ACTIVE", 1.0), [0.5])


def test_a_lower_throttle_is_adopted_as_a_cap_of_that_symbol() -> None:
    ledger = Ledger(None, BTC, ETH)
    ledger.when(write(ledger, " 0.25\n", "1.0", ETH))
    assert ledger.effective == [1.0, 0.25]


def test_the_same_write_reported_again_is_adopted_once() -> None:
    ledger = Ledger()
    ledger.when(write(ledger, "FROZEN", "ACTIVE"))
    assert ledger.when(write(ledger, "FROZEN", "ACTIVE")) == []


@pytest.mark.parametrize(
    ("found", "expected", "symbol"),
    [
        ("ACTIVE", "FROZEN", None),  # the guide's bypass
        ("ACTIVE", "COOLDOWN", None),
        ("COOLDOWN", "FROZEN", None),
        ("FROZEN", "FROZEN", None),
        ("", "ACTIVE", None),
        ("HALT", "ACTIVE", None),
        ("1.0", "0.5", BTC),
        ("0.5", "0.5", BTC),
        ("-1", "0.5", BTC),
        ("1.5", "0.5", BTC),
        ("nan", "0.5", BTC),
        ("off", "0.5", BTC),
        ("0.1", "?", BTC),
    ],
)
def test_a_write_towards_more_or_unreadable_is_reported_and_changes_nothing(
    found: str, expected: str, symbol: str | None
) -> None:
    ledger = in_cooldown()
    before = ledger.mode, ledger.effective
    detected = only(ledger.when(write(ledger, found, expected, symbol)), ExternalWriteDetected)
    assert (detected.found, detected.expected) == (found, expected)
    assert (ledger.mode, ledger.effective) == before
    assert ledger.state.counts.external_writes == 1
    assert ledger.state.overrides == ()


def test_the_guides_bypass_changes_nothing_and_the_next_window_stays_frozen() -> None:
    ledger = frozen()
    ledger.when(write(ledger, "ACTIVE", "FROZEN"))
    ledger.windows(1)
    assert ledger.mode == ("FROZEN", 0.0)


def test_a_found_text_is_kept_to_two_hundred_characters() -> None:
    ledger = Ledger()
    (detected,) = ledger.when(write(ledger, "x" * 5000, "ACTIVE"))
    assert isinstance(detected, ExternalWriteDetected)
    assert detected.found == "x" * 200


def test_a_lower_throttle_of_an_unknown_symbol_is_refused() -> None:
    ledger = Ledger()
    with pytest.raises(CommandRefused, match="no such symbol: ETHUSDT"):
        ledger.when(write(ledger, "0.0", "1.0", ETH))


@pytest.mark.parametrize(("seconds", "told"), [(-1, False), (0, False), (5, False), (6, True)])
def test_a_fill_more_than_the_grace_period_after_zero_was_published_is_told(
    seconds: int, told: bool
) -> None:
    ledger = frozen()
    fill = ReportFill(
        symbol=BTC,
        filled_at_ms=at(1) + seconds * 1000,
        frozen_since_ms=at(1),
        notional=20.0,
        grace_ms=5000,
    )
    events = ledger.when(fill)
    assert kinds(events) == (["TradedWhileFrozen"] if told else [])
    assert ledger.state.counts.fills_while_frozen == int(told)
    if told:
        assert only(events, TradedWhileFrozen).filled_at_ms == at(1) + 6000
