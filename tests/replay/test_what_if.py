"""What if: the changed window is decided by the core, and so is what was recorded after it."""

from collections.abc import Sequence
from typing import Any

from decider_spec import BTC, CRIT, ETH, OK, SHORT, WARN, at, readings
from decider_spec import Ledger as Story
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from random_stories import Step, ledgers, stories, tell

from domain.controller import fold
from domain.events import Event, KpiObserved
from domain.policy import Policy
from domain.state import Counts, State
from ledger.codec import Record
from replay.what_if import Change, first_divergence, replay_changed, transitions_of
from replay.what_if import Step as Replayed

NOTHING = Change()


def records_of(events: Sequence[Event]) -> list[Record]:
    return [
        Record(stream="dev:bybit", version=version, event=event)
        for version, event in enumerate(events, start=1)
    ]


def replayed(story: Story, window: int, change: Change) -> list[Replayed]:
    """Change the observation of a number, and replay from there."""
    places = [i for i, event in enumerate(story.events) if isinstance(event, KpiObserved)]
    place = places[window]
    before = fold(State(), story.events[:place])
    return list(replay_changed(before, records_of(story.events)[place:], change))


def comparable(state: State) -> State:
    """Return what decides and what may be traded, without what a replay isn't told."""
    observed = state.observed
    if observed is not None:
        observed = replace(observed, feed_position=None, feed_counts={})
    return replace(state, run=None, counts=Counts(), observed=observed)


def changed_transitions(steps: Sequence[Replayed]) -> list[tuple[int, str, str]]:
    return [
        (event.since_ms, event.previous.value, event.state.value)
        for step in steps
        for event in transitions_of(step.changed_events)
    ]


def test_a_better_value_in_the_window_that_froze() -> None:
    story = Story(SHORT, BTC, ETH)
    story.windows(1)
    story.windows(1, BTCUSDT=CRIT)
    story.windows(4)
    steps = replayed(story, 1, Change({BTC: {"risk_ratio": 0.3}}))
    first = steps[0]
    assert first.recorded.trading_state == "FROZEN"
    assert (first.changed.trading_state, first.changed.throttle) == ("ACTIVE", 1.0)
    assert first.changed.observed is not None
    assert first.changed.observed.verdict == "OK"
    assert first_divergence(steps) is first
    assert changed_transitions(steps) == []
    assert steps[-1].changed.ok_windows == 6


def test_a_worse_value_freezes_and_what_followed_unfreezes() -> None:
    story = Story(SHORT)
    story.windows(6)
    steps = replayed(story, 1, Change({BTC: {"edge_bps": 2.0}}))
    assert changed_transitions(steps) == [(at(2), "ACTIVE", "FROZEN"), (at(5), "FROZEN", "ACTIVE")]
    assert [step.at_ms for step in steps] == [at(minute) for minute in range(2, 7)]
    assert [step.is_same_to_trading for step in steps] == [False, False, False, True, True]


def test_an_absent_value_is_no_data() -> None:
    story = Story(Policy(no_data_freeze_windows=1))
    story.windows(2)
    (step, _) = replayed(story, 0, Change({BTC: {"risk_ratio": None}}))
    assert step.changed.reasons == ("risk=no data (1 windows)",)


def test_a_change_that_changes_no_throttle_is_exact_until_it_does() -> None:
    story = Story(Policy(min_warn_windows=3), BTC, ETH)
    story.windows(1, BTCUSDT=WARN)
    story.windows(1, BTCUSDT=WARN)
    story.windows(3)
    # Already WARN for its latency; a bad ratio besides leaves the throttles as they were.
    steps = replayed(story, 1, Change({BTC: {"maker_taker_ratio": 0.5}}))
    assert first_divergence(steps) is None
    # Without the first WARN, and with one later, the count is another.
    steps = replayed(story, 2, Change({BTC: {"p95_latency_ms": 400.0}}))
    assert first_divergence(steps) is steps[0]
    assert steps[0].changed.trading_state == "COOLDOWN"


def test_another_threshold_holds_for_all_windows_after_it() -> None:
    story = Story(Policy(min_warn_windows=2, min_ok_windows=2, unfreeze_after_ok_windows=2))
    story.windows(1)
    story.windows(4, WARN)
    story.windows(2)

    def policy(recorded: Policy) -> Policy:
        return replace(recorded, thresholds={**recorded.thresholds, "max_latency_ms": 360.0})

    steps = replayed(story, 0, Change(policy=policy))
    assert changed_transitions(steps) == []
    divergence = first_divergence(steps)
    assert divergence is not None
    assert divergence.at_ms == at(2), "the symbol was WARN, at 0.5"
    story.adopt(Policy(min_warn_windows=1))
    story.windows(1, WARN)
    steps = replayed(story, 0, Change(policy=policy))
    assert steps[-1].changed.policy.min_warn_windows == 1
    assert steps[-1].changed.policy.thresholds["max_latency_ms"] == 360.0
    assert steps[-1].changed.trading_state == "ACTIVE"
    assert steps[-1].recorded.trading_state == "COOLDOWN"


def test_an_override_that_is_not_allowed_under_the_change_is_left_out() -> None:
    story = Story(SHORT)
    story.windows(1)
    story.override("freeze", minutes=2.0)
    story.windows(1)
    story.clear()
    story.override("unfreeze")
    story.windows(2)
    steps = replayed(story, 0, NOTHING)
    assert all(step.is_same_to_trading for step in steps)
    assert steps[-1].changed.trading_state == "ACTIVE"


@settings(max_examples=200, deadline=None)
@given(story=ledgers(), steps=stories, data=st.data())
def test_changing_nothing_replays_what_was_recorded(
    story: Story, steps: list[Step], data: st.DataObject
) -> None:
    story.windows(1)
    tell(story, steps)
    story.windows(1)
    count = sum(isinstance(event, KpiObserved) for event in story.events)
    found = replayed(story, data.draw(st.integers(0, count - 1)), NOTHING)
    for step in found:
        assert comparable(step.changed) == comparable(step.recorded)
    assert first_divergence(found) is None
    assert comparable(found[-1].recorded) == comparable(story.state)


CHANGES: list[dict[str, Any]] = [
    {"risk_ratio": 0.41}, {"edge_bps": None}, {"p95_latency_ms": 351.0}, {"maker_taker_ratio": 0.9},
    {"anomaly_score": 2.1, "edge_bps": 2.0},
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    story=ledgers(), steps=stories, changed=st.sampled_from(CHANGES), later=stories, data=st.data()
)
def test_what_follows_is_what_the_core_would_have_decided(
    story: Story, steps: list[Step], changed: dict[str, Any], later: list[Step], data: st.DataObject
) -> None:
    """Tell the same story twice, once with the change: the replay ends in the second's state."""
    tell(story, steps)
    symbol = story.state.symbol_names[0]
    other = Story.__new__(Story)
    other.state, other.events = story.state, list(story.events)
    story.windows(1, OK)
    other.windows(1, OK, **{symbol: readings(**changed)})
    window = sum(isinstance(event, KpiObserved) for event in story.events) - 1
    told = tell(story, [step for step in later if type(step).__name__ in {"Window", "Gap"}])
    tell(other, [step for step in later if type(step).__name__ in {"Window", "Gap"}])
    assume(len(told) < 40)
    found = replayed(story, window, Change({symbol: changed}))
    assert comparable(found[-1].changed) == comparable(other.state)
    assert comparable(found[-1].recorded) == comparable(story.state)
