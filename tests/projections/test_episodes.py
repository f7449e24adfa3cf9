"""Episodes: each period in COOLDOWN or FROZEN, with what began and ended it."""

from collections.abc import Sequence

from decider_spec import (
    BTC,
    CRIT,
    ETH,
    OK,
    SHORT,
    START_MS,
    WARN,
    at,
    frozen,
    in_cooldown,
    readings,
)
from decider_spec import Ledger as Story
from hypothesis import given, settings
from random_stories import Step, ledgers, stories, tell

from domain.commands import ObserveClock
from domain.controller import fold
from domain.events import (
    CauseKind,
    Event,
    GapObserved,
    KpiObserved,
    StateTransitioned,
    TradingState,
)
from domain.policy import Policy
from domain.state import State
from ledger.codec import Record
from projections.episodes import EPISODE_EVENTS, Episode, derive_episodes

MINUTE_MS = 60_000


def records_of(events: Sequence[Event]) -> list[Record]:
    return [
        Record(stream="dev:bybit", version=version, event=event, position=version + 100)
        for version, event in enumerate(events, start=1)
    ]


def episodes_of(story: Story) -> list[Episode]:
    return list(derive_episodes(records_of(story.events)))


def test_a_ledger_that_was_always_active_has_none() -> None:
    story = Story(SHORT)
    story.windows(5)
    assert episodes_of(story) == []


def test_a_freeze_and_its_recovery_are_one() -> None:
    story = Story(SHORT, BTC, ETH)
    story.windows(2)
    story.windows(1, ETHUSDT=readings(risk_ratio=0.45, p95_latency_ms=400.0))
    story.windows(2, ETHUSDT=WARN)
    story.windows(3)
    (episode,) = episodes_of(story)
    assert episode == Episode(
        version=6,
        position=106,
        state=TradingState.FROZEN,
        throttle=0.0,
        started_ms=at(3),
        ended_ms=at(8),
        duration_ms=5 * MINUTE_MS,
        previous_state=TradingState.ACTIVE,
        next_state=TradingState.ACTIVE,
        cause=CauseKind.VERDICT,
        reasons=("risk=0.45 > 0.40", "p95_latency=400 > 350"),
        triggered_by=ETH,
        kpi="risk_ratio",
        kpi_verdict="CRIT",
        value=0.45,
        comparator=">",
        threshold=0.40,
        margin=0.45 - 0.40,
        windows=5,
        windows_to_recover=5,
        ended_by=CauseKind.RECOVERY,
        end_reasons=("recovered after 3 OK windows",),
    )
    assert not episode.is_open


def test_getting_worse_ends_the_first_of_two() -> None:
    story = in_cooldown(SHORT)
    story.windows(1, CRIT)
    cooldown, freeze = episodes_of(story)
    assert (cooldown.state, cooldown.started_ms, cooldown.ended_ms) == ("COOLDOWN", at(2), at(3))
    assert (cooldown.kpi, cooldown.value, cooldown.throttle) == ("p95_latency_ms", 360.0, 0.5)
    assert (cooldown.next_state, cooldown.ended_by) == ("FROZEN", "verdict")
    assert cooldown.windows_to_recover is None
    assert (freeze.previous_state, freeze.started_ms) == ("COOLDOWN", at(3))


def test_one_that_is_still_open_lasts_until_the_last_window_known() -> None:
    story = frozen()
    story.windows(4)
    (episode,) = episodes_of(story)
    assert episode.is_open
    assert (episode.duration_ms, episode.windows) == (4 * MINUTE_MS, 4)
    assert (episode.ended_by, episode.next_state, episode.windows_to_recover) == (None, None, None)
    (later,) = derive_episodes(records_of(story.events), until_ms=at(7))
    assert (later.duration_ms, later.windows) == (6 * MINUTE_MS, 6)


def test_a_gap_that_freezes_is_split_where_the_state_changed() -> None:
    story = in_cooldown(Policy(min_warn_windows=2, no_data_freeze_windows=3))
    story.windows(1)
    story.skip(10)
    cooldown, freeze = episodes_of(story)
    assert cooldown.started_ms == at(2)
    assert freeze.started_ms == cooldown.ended_ms == at(6)
    assert (cooldown.windows, cooldown.gap_windows) == (4, 3)
    assert (freeze.windows, freeze.gap_windows) == (7, 7)
    assert freeze.cause is cooldown.ended_by is CauseKind.GAP
    assert freeze.reasons == ("runner down 2026-01-05T14:03Z to 2026-01-05T14:13Z (10 windows)",)
    assert freeze.kpi is freeze.triggered_by is None


def test_no_data_is_a_cause_without_a_value() -> None:
    story = Story(Policy(no_data_freeze_windows=1))
    story.windows(1, readings(risk_ratio=None))
    (episode,) = episodes_of(story)
    assert (episode.kpi, episode.value, episode.no_data_windows) == ("risk_ratio", None, 1)


