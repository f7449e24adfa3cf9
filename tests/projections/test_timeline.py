"""The timeline tells every event that says more than that a window was OK, in order, in words."""

from collections.abc import Callable
from itertools import accumulate

from decider_spec import BTC, CRIT, ETH, SHORT, START_MS, WARN, at, profile
from decider_spec import Ledger as Story
from hypothesis import given, settings
from random_stories import Step, ledgers, stories, tell

from domain.commands import ObserveWindow, StopRun
from domain.events import Event, GapObserved, KpiObserved, OverrideApplied
from domain.windows import SymbolReadings, WindowReadings
from ledger.codec import Record
from projections.timeline import TimelineEntry, timeline_of


def records_of(events: list[Event]) -> list[Record]:
    return [
        Record(stream="dev:bybit", version=version, event=event, position=version + 10)
        for version, event in enumerate(events, start=1)
    ]


def place_in(records: list[Record]) -> Callable[[int], int]:
    ends = accumulate(
        (
            record.event.end_ms if isinstance(record.event, KpiObserved | GapObserved) else 0
            for record in records
        ),
        max,
    )
    places = [end or START_MS for end in ends]
    return lambda version: places[version - 1]


def entries(
    story: Story, from_ms: int | None = None, to_ms: int | None = None
) -> list[TimelineEntry]:
    records = records_of(story.events)
    return list(timeline_of(records, place_in(records), from_ms=from_ms, to_ms=to_ms))


def texts(story: Story, from_ms: int | None = None, to_ms: int | None = None) -> list[str]:
    return [entry.text for entry in entries(story, from_ms, to_ms)]


def test_a_freeze_is_told_with_its_run_its_policy_and_its_throttles() -> None:
    story = Story(SHORT, BTC, ETH, limits=profile(2))
    story.windows(2)
    story.windows(1, BTCUSDT=CRIT)
    told = [(entry.version, entry.position, entry.at_ms, entry.text) for entry in entries(story)]
    adopted = f"policy {SHORT.hash[:12]} adopted for BTCUSDT, ETHUSDT"
    assert told == [
        (1, 11, at(0), "run run-1 started: mock, version 0.1.0, by its clock 2026-01-05T14:00:00Z"),
        (2, 12, at(0), f"{adopted} (profile P, 300 USD, 2 symbols)"),
        (5, 15, at(3), "window 2026-01-05T14:02:00Z CRIT: BTCUSDT risk=0.45 > 0.40"),
        (6, 16, at(3), "ACTIVE -> FROZEN (throttle 0): BTCUSDT risk=0.45 > 0.40"),
        (7, 17, at(3), "BTCUSDT may trade 1 -> 0"),
        (8, 18, at(3), "ETHUSDT may trade 1 -> 0"),
    ]  # fmt: skip


def test_everything_else_is_told_too() -> None:
    story = Story(SHORT, BTC, ETH)
    story.windows(2)
    story.override("cap", ETH, cap=0.25, minutes=20.0)
    late = WindowReadings(start_ms=at(0), symbols={BTC: SymbolReadings(kpis={"risk_ratio": 0.1})})
    story.when(ObserveWindow(readings=late, recorded_content="another"))
    story.skip(3)
    story.windows(1, ETHUSDT=WARN)
    story.clear(at(6))
    story.when(StopRun(run_id="run-1", reason="stopped by a signal", at_ms=at(99)))
    told = [(entry.at_ms, entry.kind, entry.symbol, entry.text) for entry in entries(story)]
    assert (
        at(2.5), "override_applied", ETH,
        "override cap by kim: drill (0.25 for ETHUSDT, until 2026-01-05T14:22:30Z; cap-4)",
    ) in told  # fmt: skip
    assert (
        at(2), "late_window_observed", BTC,
        "late window 2026-01-05T14:00:00Z, recorded and not decided",
    ) in told  # fmt: skip
    assert (
        at(2), "gap_observed", None,
        "gap: runner down 2026-01-05T14:02Z to 2026-01-05T14:05Z (3 windows)",
    ) in told  # fmt: skip
    assert (at(6), "override_ended", None, "override cap-4 ended by kim") in told
    assert told[-1] == (
        at(6), "run_stopped", None,
        "run run-1 stopped: stopped by a signal, by its clock 2026-01-05T15:39:00Z",
    )  # fmt: skip


