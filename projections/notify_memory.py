"""
What the planning of notifications remembers of a stream: what was told of which episode, and when.

All values are frozen, and are kept in the ledger beside the stream (`projections.notify_log`), so
that fields are only ever added, with a default.
"""

from collections.abc import Iterator, Sequence

import msgspec

from domain.controller import fold
from domain.events import (
    Event,
    ExternalWriteDetected,
    OverrideApplied,
    OverrideEnded,
    StateTransitioned,
    SymbolThrottleChanged,
    TradedWhileFrozen,
    TradingState,
)
from domain.state import State
from ledger.codec import Record


class Episode(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    From the state leaving ACTIVE until it is ACTIVE again, and on if it soon leaves it again.

    Attributes:
        id: the stream's id and the version that it began at.
        began_ms: when it began the first time.
        times: how often it has begun.
        ended_ms: when the state became ACTIVE again; None while it isn't.
        told: the state that was told last. ACTIVE: nothing was, or its end.
        told_ms: by state, when it was last told as a turn for the worse.
    """

    id: str
    began_ms: int
    times: int = 1
    ended_ms: int | None = None
    told: TradingState = TradingState.ACTIVE
    told_ms: dict[str, int] = {}


class FrozenSymbol(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    A symbol that is frozen on its own: when that was told, and since when it no longer is.

    `episode` is empty if it was so already when notifications began: it wasn't told.
    """

    episode: str
    told_ms: int
    recovered_ms: int | None = None


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A kind of event that may come over and over: what was told last, and what was not since."""

    episode: str
    told_ms: int
    held_back: int = 0


class Memory(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    All of it.

    Attributes:
        episode: the present or the last one; None before the first.
        symbols: by symbol, those told to be frozen on their own.
        told: by what repeats itself, such as a symbol's fills while frozen.
    """

    episode: Episode | None = None
    symbols: dict[str, FrozenSymbol] = {}
    told: dict[str, Told] = {}


class Happening(msgspec.Struct, frozen=True):
    """
    What happened at once: a window with all that followed from it, or some events of one kind.

    Attributes:
        records: never empty; the first one's kind says what it is.
        before, after: the stream's state.
    """

    records: tuple[Record, ...]
    before: State
    after: State

    @property
    def head(self) -> Event:
        """The first event."""
        return self.records[0].event

    @property
    def transition(self) -> StateTransitioned | None:
        """The transition that is part of it, if one is."""
        for record in self.records:
            if isinstance(record.event, StateTransitioned):
                return record.event
        return None

    @property
    def version(self) -> int:
        """The version of its first event."""
        return self.records[0].version


_FOLLOWERS = (StateTransitioned, SymbolThrottleChanged)
_TOGETHER = (OverrideApplied, OverrideEnded, ExternalWriteDetected, TradedWhileFrozen)


def memory_at(state: State, stream: str, version: int) -> Memory:
    """
    Return what is remembered where notifications begin: whatever is under way wasn't told.

    It belongs to an episode all the same, which may get worse and which ends untold otherwise.
    """
    began_ms = state.since_ms or 0
    untold = FrozenSymbol(episode="", told_ms=began_ms)
    symbols = dict.fromkeys((each.symbol for each in state.symbols if each.frozen), untold)
    if state.trading_state is TradingState.ACTIVE:
        return Memory(symbols=symbols)
    episode = Episode(id=f"{stream}#{version}", began_ms=began_ms)
    return Memory(episode=episode, symbols=symbols)


def happenings(state: State, records: Sequence[Record]) -> Iterator[Happening]:
    """
    Yield what happened, in order, from the state before the first record on.

    What was noticed at the same moment, such as fills of several symbols, is one; it is one again
    whenever it is read again, because that moment is recorded with it.
    """
    group: list[Record] = []
    for record in records:
        if group and not _belongs(group, record):
            happening = _happening(state, group)
            yield happening
            state, group = happening.after, []
        group.append(record)
    if group:
        yield _happening(state, group)


def _happening(state: State, group: Sequence[Record]) -> Happening:
    return Happening(tuple(group), state, fold(state, [record.event for record in group]))


def _belongs(group: Sequence[Record], record: Record) -> bool:
    if isinstance(record.event, _FOLLOWERS):
        return True
    head = group[0]
    return (
        isinstance(record.event, _TOGETHER)
        and type(record.event) is type(head.event)
        and record.decided_at_ms == head.decided_at_ms
        and not any(isinstance(each.event, StateTransitioned) for each in group)
    )