def test_overrides_meanwhile_are_told_those_before_and_after_are_not() -> None:
    story = Story(SHORT, BTC, ETH)
    story.override("cap", cap=0.4, minutes=1.0)
    story.windows(2)
    story.override("cap", ETH, cap=0.25)
    story.windows(1, CRIT)
    story.override("freeze")
    story.clear()
    story.override("unfreeze")
    story.windows(1)
    story.override("cap", cap=0.9)
    (episode,) = episodes_of(story)
    assert episode.overrides == (
        "cap 0.25 ETHUSDT by kim: drill",
        "freeze by kim: drill",
        "unfreeze by kim: drill",
    )
    assert (episode.ended_by, episode.windows_to_recover) == ("override", None)
    assert episode.end_reasons == ("override unfreeze by kim: drill",)


def test_an_override_that_freezes_begins_an_episode_at_its_own_moment() -> None:
    story = Story(SHORT)
    story.windows(1)
    story.override("freeze", minutes=1.0)
    story.windows(6)
    (episode,) = episodes_of(story)
    assert (episode.started_ms, episode.cause) == (at(1.5), CauseKind.OVERRIDE)
    assert episode.overrides == ("freeze by kim: drill",)
    # The windows that end at 2 and 3 are held; three more lead out.
    assert (episode.windows, episode.ended_ms) == (5, at(6))


def test_a_clock_that_is_behind_and_a_start_in_a_worse_state_are_causes() -> None:
    story = Story(SHORT, published=TradingState.COOLDOWN)
    story.windows(1)
    story.when(ObserveClock(window=at(-5)))
    cooldown, freeze = episodes_of(story)
    assert (cooldown.cause, cooldown.started_ms) == (CauseKind.START, START_MS)
    assert (freeze.cause, freeze.started_ms) == (CauseKind.CLOCK, at(1))
    assert freeze.reasons == ("clock is 300 s behind the ledger",)


@settings(max_examples=150, deadline=None)
@given(story=ledgers(), steps=stories)
def test_episodes_are_all_the_time_that_was_not_active(story: Story, steps: list[Step]) -> None:
    tell(story, steps)
    story.windows(1, OK)
    found = episodes_of(story)
    last_ms = story.next_window
    in_episodes = {
        window
        for episode in found
        for window in range(START_MS, last_ms, MINUTE_MS)
        if episode.started_ms < window + MINUTE_MS <= (episode.ended_ms or last_ms)
    }
    assert sum(episode.windows for episode in found) == len(in_episodes)
    assert [episode.is_open for episode in found[:-1]] == [False] * len(found[:-1])
    is_open = bool(found) and found[-1].is_open
    assert is_open == (story.state.trading_state is not TradingState.ACTIVE)
    began = [event for event in story.events if isinstance(event, StateTransitioned)]
    assert [episode.reasons for episode in found] == [
        event.reasons for event in began if event.state is not TradingState.ACTIVE
    ]
    missing = {
        window
        for event in story.events
        if isinstance(event, GapObserved)
        for window in range(event.window, event.end_ms, MINUTE_MS)
    }
    assert sum(episode.gap_windows for episode in found) == len(in_episodes & missing)


@settings(max_examples=100, deadline=None)
@given(story=ledgers(), steps=stories)
def test_episodes_of_what_they_are_made_from_are_those_of_everything(
    story: Story, steps: list[Step]
) -> None:
    tell(story, steps)
    records = records_of(story.events)
    wanted = [
        record
        for record, following in zip(records, [*records[1:], None], strict=True)
        if isinstance(record.event, EPISODE_EVENTS)
        or (following is not None and isinstance(following.event, StateTransitioned))
    ]
    until_ms = story.next_window
    assert list(derive_episodes(wanted, until_ms=until_ms)) == list(
        derive_episodes(records, until_ms=until_ms)
    )


@settings(max_examples=100, deadline=None)
@given(story=ledgers(), steps=stories)
def test_episodes_from_the_middle_on_are_those_that_begin_there(
    story: Story, steps: list[Step]
) -> None:
    tell(story, steps)
    records = records_of(story.events)
    every = episodes_of(story)
    for version in range(len(records)):
        before = fold(State(), story.events[:version])
        if version and isinstance(story.events[version - 1], KpiObserved | GapObserved):
            continue  # A decision is read whole.
        found = derive_episodes(
            records[version:],
            interval_ms=MINUTE_MS,
            in_force=before.overrides_in_force,
            until_ms=story.next_window,
        )
        assert list(found) == [
            episode for episode in derive_episodes(records, until_ms=story.next_window)
            if episode.version > version
        ]  # fmt: skip
    assert len(every) == story.state.counts.transitions - sum(
        isinstance(event, StateTransitioned) and event.state is TradingState.ACTIVE
        for event in story.events
    )
