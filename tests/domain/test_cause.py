"""Why the controller is in its present state, and what set its recovery back."""

import pytest
from decider_spec import (
    BTC,
    CRIT,
    ETH,
    NO_FILLS,
    NOTHING,
    OK,
    SHORT,
    SOL,
    START_MS,
    WARN,
    Ledger,
    at,
    frozen,
    in_cooldown,
    only,
    profile,
    readings,
)
from msgspec.structs import replace

from domain.commands import ObserveClock, ObserveWindow
from domain.events import CauseKind, StateTransitioned, TradingState
from domain.policy import Policy
from domain.state import Reset
from domain.windows import SymbolReadings, WindowReadings

BOTH = readings(edge_bps=2.0, risk_ratio=0.45)


def test_by_verdict_the_reasons_are_all_of_the_triggering_symbols_warn_and_no_data_too() -> None:
    ledger = Ledger(None, BTC, ETH)
    ledger.windows(1, ETHUSDT=readings(edge_bps=2.0, maker_taker_ratio=None, p95_latency_ms=360.0))
    assert ledger.cause == (
        ("edge_bps=2.0 < 2.5", "maker_taker=no data (1 windows)", "p95_latency=360 > 350"),
        ETH,
    )


def test_the_guides_scenario_1_reads_as_the_guide_has_it() -> None:
    ledger = Ledger()
    ledger.windows(1, BOTH)
    assert ledger.cause == (("edge_bps=2.0 < 2.5", "risk=0.45 > 0.40"), BTC)


def test_it_was_the_first_symbol_in_configured_order_with_the_worst_verdict() -> None:
    ledger = Ledger(None, SOL, BTC, ETH)
    ledger.windows(1, SOLUSDT=WARN, BTCUSDT=BOTH, ETHUSDT=CRIT)
    assert ledger.cause == (("edge_bps=2.0 < 2.5", "risk=0.45 > 0.40"), BTC)


def test_a_cooldown_names_the_window_that_completed_it_and_not_earlier_ones() -> None:
    ledger = Ledger(None, BTC, ETH)
    ledger.windows(2, BTCUSDT=WARN)
    ledger.windows(1, ETHUSDT=readings(maker_taker_ratio=0.5))
    assert ledger.mode == ("COOLDOWN", 0.5)
    assert ledger.cause == (("maker_taker=0.50 < 0.83",), ETH)


def test_a_symbol_beyond_the_limit_triggers_nothing() -> None:
    ledger = Ledger(None, BTC, ETH, limits=profile(1))
    ledger.windows(1, BTCUSDT=CRIT, ETHUSDT=BOTH)
    assert ledger.cause == (("risk=0.45 > 0.40",), BTC)


def test_a_cooldown_because_every_symbol_was_frozen_on_its_own_says_so() -> None:
    policy = replace(SHORT, global_freeze_symbols=2, unfreeze_after_ok_windows=9)
    ledger = Ledger(policy, BTC, ETH)
    ledger.windows(1, BTCUSDT=CRIT)
    ledger.windows(1)
    ledger.windows(1, ETHUSDT=CRIT)
    ledger.windows(1)
    assert ledger.mode == ("COOLDOWN", 0.5)
    assert ledger.cause == (("every symbol is frozen on its own",), None)
    assert ledger.state.last_reset == Reset(at(3), None, ("every symbol is frozen on its own",))


@pytest.mark.parametrize(
    ("arrived", "windows", "mode"),
    [(OK, 24, "ACTIVE"), (NO_FILLS, 24, "COOLDOWN")],
)
def test_by_recovery_the_reason_counts_the_ok_windows(
    arrived: SymbolReadings, windows: int, mode: str
) -> None:
    ledger = frozen()
    ledger.windows(windows, arrived)
    assert ledger.mode[0] == mode
    assert ledger.cause == (("recovered after 24 OK windows",), None)


def test_by_recovery_from_cooldown_the_reason_counts_that_policys_windows() -> None:
    ledger = in_cooldown()
    ledger.windows(12)
    assert ledger.cause == (("recovered after 12 OK windows",), None)


