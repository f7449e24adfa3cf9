"""Episodes of a ledger are those of its events, however many stretches are left unread."""

from pathlib import Path

import pytest
from audit_support import STREAM, shorten_blocks, store
from decider_spec import CRIT, SHORT
from decider_spec import Ledger as Story
from hypothesis import given, settings
from hypothesis import strategies as st
from random_stories import Step, ledgers, stories, tell

from ledger.application import Ledger
from ledger.location import LedgerLocation
from projections.episodes import derive_episodes
from projections.ledger_episodes import episodes_of_stream


@settings(max_examples=80, deadline=None)
@given(story=ledgers(), steps=stories, block=st.integers(2, 9), data=st.data())
def test_a_ledgers_episodes_are_those_of_all_its_events(
    tmp_path_factory: pytest.TempPathFactory,
    story: Story,
    steps: list[Step],
    block: int,
    data: st.DataObject,
) -> None:
    story.windows(1)
    tell(story, steps)
    path = tmp_path_factory.mktemp("story") / "ledger.sqlite"
    store(path, story.events)
    with pytest.MonkeyPatch.context() as patch, Ledger.open(LedgerLocation(path)) as ledger:
        shorten_blocks(patch, block)
        stream = ledger.stream(STREAM)
        list(ledger.fill_in_snapshots(STREAM, up_to=stream.version))
        every = list(
            derive_episodes(ledger.placed_records(STREAM), until_ms=stream.state.next_window)
        )
        assert list(episodes_of_stream(ledger, stream)) == every
        after = data.draw(st.integers(0, stream.version))
        up_to = data.draw(st.integers(after, stream.version))
        some = list(episodes_of_stream(ledger, stream, after=after, up_to=up_to))
        assert [episode for episode in every if episode in some] == some
        ends = {episode.version: episode.ended_ms for episode in every}
        known_ms = ledger.stream(STREAM, version=max(1, after)).state.next_window or 0
        for episode in every:
            ended_ms = ends[episode.version]
            if episode.version <= up_to and (ended_ms is None or ended_ms > known_ms):
                assert episode in some


def test_stretches_without_a_transition_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_blocks(monkeypatch, 10)
    story = Story(SHORT)
    story.windows(40)
    story.windows(1, CRIT)
    story.windows(40)
    path = tmp_path / "ledger.sqlite"
    store(path, story.events)
    with Ledger.open(LedgerLocation(path)) as ledger:
        stream = ledger.stream(STREAM)
        list(ledger.fill_in_snapshots(STREAM, up_to=stream.version))
        asked: list[tuple[int, int | None]] = []
        placed_records = ledger.placed_records

        def asking(stream_id: str, *, after: int, up_to: int | None, kinds: tuple[type, ...]):  # type: ignore[no-untyped-def]
            asked.append((after, up_to))
            return placed_records(stream_id, after=after, up_to=up_to, kinds=kinds)

        monkeypatch.setattr(ledger, "placed_records", asking)
        (episode,) = episodes_of_stream(ledger, stream)
    assert episode.version == 44
    assert asked == [(39, 49)]
