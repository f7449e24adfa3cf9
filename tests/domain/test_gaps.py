"""Gaps, duplicates and late windows."""

import pytest
from decider_spec import (
    BTC,
    CRIT,
    ETH,
    HEALTHY,
    NOTHING,
    OK,
    SHORT,
    START_MS,
    WARN,
    Ledger,
    at,
    frozen,
    in_cooldown,
    kinds,
    only,
    start_run,
)
from msgspec.structs import replace

from domain.commands import AdoptPolicy, ObserveWindow, PassWindows
from domain.controller import decide, fold
from domain.errors import CommandRefused
from domain.events import (
    Event,
    GapObserved,
    KpiObserved,
    LateWindowObserved,
    StateTransitioned,
)
from domain.policy import Policy
from domain.state import State
from domain.windows import SymbolReadings, WindowReadings, content_hash


def observe(ledger: Ledger, minute: float, arrived: SymbolReadings = OK) -> list[Event]:
    window = WindowReadings(
        start_ms=at(minute), symbols=dict.fromkeys(ledger.state.symbol_names, arrived)
    )
    return ledger.when(ObserveWindow(readings=window))


# Gaps.


def test_the_windows_between_the_last_and_the_next_are_one_gap() -> None:
    ledger = Ledger(Policy(no_data_freeze_windows=9))
    observe(ledger, 0)
    events = observe(ledger, 3)
    assert kinds(events)[:2] == ["GapObserved", "KpiObserved"]
    gap = only(events, GapObserved)
    assert (gap.window, gap.windows, gap.end_ms) == (at(1), 2, at(3))
    assert (ledger.state.counts.gaps, ledger.state.counts.gap_windows) == (1, 2)


def test_there_is_no_gap_before_the_first_window_nor_between_neighbours() -> None:
    ledger = Ledger()
    assert kinds(observe(ledger, 500)) == ["KpiObserved"]
    assert kinds(observe(ledger, 501)) == ["KpiObserved"]


def test_missing_windows_can_be_accounted_for_before_the_next_one_arrives() -> None:
    ledger = Ledger()
    assert ledger.when(PassWindows(until=at(9))) == []
    observe(ledger, 0)
    assert ledger.when(PassWindows(until=at(0))) == []
    assert ledger.when(PassWindows(until=at(1))) == []
    assert only(ledger.skip(1), GapObserved).windows == 1
    assert ledger.state.window == at(1)
    assert kinds(observe(ledger, 2))[0] == "KpiObserved"


@pytest.mark.parametrize(
    ("windows", "mode", "verdict_reason"),
    [(1, "ACTIVE", False), (2, "ACTIVE", False), (3, "FROZEN", True), (500, "FROZEN", True)],
)
def test_a_gap_counts_as_windows_without_data(
    windows: int, mode: str, verdict_reason: bool
) -> None:
    ledger = Ledger()
    ledger.windows(1)
    ledger.skip(windows)
    assert ledger.mode[0] == mode
    assert ledger.state.symbols[0].no_data["risk_ratio"] == windows
    assert bool(ledger.state.reasons) is verdict_reason


def test_a_gap_leads_to_cooldown_when_its_warns_come_first_and_the_warns_go_on() -> None:
    ledger = Ledger(replace(SHORT, no_data_freeze_windows=9))
    ledger.windows(1)
    events = ledger.skip(5)
    assert (ledger.mode, ledger.counters) == (("COOLDOWN", 0.5), (0, 3))
    assert only(events, StateTransitioned).since_ms == at(3)


def test_a_gap_that_passes_through_cooldown_is_one_transition_to_where_it_ends() -> None:
    ledger = Ledger(replace(SHORT, no_data_freeze_windows=5))
    ledger.windows(1)
    moved = only(ledger.skip(6), StateTransitioned)
    assert (moved.previous, moved.state, moved.since_ms) == ("ACTIVE", "FROZEN", at(6))
    reason = "runner down 2026-01-05T14:01Z to 2026-01-05T14:07Z (6 windows)"
    assert ledger.cause == ((reason,), None)


def test_a_gap_adds_to_the_warns_before_it() -> None:
    ledger = Ledger(replace(SHORT, no_data_freeze_windows=9))
    ledger.windows(1, WARN)
    ledger.skip(1)
    assert ledger.mode == ("COOLDOWN", 0.5)


def test_a_gap_breaks_a_recovery() -> None:
    ledger = frozen()
    ledger.windows(23)
    ledger.skip(1)
    ledger.windows(23)
    assert ledger.mode == ("FROZEN", 0.0)
    ledger.windows(1)
    assert ledger.mode == ("ACTIVE", 1.0)
    ledger = in_cooldown()
    ledger.windows(11)
    ledger.skip(1)
    ledger.windows(11)
    assert ledger.mode == ("COOLDOWN", 0.5)


def test_waivers_hold_through_a_gap_for_a_symbol_that_was_halted() -> None:
    ledger = frozen()
    ledger.skip(2)
    assert set(ledger.state.symbols[0].no_data) == {"risk_ratio", "p95_latency_ms"}


