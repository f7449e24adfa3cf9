"""
What shadows decided beside their controller: the windows that all of them have, and how they agree.

Source: issue 6, Shadow policies.
"""

from collections.abc import Iterable, Mapping

import msgspec

from domain.errors import CannotTell, LedgerDamaged
from domain.events import Event
from domain.state import State
from domain.windows import format_time
from replay.tracks import STATES, Decided, Timeline, Track, track_of_events


class Agreement(msgspec.Struct, frozen=True):
    """
    How a shadow's decisions and the controller's agree, over the windows that both decided.

    Attributes:
        windows: how many; `first` and `last` are their starts.
        agreeing: with the same global state and the same effective throttle of every symbol.
        looser, tighter: with a higher, with a lower effective throttle of some symbol.
        states: windows by the controller's state and the shadow's: `ACTIVE/FROZEN`.
        first_difference: the first window in which they don't agree.
    """

    name: str
    windows: int
    first: str | None
    last: str | None
    agreeing: int
    looser: int
    tighter: int
    states: dict[str, int]
    first_difference: str | None

    @property
    def share(self) -> float:
        """The agreeing windows, of all."""
        return self.agreeing / self.windows if self.windows else 0.0


class Decisions(msgspec.Struct, frozen=True):
    """A stream's windows and what was decided of them."""

    timeline: Timeline
    track: Track


def decisions_of(events: Iterable[Event], name: str, interval_ms: int) -> Decisions:
    """Return a stream's windows and decisions, from its recorded events."""
    timeline = Timeline(interval_ms)
    return Decisions(timeline, track_of_events(events, name, timeline, before=State()))


def decided_beside(live: Decisions, shadows: Iterable[Decisions]) -> Decided:
    """
    Return what the controller and its shadows decided, over the windows that all of them have.

    Raises:
        CannotTell: if there is no such window.
        LedgerDamaged: if a shadow lacks one of the controller's windows in between.
    """
    shadows = list(shadows)
    everyone = [live, *shadows]
    if not all(len(one.timeline) for one in everyone):
        raise CannotTell("a shadow has decided no window yet")
    start_ms = max(one.timeline.starts_ms[0] for one in everyone)
    end_ms = min(one.timeline.end_ms(len(one.timeline) - 1) for one in everyone)
    if start_ms >= end_ms:
        raise CannotTell("the shadows have no window in common")
    parts = [_between(one, start_ms, end_ms) for one in everyone]
    for part in parts[1:]:
        if part.timeline.starts_ms != parts[0].timeline.starts_ms:
            raise LedgerDamaged(
                f"shadow {part.track.name}: expected the controller's windows from "
                f"{format_time(start_ms)} on, was others"
            )
    return Decided(parts[0].timeline, parts[0].track, [part.track for part in parts[1:]])


def agree(live: Decisions, shadow: Decisions, last: int | None) -> Agreement:
    """
    Return how a shadow agrees with the controller.

    Args:
        last: only so many windows, the last that both decided; None for all.
    """
    ours, theirs = _decided_rows(live.timeline), _decided_rows(shadow.timeline)
    common = [start_ms for start_ms in ours if start_ms in theirs][-last if last else 0 :]
    symbols = tuple({**dict.fromkeys(live.track.effective.symbols)})
    agreeing = looser = tighter = 0
    states: dict[str, int] = {}
    first_difference = None
    for start_ms in common:
        row, other = ours[start_ms], theirs[start_ms]
        mine, its = live.track.states[row], shadow.track.states[other]
        pair = f"{STATES[mine]}/{STATES[its]}"
        states[pair] = states.get(pair, 0) + 1
        throttles = [
            (live.track.effective.of(symbol)[row], shadow.track.effective.of(symbol)[other])
            for symbol in symbols
        ]
        is_looser = any(theirs_ > ours_ for ours_, theirs_ in throttles)
        is_tighter = any(theirs_ < ours_ for ours_, theirs_ in throttles)
        looser += is_looser
        tighter += is_tighter
        if mine == its and not is_looser and not is_tighter:
            agreeing += 1
        elif first_difference is None:
            first_difference = format_time(start_ms)
    return Agreement(
        name=shadow.track.name,
        windows=len(common),
        first=format_time(common[0]) if common else None,
        last=format_time(common[-1]) if common else None,
        agreeing=agreeing,
        looser=looser,
        tighter=tighter,
        states=states,
        first_difference=first_difference,
    )


def _decided_rows(timeline: Timeline) -> Mapping[int, int]:
    """Return the rows of windows that were decided, by their start."""
    return {
        start_ms: row
        for row, (start_ms, is_gap) in enumerate(
            zip(timeline.starts_ms, timeline.is_gap, strict=True)
        )
        if not is_gap
    }


def _between(one: Decisions, start_ms: int, end_ms: int) -> Decisions:
    """Return the rows that lie within a time."""
    rows = [
        row
        for row, at_ms in enumerate(one.timeline.starts_ms)
        if at_ms >= start_ms and one.timeline.end_ms(row) <= end_ms
    ]
    first, end = (rows[0], rows[-1] + 1) if rows else (0, 0)
    return Decisions(one.timeline.part(first, end), one.track.part(first, end))
