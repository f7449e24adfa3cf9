"""
What windows are decided again from: the one seam between where they are kept and what is done.

A source tells the core's commands, and what was recorded where decisions were. Whatever can give a
stream's events from its beginning is a `RecordedSource`: a ledger, a history. A bundle begins in
the middle. Source: DESIGN.md section 4, `live replay`.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

from domain.commands import AdoptPolicy, Command
from domain.events import Event, PolicyAdopted, RampProfile
from domain.policy import Policy
from domain.state import State
from domain.windows import WindowReadings
from ledger.bundle import Bundle
from replay.commands import commands_of_events, commands_of_windows


class Source(Protocol):
    """Windows to decide again, and what was decided of them."""

    @property
    def name(self) -> str:
        """How the user named it, for messages."""
        ...

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that are decided, in order; all that ever were where they changed."""
        ...

    @property
    def interval_ms(self) -> int:
        """A window's length."""
        ...

    @property
    def before(self) -> State:
        """The state that it begins in: a new one, unless it is a part of something longer."""
        ...

    def commands(self) -> Iterator[Command]:
        """
        Yield what the core is to be told, from the beginning; each call starts again.

        The policy in it is the recorded one, the default one where none was recorded.
        """
        ...

    def recorded(self) -> Iterator[Event] | None:
        """Return the recorded events, from the beginning; None where no decision was recorded."""
        ...


class Windows(Protocol):
    """A series of windows without decisions, such as a KPI file's (`feeds.base.SeriesFeed`)."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols, in order."""
        ...

    @property
    def interval_ms(self) -> int:
        """A window's length."""
        ...

    def windows(self) -> Iterator[WindowReadings]:
        """Yield every window, starts increasing; each call starts again."""
        ...


class SeriesSource:
    """Windows that nobody decided."""

    def __init__(self, name: str, series: Windows, *, profile: RampProfile | None = None) -> None:
        self.name = name
        self.symbols = series.symbols
        self.interval_ms = series.interval_ms
        self.before = State()
        self._series = series
        self._profile = profile

    def commands(self) -> Iterator[Command]:
        """Yield a run over the windows under the default policy."""
        return commands_of_windows(
            self._series.windows(),
            symbols=self.symbols,
            interval_ms=self.interval_ms,
            policy=Policy(),
            profile=self._profile,
        )

    def recorded(self) -> None:
        """Return None: no decision was recorded."""


class RecordedSource:
    """
    What a controller recorded, wherever its events are kept.

    Args:
        name: how the user named it.
        state: the stream's fold, or as much of it as its symbols and interval.
        events: gives the stream's events from the beginning, each time it is called.
        symbols: only these, in this order; None for the recorded ones.
        profile: limits to apply instead of the recorded ones, which hold where it is None.
    """

    def __init__(
        self,
        name: str,
        state: State,
        events: Callable[[], Iterator[Event]],
        *,
        symbols: tuple[str, ...] | None = None,
        profile: RampProfile | None = None,
    ) -> None:
        retired = tuple(memory.symbol for memory in state.retired)
        self.name = name
        self.symbols = (*state.symbol_names, *retired) if symbols is None else symbols
        self.interval_ms = state.interval_ms
        self.before = State()
        self._events = events
        self._selected = symbols
        self._profile = profile

    def commands(self) -> Iterator[Command]:
        """Yield what led to the recorded events."""
        return commands_of_events(
            self.recorded(),
            policy=None,
            symbols=self._selected,
            profile=self._profile,
            keep_profile=self._profile is None,
        )

    def recorded(self) -> Iterator[Event]:
        """Return the stream's events."""
        return self._events()


class BundleSource:
    """
    A stretch of a stream, which begins in the state before it.

    Args:
        profile: limits to apply instead of the recorded ones, which hold where it is None.
    """

    def __init__(self, bundle: Bundle, *, profile: RampProfile | None = None) -> None:
        self.name = str(bundle.path)
        self.interval_ms = bundle.manifest.interval_ms
        self.before = bundle.before
        adopted = [event for event in _events(bundle) if isinstance(event, PolicyAdopted)]
        lists = [bundle.before.symbol_names, *(event.symbols for event in adopted)]
        self.symbols = tuple(dict.fromkeys(symbol for symbols in lists for symbol in symbols))
        self._bundle = bundle
        self._profile = profile

    def commands(self) -> Iterator[Command]:
        """Yield the policy in force before it, for others to be put in its place, then the rest."""
        state = self.before
        if state.symbols:
            yield AdoptPolicy(
                window=state.next_window or 0,
                policy=state.policy,
                symbols=state.symbol_names,
                profile=self._profile or state.profile,
            )
        yield from commands_of_events(
            self.recorded(),
            policy=None,
            symbols=None,
            profile=self._profile,
            keep_profile=self._profile is None,
        )

    def recorded(self) -> Iterator[Event]:
        """Return its events."""
        return _events(self._bundle)


def _events(bundle: Bundle) -> Iterator[Event]:
    return (record.event for record in bundle.records())