def test_several_gaps_are_several_events_and_one_cause_each() -> None:
    ledger = Ledger(SHORT)
    ledger.windows(1)
    ledger.skip(3)
    first = ledger.cause
    ledger.windows(3, OK)
    assert ledger.mode == ("ACTIVE", 1.0)
    ledger.skip(4)
    assert first == (("runner down 2026-01-05T14:01Z to 2026-01-05T14:04Z (3 windows)",), None)
    assert ledger.cause == (
        ("runner down 2026-01-05T14:07Z to 2026-01-05T14:11Z (4 windows)",),
        None,
    )
    assert (ledger.state.counts.gaps, ledger.state.counts.gap_windows) == (2, 7)


def test_two_gaps_in_a_row_come_to_the_same_as_one() -> None:
    apart, together = Ledger(), Ledger()
    for ledger in (apart, together):
        ledger.windows(1)
    apart.skip(1)
    apart.skip(4)
    together.skip(5)
    assert (apart.state.symbols, apart.mode) == (together.state.symbols, together.mode)


def test_a_gap_is_judged_by_the_policy_and_symbols_in_force_before_it() -> None:
    ledger = Ledger(Policy(no_data_freeze_windows=9, min_warn_windows=99))
    ledger.windows(1)
    adopt = AdoptPolicy(window=at(5), policy=Policy(), symbols=(BTC, ETH))
    ledger.when(PassWindows(until=at(5)))
    ledger.when(adopt)
    assert ledger.mode == ("ACTIVE", 1.0)
    assert [memory.no_data for memory in ledger.state.symbols][1] == {}


def test_a_gap_of_sub_minute_windows_is_told_to_the_second() -> None:
    state = fold(State(), decide(Policy(), State(), start_run(interval_ms=1500)))
    adopt = AdoptPolicy(window=START_MS, policy=Policy(), symbols=(BTC,))
    state = fold(state, decide(Policy(), state, adopt))
    first = WindowReadings(start_ms=START_MS, symbols={BTC: OK})
    state = fold(state, decide(Policy(), state, ObserveWindow(readings=first)))
    state = fold(state, decide(Policy(), state, PassWindows(until=START_MS + 6000)))
    assert state.reasons == (
        "runner down 2026-01-05T14:00:01.500Z to 2026-01-05T14:00:06Z (3 windows)",
    )


# Duplicates and late windows.


def test_a_window_that_is_there_with_the_same_content_changes_nothing() -> None:
    ledger = Ledger()
    (observed,) = observe(ledger, 0)
    assert isinstance(observed, KpiObserved)
    again = ObserveWindow(
        readings=WindowReadings(start_ms=at(0), symbols={BTC: OK}),
        recorded_content=observed.content,
    )
    assert ledger.when(again) == []


def test_the_content_is_the_same_whatever_the_order_and_without_strangers() -> None:
    ledger = Ledger(None, BTC, ETH)
    (observed,) = observe(ledger, 0)
    assert isinstance(observed, KpiObserved)
    turned = SymbolReadings(kpis=dict(reversed(HEALTHY.items())))
    symbols = {"XRPUSDT": OK, ETH: turned, BTC: OK}
    again = WindowReadings(start_ms=at(0), symbols=symbols)
    command = ObserveWindow(readings=again, recorded_content=observed.content)
    assert ledger.when(command) == []


def test_a_window_that_is_there_with_other_content_is_late_and_changes_no_state() -> None:
    ledger = Ledger()
    (observed,) = observe(ledger, 0)
    assert isinstance(observed, KpiObserved)
    before = ledger.state
    command = ObserveWindow(
        readings=WindowReadings(start_ms=at(0), symbols={BTC: CRIT, ETH: OK}),
        recorded_content=observed.content,
    )
    (late,) = ledger.when(command)
    assert late == LateWindowObserved(
        window=at(0), content=content_hash(at(0), {BTC: CRIT}), symbols={BTC: CRIT}
    )
    assert replace(ledger.state, counts=before.counts) == before
    assert ledger.state.counts.late_windows == 1
    assert ledger.when(replace(command, known_late=True)) == []


def test_a_window_older_than_the_last_is_late_even_if_it_was_a_gap() -> None:
    ledger = Ledger()
    observe(ledger, 0)
    observe(ledger, 5)
    assert kinds(observe(ledger, 3)) == ["LateWindowObserved"]
    assert kinds(observe(ledger, -7, NOTHING)) == ["LateWindowObserved"]
    assert ledger.state.window == at(5)


def test_a_known_window_stays_known_after_a_symbol_was_removed() -> None:
    ledger = Ledger(None, BTC, ETH)
    (observed,) = observe(ledger, 0)
    assert isinstance(observed, KpiObserved)
    again = ObserveWindow(
        readings=WindowReadings(start_ms=at(0), symbols={BTC: OK, ETH: OK}),
        recorded_content=observed.content,
        recorded_symbols=(BTC, ETH),
    )
    ledger.adopt(Policy(), BTC)
    assert ledger.when(again) == []


@pytest.mark.parametrize("offset_ms", [1, 30_000, -1])
def test_a_window_that_is_not_aligned_is_refused(offset_ms: int) -> None:
    ledger = Ledger()
    window = WindowReadings(start_ms=START_MS + offset_ms, symbols={BTC: OK})
    with pytest.raises(CommandRefused, match="not aligned to the stream's interval of 60 s"):
        ledger.when(ObserveWindow(readings=window))