def test_by_gap_the_reason_gives_its_start_its_exclusive_end_and_its_windows() -> None:
    ledger = Ledger()
    last = WindowReadings(start_ms=at(-1), symbols={BTC: OK})
    ledger.when(ObserveWindow(readings=last))
    ledger.skip(120)
    assert ledger.mode == ("FROZEN", 0.0)
    assert ledger.cause == (
        ("runner down 2026-01-05T14:00Z to 2026-01-05T16:00Z (120 windows)",),
        None,
    )


def test_by_override_the_reason_gives_the_name_and_the_text() -> None:
    ledger = Ledger()
    ledger.override("freeze")
    assert ledger.cause == (("override freeze by kim: drill",), None)
    ledger.clear()
    ledger.override("unfreeze")
    assert ledger.cause == (("override unfreeze by kim: drill",), None)


def test_by_clock_the_reason_says_how_far_behind_it_is() -> None:
    ledger = Ledger()
    ledger.windows(61)
    ledger.when(ObserveClock(window=START_MS))
    assert ledger.cause == (("clock is 3600 s behind the ledger",), None)


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        ("verdict", CauseKind.VERDICT),
        ("recovery", CauseKind.RECOVERY),
        ("gap", CauseKind.GAP),
        ("override", CauseKind.OVERRIDE),
        ("clock", CauseKind.CLOCK),
    ],
)
def test_a_transition_says_what_kind_of_cause_it_had(cause: str, kind: CauseKind) -> None:
    ledger = Ledger()
    match cause:
        case "verdict":
            events = ledger.windows(1, CRIT)
        case "recovery":
            ledger.windows(1, CRIT)
            events = ledger.windows(24)
        case "gap":
            ledger.windows(1)
            events = ledger.skip(3)
        case "override":
            events = ledger.override("freeze")
        case _:
            ledger.windows(3)
            events = ledger.when(ObserveClock(window=START_MS))
    assert only(events, StateTransitioned).cause is kind


def test_the_cause_is_kept_through_later_windows_until_the_next_transition() -> None:
    ledger = Ledger()
    ledger.windows(1, BOTH)
    frozen_at = ledger.next_window
    for arrived in (OK, WARN, CRIT, NOTHING, OK):
        ledger.windows(1, arrived)
        assert ledger.cause == (("edge_bps=2.0 < 2.5", "risk=0.45 > 0.40"), BTC)
        assert (ledger.state.previous, ledger.state.since_ms) == (TradingState.ACTIVE, frozen_at)
    ledger.skip(5)
    ledger.override("freeze")
    ledger.when(ObserveClock(window=START_MS))
    assert ledger.cause == (("edge_bps=2.0 < 2.5", "risk=0.45 > 0.40"), BTC)
    ledger.clear()
    ledger.windows(24)
    assert ledger.state.reasons == ("recovered after 24 OK windows",)


def test_a_state_holds_from_the_end_of_the_window_that_decided_it() -> None:
    ledger = Ledger()
    ledger.windows(2)
    ledger.windows(1, CRIT)
    assert ledger.state.since_ms == at(3)


# What set the count of OK windows back.


def test_the_last_reset_names_window_symbol_and_reasons() -> None:
    ledger = frozen(None, BTC, ETH)
    ledger.windows(5)
    ledger.windows(1, ETHUSDT=WARN)
    ledger.windows(3)
    assert ledger.state.last_reset == Reset(at(6), ETH, ("p95_latency=360 > 350",))


def test_the_last_reset_may_be_a_gap_an_override_a_clock_or_a_policy() -> None:
    ledger = frozen()
    ledger.skip(2)
    gap = "runner down 2026-01-05T14:01Z to 2026-01-05T14:03Z (2 windows)"
    assert ledger.state.last_reset == Reset(at(2), None, (gap,))
    ledger.override("freeze")
    assert ledger.state.last_reset == Reset(at(2), None, ("override freeze by kim: drill",))
    ledger.when(ObserveClock(window=START_MS))
    clock = "clock is 120 s behind the ledger"
    assert ledger.state.last_reset == Reset(at(2), None, (clock,))
    ledger.adopt(Policy(min_warn_windows=4))
    assert ledger.state.last_reset == Reset(at(2), None, ("the policy was loosened",))
