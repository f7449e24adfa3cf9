"""Laws that hold for every policy and every history."""

import time
from typing import NamedTuple

import pytest
from decider_spec import BTC, CRIT, ETH, MINUTE_MS, OK, Ledger
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from random_stories import (
    Step,
    Window,
    arrivals,
    ledgers,
    ok_values,
    stories,
    tell,
    window_readings,
    worse,
)

from domain.commands import ObserveWindow, PassWindows
from domain.controller import decide, evolve, fold
from domain.events import (
    Event,
    GapObserved,
    KpiObserved,
    PolicyAdopted,
    StateTransitioned,
    SymbolThrottleChanged,
)
from domain.judging import throttle_in
from domain.kpis import KPIS, Kpi, Reading
from domain.policy import COUNT_MAX, Policy
from domain.state import State
from domain.windows import SymbolReadings, WindowReadings

law = settings(derandomize=True, deadline=None, max_examples=400)


class Change(NamedTuple):
    """An OK value of one symbol's KPI, and what it is replaced by."""

    symbol: int
    kpi: Kpi
    value: float
    instead: Reading | None

    def applied(self, window: WindowReadings) -> tuple[WindowReadings, WindowReadings]:
        """Return the window with the OK value, and with what replaces it."""
        names = list(window.symbols)
        name = names[self.symbol % len(names)]
        others = {k: v for k, v in window.symbols[name].kpis.items() if k != self.kpi.name}
        good = {**others, self.kpi.name: self.value}
        bad = others if self.instead is None else {**others, self.kpi.name: self.instead}
        with_good, with_bad = (
            replace(window, symbols={**window.symbols, name: SymbolReadings(kpis=kpis)})
            for kpis in (good, bad)
        )
        return with_good, with_bad


@st.composite
def changes(draw: st.DrawFn, /, *, breaches: bool) -> Change:
    kpi = draw(st.sampled_from(KPIS))
    value = draw(st.sampled_from(ok_values(kpi)))
    instead = worse(kpi) if breaches else [one for one in worse(kpi) if not _is_breach(kpi, one)]
    return Change(draw(st.integers(0, 3)), kpi, value, draw(st.sampled_from(instead)))


def _is_breach(kpi: Kpi, reading: Reading | None) -> bool:
    return (
        reading is not None
        and kpi.is_valid(reading)
        and kpi.is_breached(float(reading), kpi.threshold)
    )


def _is_ok(ledger: Ledger, change: Change) -> bool:
    names = ledger.state.symbol_names
    thresholds = ledger.policy.thresholds_of(names[change.symbol % len(names)])
    return not change.kpi.is_breached(change.value, thresholds[change.kpi.policy_key])


def no_throttle_is_higher(worse_off: State, better_off: State) -> bool:
    throttles = better_off.effective_throttles()
    return all(one <= throttles[name] for name, one in worse_off.effective_throttles().items())


@law
@given(ledgers(), stories, st.lists(arrivals, min_size=1, max_size=4), changes(breaches=True))
def test_a_missing_malformed_or_worse_value_never_raises_a_throttle_in_its_window(
    ledger: Ledger, before: list[Step], arrived: list[SymbolReadings], change: Change
) -> None:
    assume(_is_ok(ledger, change))
    tell(ledger, before)
    good, bad = change.applied(window_readings(ledger, tuple(arrived)))
    state, policy = ledger.state, ledger.policy
    better_off, worse_off = (
        fold(state, decide(policy, state, ObserveWindow(readings=window))) for window in (good, bad)
    )
    assert no_throttle_is_higher(worse_off, better_off)


@law
@given(
    ledgers(global_freeze_symbols=1, waived_when_halted=()),
    stories,
    st.lists(arrivals, min_size=1, max_size=4),
    changes(breaches=False),
    stories,
)
def test_without_waivers_missing_data_never_raises_a_throttle_in_any_later_window_either(
    ledger: Ledger,
    before: list[Step],
    arrived: list[SymbolReadings],
    change: Change,
    after: list[Step],
) -> None:
    assume(_is_ok(ledger, change))
    tell(ledger, before)
    good, bad = change.applied(window_readings(ledger, tuple(arrived)))
    other = Ledger(ledger.policy, *ledger.state.symbol_names, limits=ledger.state.profile)
    other.state = ledger.state
    ledger.when(ObserveWindow(readings=good))
    other.when(ObserveWindow(readings=bad))
    assert no_throttle_is_higher(other.state, ledger.state)
    for step in after:
        for _ in range(step.times if isinstance(step, Window) else 1):
            for one in (ledger, other):
                tell(one, [step._replace(times=1) if isinstance(step, Window) else step])
            assert no_throttle_is_higher(other.state, ledger.state)


