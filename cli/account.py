"""
Telling, in a line each, what happened where something did.
"""

from collections.abc import Iterable, Iterator

from domain.events import (
    ClockFault,
    Event,
    ExternalWriteDetected,
    GapObserved,
    KpiObserved,
    LateWindowObserved,
    OverrideApplied,
    OverrideEnded,
    PolicyAdopted,
    StateTransitioned,
    SymbolThrottleChanged,
    TradedWhileFrozen,
)
from domain.windows import format_time
from projections.wording import in_words


def tell(events: Iterable[Event]) -> Iterator[str]:
    """Yield a line for each event that changed something, in order."""
    for event in events:
        line = _line(event)
        if line is not None:
            yield line


def _line(event: Event) -> str | None:  # noqa: PLR0911 - one return a case
    match event:
        case StateTransitioned():
            return f"{format_time(event.since_ms)}  {in_words(event)}"
        case SymbolThrottleChanged() if event.effective_before != event.effective:
            return f"{format_time(event.at_ms)}    {in_words(event)}"
        case GapObserved() | LateWindowObserved():
            return f"{format_time(event.window)}  {in_words(event)}"
        case ClockFault():
            return f"{format_time(event.last_window)}  {in_words(event)}"
        case PolicyAdopted() if event.changes:
            return in_words(event)
        case OverrideApplied():
            return f"{format_time(event.override.applied_at_ms)}  {in_words(event)}"
        case TradedWhileFrozen():
            return f"{format_time(event.filled_at_ms)}  {in_words(event)}"
        case ExternalWriteDetected() | OverrideEnded():
            return f"{format_time(event.at_ms)}  {in_words(event)}"
        case _:
            return None


def count_decided(events: Iterable[Event]) -> int:
    """Return how many windows were decided."""
    return sum(isinstance(event, KpiObserved) for event in events)
