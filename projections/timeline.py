"""
What happened, in order, in words: one entry an event, windows that were decided as usual left out.

Entries stand in the ledger's order, whatever times they carry: a version orders, never a clock.
Source: issue 5, `live audit timeline`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, get_args

import msgspec

from domain.events import (
    Event,
    ExternalWriteDetected,
    GapObserved,
    KpiObserved,
    LateWindowObserved,
    OverrideApplied,
    OverrideEnded,
    StateTransitioned,
    SymbolThrottleChanged,
    TradedWhileFrozen,
)
from domain.kpis import Verdict
from ledger.codec import EVENT_NAMES, Record
from projections.wording import in_words

TIMELINE_EVENTS: Final[tuple[type, ...]] = tuple(
    kind for kind in get_args(Event) if kind is not KpiObserved
)

PlaceOf = Callable[[int], int]
"""Returns, for a version, the end of the last window accounted for up to it, ms UTC."""


class TimelineEntry(msgspec.Struct, frozen=True):
    """
    One event in words.

    Attributes:
        version, position: its place in its stream, and among the events of all streams.
        at_ms: when it took effect; of what has no time of its own (runs, policies, late windows,
            clock faults), the end of the last window accounted for then.
        kind: the event's stored name, without its version: `state_transitioned`.
        symbol: the one symbol that it is about; None for all.
        text: what happened.
    """

    version: int
    position: int | None
    at_ms: int
    kind: str
    symbol: str | None
    text: str


def timeline_of(
    records: Iterable[Record],
    place_of: PlaceOf,
    *,
    from_ms: int | None = None,
    to_ms: int | None = None,
) -> Iterator[TimelineEntry]:
    """
    Yield an entry for each record that happened from one time up to, not including, another.

    Args:
        records: of `TIMELINE_EVENTS`; with windows among them, those that were not OK are told.
        place_of: asked where an event carries no time of its own, and for overrides.
        from_ms, to_ms: a gap is told if any part of it lies between them.
    """
    moment_ms: int | None = None
    for record in records:
        event = record.event
        if isinstance(event, KpiObserved) and event.verdict is Verdict.OK:
            continue
        own_ms = own_time(event)
        at_ms = place_of(record.version) if own_ms is None else own_ms
        moment_ms = at_ms if moment_ms is None else max(at_ms, moment_ms)
        if isinstance(event, OverrideApplied):
            # What was asked for long before, as a freeze that waited for a runner, counts by where
            # it came into force; and so does what followed from it, or from a clock set back.
            moment_ms = max(moment_ms, place_of(record.version))
        if to_ms is not None and moment_ms >= to_ms:
            continue
        ends_ms = event.end_ms if isinstance(event, GapObserved) else moment_ms + 1
        if from_ms is not None and ends_ms <= from_ms:
            continue
        yield TimelineEntry(
            version=record.version,
            position=record.position,
            at_ms=at_ms,
            kind=kind_of(event),
            symbol=symbol_of(event),
            text=in_words(event),
        )


def kind_of(event: Event) -> str:
    """Return an event's stored name without its version."""
    return EVENT_NAMES[type(event)].split(".")[0]


def own_time(event: Event) -> int | None:  # noqa: PLR0911 - one return a case
    """
    Return when an event took effect in the stream's own time; None if it doesn't say.

    A run's times are its machine's, which for a recorded file are years after its windows.
    """
    match event:
        case StateTransitioned():
            return event.since_ms
        case KpiObserved():
            return event.end_ms
        case GapObserved():
            return event.window
        case SymbolThrottleChanged() | OverrideEnded() | ExternalWriteDetected():
            return event.at_ms
        case OverrideApplied():
            return event.override.applied_at_ms
        case TradedWhileFrozen():
            return event.filled_at_ms
        case _:
            return None


def symbol_of(event: Event) -> str | None:
    """Return the one symbol that an event is about; None if it is about all."""
    match event:
        case SymbolThrottleChanged() | TradedWhileFrozen():
            return event.symbol
        case OverrideApplied():
            return event.override.symbol
        case LateWindowObserved() if len(event.symbols) == 1:
            return next(iter(event.symbols))
        case _:
            return None