def remembered(state: State) -> dict[str, object]:
    """Return all that a gap must leave as windows without readings would have."""
    return {
        "window": state.window,
        "trading_state": state.trading_state,
        "since_ms": state.since_ms,
        "throttle": state.throttle,
        "counters": (state.ok_windows, state.warn_windows, state.excused),
        "memories": state.symbols,
        "overrides": state.overrides,
        "effective": state.effective_throttles(),
    }


def both_ways(state: State, policy: Policy, windows: int) -> tuple[State, State]:
    """Return the state after a gap, and after as many observed windows without readings."""
    assert state.next_window is not None
    until = state.next_window + windows * MINUTE_MS
    gap = fold(state, decide(policy, state, PassWindows(until=until)))
    observed = state
    for window in range(state.next_window, until, MINUTE_MS):
        nothing = ObserveWindow(readings=WindowReadings(start_ms=window))
        observed = fold(observed, decide(policy, observed, nothing))
    return gap, observed


@settings(law, max_examples=500)
@given(st.data(), stories, st.integers(1, 60))
def test_a_gap_leaves_the_state_that_as_many_windows_without_readings_leave(
    data: st.DataObject, before: list[Step], windows: int
) -> None:
    counts_max = data.draw(st.sampled_from([3, 30]))
    ledger = data.draw(ledgers(counts_max=counts_max))
    tell(ledger, [Window(1, (OK,)), *before])
    gap, observed = both_ways(ledger.state, ledger.policy, windows)
    assert remembered(gap) == remembered(observed)


@pytest.mark.parametrize("expiry", [0.5, 1, 7, 7.5, 29, 30, 31])
@pytest.mark.parametrize("symbol", [None, BTC])
def test_a_gap_notices_a_cap_of_zero_that_expires_in_the_midst_of_it(
    expiry: float, symbol: str | None
) -> None:
    patient = Policy(no_data_freeze_windows=99, min_warn_windows=99)
    ledger = Ledger(patient, BTC, ETH)
    ledger.override("cap", symbol, cap=0.0)
    ledger.windows(1)
    ledger.clear(ledger.next_window)
    ledger.override("cap", symbol, cap=0.0, at_ms=ledger.next_window, minutes=expiry)
    gap, observed = both_ways(ledger.state, patient, 30)
    assert remembered(gap) == remembered(observed)
    waived = 30 - gap.symbols[0].no_data.get("edge_bps", 0)
    assert waived > 0 or expiry <= 1


@pytest.mark.parametrize(
    "policy",
    [
        Policy(),
        Policy(min_warn_windows=COUNT_MAX, no_data_freeze_windows=COUNT_MAX - 5),
        Policy(no_data_freeze_windows=COUNT_MAX, global_freeze_symbols=2),
    ],
)
def test_a_gap_of_centuries_takes_no_time(policy: Policy) -> None:
    ledger = Ledger(policy, BTC, ETH)
    ledger.windows(1, BTCUSDT=CRIT)
    ledger.override("cap", cap=0.4, minutes=300_000)
    ledger.override("freeze", ETH, minutes=7_000_000)
    begun = time.process_time()
    ledger.skip(1_000_000_000)
    assert time.process_time() - begun < 1.0
    assert ledger.mode == ("FROZEN", 0.0) or policy.no_data_freeze_windows == COUNT_MAX
    assert ledger.state.overrides == ()
    assert ledger.state.symbols[0].no_data["p95_latency_ms"] == 1_000_000_000


