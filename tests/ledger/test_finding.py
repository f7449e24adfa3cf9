"""Finding one's way in any stream: spans, places, and what belongs to one window."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate

import pytest
from audit_support import STREAM, store
from decider_spec import MINUTE_MS, START_MS
from decider_spec import Ledger as Story
from hypothesis import given, settings
from hypothesis import strategies as st
from random_stories import Step, ledgers, stories, tell

from cli.audit_options import Audited, Span
from cli.audit_timeline import entries_in
from domain.events import GapObserved, KpiObserved, StateTransitioned, SymbolThrottleChanged
from ledger.application import Ledger
from ledger.location import LedgerLocation
from ledger.reading import accounted_until, first_observation, observation_of, unit_of
from projections.timeline import timeline_of

law = settings(max_examples=100, deadline=None)


@contextmanager
def told(
    factory: pytest.TempPathFactory, story: Story, steps: list[Step]
) -> Iterator[tuple[Story, Ledger]]:
    """Tell a story of one window and the steps, and give it as a ledger."""
    story.windows(1)
    tell(story, steps)
    path = factory.mktemp("story") / "ledger.sqlite"
    store(path, story.events)
    with Ledger.open(LedgerLocation(path), read_only=True) as ledger:
        yield story, ledger


def places_of(story: Story) -> list[int]:
    """Return, for each event, the end of the last window accounted for."""
    ends = (
        event.end_ms if isinstance(event, KpiObserved | GapObserved) else START_MS
        for event in story.events
    )
    return list(accumulate(ends, max))


@law
@given(story=ledgers(), steps=stories, data=st.data())
def test_a_ledgers_timeline_of_a_span_is_that_of_all_its_records(
    tmp_path_factory: pytest.TempPathFactory,
    story: Story,
    steps: list[Step],
    data: st.DataObject,
) -> None:
    with told(tmp_path_factory, story, steps) as (story, ledger):
        moments = st.integers(-30, 2 * (story.next_window - START_MS) // MINUTE_MS + 30)
        from_ms, to_ms = (START_MS + data.draw(moments) * MINUTE_MS // 2 for _ in range(2))
        span = Span(*data.draw(st.sampled_from([(from_ms, to_ms), (from_ms, None), (None, to_ms)])))
        stream = Audited(ledger, ledger.stream(STREAM), START_MS, story.next_window)
        places = places_of(story)
        every = timeline_of(
            ledger.placed_records(STREAM),
            lambda version: places[version - 1],
            from_ms=span.from_ms,
            to_ms=span.to_ms,
        )
        # An override is told by its own time, which may be in a later window than its place.
        assert list(entries_in(stream, span, violations=True)) == list(every)


@law
@given(story=ledgers(), steps=stories)
def test_every_place_and_every_window_is_found(
    tmp_path_factory: pytest.TempPathFactory, story: Story, steps: list[Step]
) -> None:
    with told(tmp_path_factory, story, steps) as (story, ledger):
        first = first_observation(ledger, STREAM)
        assert first is not None
        assert first.window == START_MS
        for version, place_ms in enumerate(places_of(story), start=1):
            assert accounted_until(ledger, STREAM, version) == place_ms
        observed = {
            event.window: version
            for version, event in enumerate(story.events, start=1)
            if isinstance(event, KpiObserved)
        }
        for window in range(START_MS - MINUTE_MS, story.next_window + MINUTE_MS, MINUTE_MS):
            record = observation_of(ledger, STREAM, window)
            assert (None if record is None else record.version) == observed.get(window)


@law
@given(story=ledgers(), steps=stories)
def test_what_belongs_to_windows_parts_the_stream_without_a_rest(
    tmp_path_factory: pytest.TempPathFactory, story: Story, steps: list[Step]
) -> None:
    with told(tmp_path_factory, story, steps) as (story, ledger):
        version, last = 1, len(story.events)
        while version <= last:
            first, end = unit_of(ledger, STREAM, version)
            assert first == version
            assert {unit_of(ledger, STREAM, inner) for inner in range(first, end + 1)} == {
                (first, end)
            }
            events = story.events[first - 1 : end]
            closing = [isinstance(event, KpiObserved | GapObserved) for event in events]
            assert sum(closing) == 1 or (sum(closing) == 0 and end == last)
            if any(closing):
                own = events[closing.index(True) + 1 :]
                assert all(
                    isinstance(event, StateTransitioned | SymbolThrottleChanged) for event in own
                )
            version = end + 1