def test_a_change_of_the_policy_is_told_with_what_changed() -> None:
    story = Story(SHORT)
    story.windows(1)
    looser = type(SHORT)(min_warn_windows=2, min_ok_windows=2, unfreeze_after_ok_windows=2)
    story.adopt(looser)
    assert texts(story)[-1] == (
        f"policy {looser.hash[:12]} adopted: unfreeze_after_ok_windows: 3 -> 2 (loosens)"
    )


def test_a_throttle_that_changed_by_its_own_kpis_alone_is_told_as_that() -> None:
    story = Story(SHORT, BTC, ETH)
    story.windows(1, BTCUSDT=CRIT)
    story.windows(1, BTCUSDT=CRIT, ETHUSDT=WARN)
    assert texts(story)[-1] == "ETHUSDT by its own KPIs 1 -> 0.5; it may still trade 0"


def test_a_span_holds_its_start_and_not_its_end() -> None:
    story = Story(SHORT)
    story.windows(2)
    story.windows(1, CRIT)
    freeze = texts(story, at(3), at(4))
    assert freeze[1] == "ACTIVE -> FROZEN (throttle 0): BTCUSDT risk=0.45 > 0.40"
    assert texts(story, at(2), at(3)) == []
    assert texts(story, at(3) + 1) == []
    assert texts(story, None, at(3)) == texts(story)[:2]


def test_a_gap_is_told_if_any_part_of_it_lies_in_the_span() -> None:
    story = Story(SHORT)
    story.windows(2)
    story.skip(10)
    gap = "gap: runner down 2026-01-05T14:02Z to 2026-01-05T14:12Z (10 windows)"
    spans = ((0, 2), (0, 2.1), (11, 20), (12, 20))
    told = [gap in texts(story, at(first), at(last)) for first, last in spans]
    assert told == [False, True, True, False]


def test_a_freeze_that_waited_for_a_runner_is_told_where_it_came_into_force() -> None:
    story = Story(SHORT)
    story.windows(10)
    story.override("freeze", at_ms=at(2.5))
    assert isinstance(story.events[-3], OverrideApplied)
    assert "override freeze by kim: drill (all symbols; freeze-12)" in texts(story, at(9), at(11))
    assert entries(story, at(9))[0].at_ms == at(2.5)


@settings(max_examples=100, deadline=None)
@given(story=ledgers(), steps=stories)
def test_every_event_is_told_once_in_order_but_windows_that_were_ok(
    story: Story, steps: list[Step]
) -> None:
    tell(story, steps)
    told = entries(story)
    assert [entry.version for entry in told] == [
        version
        for version, event in enumerate(story.events, start=1)
        if not (isinstance(event, KpiObserved) and event.verdict == "OK")
    ]
    assert all(entry.text and entry.text.isprintable() for entry in told)


@settings(max_examples=60, deadline=None)
@given(story=ledgers(), steps=stories)
def test_parts_that_meet_tell_everything_once_but_gaps_across_them(
    story: Story, steps: list[Step]
) -> None:
    tell(story, steps)
    whole = entries(story)
    middle = (START_MS + story.next_window) // 2
    first, second = entries(story, None, middle), entries(story, middle, None)
    twice = {entry.version for entry in first} & {entry.version for entry in second}
    assert {entry.kind for entry in whole if entry.version in twice} <= {"gap_observed"}
    assert {entry.version for entry in first + second} == {entry.version for entry in whole}