@law
@given(ledgers(), stories, st.integers(0, 60))
def test_folding_in_two_parts_is_folding_in_one(
    ledger: Ledger, steps: list[Step], cut: int
) -> None:
    tell(ledger, steps)
    events = ledger.events
    whole = fold(State(), events)
    assert whole == ledger.state
    assert fold(fold(State(), events[:cut]), events[cut:]) == whole
    assert fold(State(), events) == whole


@law
@given(ledgers(), stories, ledgers())
def test_what_an_event_means_never_depends_on_the_policy(
    ledger: Ledger, steps: list[Step], stranger: Ledger
) -> None:
    tell(ledger, steps)
    state = State()
    for event in ledger.events:
        after = evolve(state, event)
        if not isinstance(event, PolicyAdopted):
            other = evolve(replace(state, policy=stranger.policy), event)
            assert replace(other, policy=state.policy) == after
        state = after


@law
@given(ledgers(), stories)
def test_there_is_at_most_one_transition_a_window_and_throttles_are_consistent(
    ledger: Ledger, steps: list[Step]
) -> None:
    for before, events in tell(ledger, steps):
        after = fold(before, events)
        assert_one_transition_a_window(before, events)
        assert after.throttle == throttle_in(ledger.policy, after.trading_state)
        assert_bounded(after)
        assert_changes_told(before, after, events)


def assert_one_transition_a_window(before: State, events: list[Event]) -> None:
    """Assert that a gap, a window, any other command has one transition at most, a real one."""
    now, seen = before.trading_state, 0
    for event in events:
        if isinstance(event, KpiObserved | GapObserved):
            seen = 0
        if isinstance(event, StateTransitioned):
            seen += 1
            assert (event.previous, seen) == (now, 1)
            assert event.state != event.previous
            now = event.state


def assert_bounded(state: State) -> None:
    limit = len(state.symbols) if state.profile is None else state.profile.max_symbols
    for index, memory in enumerate(state.symbols):
        effective = state.effective_throttles()[memory.symbol]
        caps = [
            override.cap
            for override in state.overrides_in_force
            if override.cap is not None and override.symbol in (None, memory.symbol)
        ]
        least = min([state.throttle, memory.throttle, *caps])
        assert effective == (least if index < limit else 0.0)


def assert_changes_told(before: State, after: State, events: list[Event]) -> None:
    told = {
        event.symbol: (event.effective_before, event.effective)
        for event in events
        if isinstance(event, SymbolThrottleChanged)
    }
    now = after.effective_throttles()
    for symbol, was in before.effective_throttles().items():
        assert told.get(symbol, (was, was)) == (was, now[symbol])


@law
@given(ledgers(), stories, st.lists(arrivals, min_size=1, max_size=4))
def test_deciding_is_pure_the_same_state_and_command_give_the_same_events(
    ledger: Ledger, steps: list[Step], arrived: list[SymbolReadings]
) -> None:
    tell(ledger, steps)
    state, again = ledger.state, fold(State(), ledger.events)
    command = ObserveWindow(readings=window_readings(ledger, tuple(arrived)))
    first = decide(ledger.policy, state, command)
    assert decide(ledger.policy, again, command) == first
    assert decide(ledger.policy, state, command) == first
    assert state == again


@law
@given(ledgers(), stories)
def test_while_a_freeze_is_held_nothing_but_its_end_lets_trading_go_on(
    ledger: Ledger, steps: list[Step]
) -> None:
    ledger.override("freeze")
    held = ledger.state.overrides[-1].id
    for before, events in tell(ledger, steps):
        after = fold(before, events)
        if held in [override.id for override in after.overrides_in_force]:
            assert set(after.effective_throttles().values()) == {0.0}


def test_the_stories_of_these_laws_reach_every_transition_and_every_cause() -> None:
    moves: set[tuple[str, str]] = set()
    causes: set[str] = set()

    @law
    @given(ledgers(), stories)
    def collect(ledger: Ledger, steps: list[Step]) -> None:
        tell(ledger, steps)
        for event in ledger.events:
            if isinstance(event, StateTransitioned):
                moves.add((event.previous.value, event.state.value))
                causes.add(event.cause.value)

    collect()
    states = ("ACTIVE", "COOLDOWN", "FROZEN")
    assert moves == {(one, other) for one in states for other in states if one != other}
    assert causes == {"verdict", "recovery", "gap", "override", "clock"}
