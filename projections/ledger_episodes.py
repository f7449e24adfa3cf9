"""
The episodes of a ledger's stream, without reading what lies between them.

Snapshots say how many transitions there had been: a stretch between two of them in which that
number stays the same and the state is ACTIVE holds no part of an episode.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise

from domain.events import CauseKind, StateTransitioned, TradingState
from ledger.application import Ledger, StreamState
from ledger.codec import Record
from projections.episodes import EPISODE_EVENTS, Episode, derive_episodes


def episodes_of_stream(
    ledger: Ledger, stream: StreamState, *, after: int = 0, up_to: int | None = None
) -> Iterator[Episode]:
    """
    Yield the stream's episodes in order.

    Args:
        stream: as it is now: an episode that is open now lasts until its last window.
        after, up_to: versions; an episode that was over before the first, or begins after the
            last, may be left out.
    """
    marks = [StreamState(stream.id), *_before(ledger.snapshots_of(stream.id), stream), stream]
    for begin, end in _stretches(marks, after, stream.version if up_to is None else up_to):
        records = ledger.placed_records(
            stream.id, after=begin.version, up_to=end.version, kinds=EPISODE_EVENTS
        )
        yield from derive_episodes(
            _with_deciding(ledger, records),
            until_ms=end.state.next_window,
            interval_ms=begin.state.interval_ms,
            in_force=begin.state.overrides_in_force,
        )


def _before(marks: Iterable[StreamState], stream: StreamState) -> Iterator[StreamState]:
    return (mark for mark in marks if mark.version < stream.version)


def _stretches(
    marks: list[StreamState], after: int, up_to: int
) -> Iterator[tuple[StreamState, StreamState]]:
    """Yield the stretches that hold whole episodes: ACTIVE where they begin, and at their end."""
    begin: StreamState | None = None
    for mark, following in pairwise(marks):
        is_active = mark.state.trading_state is TradingState.ACTIVE
        if is_active and begin is not None:
            yield begin, mark
            begin = None
        if is_active and mark.version > up_to:
            return
        is_quiet = mark.state.counts.transitions == following.state.counts.transitions
        is_over = following.version <= after and (
            following.state.trading_state is TradingState.ACTIVE
        )
        if begin is None and not (is_active and (is_quiet or is_over)):
            begin = mark
    if begin is not None:
        yield begin, marks[-1]


def _with_deciding(ledger: Ledger, records: Iterable[Record]) -> Iterator[Record]:
    """Yield the records, and before a transition the window or the gap that decided it."""
    last_version = 0
    for record in records:
        event = record.event
        if (
            isinstance(event, StateTransitioned)
            and event.cause in (CauseKind.VERDICT, CauseKind.GAP)
            and record.version - 1 > last_version
        ):
            yield from ledger.page(record.stream, after=record.version - 2, limit=1)
        yield record
        last_version = record.version
