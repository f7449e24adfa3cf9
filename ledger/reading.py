"""
Finding one's way in a stream by time: windows stand in it in order, so it can be bisected.
"""

from collections.abc import Callable
from itertools import takewhile
from typing import Final

from domain.events import (
    CauseKind,
    ExternalWriteDetected,
    GapObserved,
    KpiObserved,
    OverrideApplied,
    OverrideEnded,
    PolicyAdopted,
    RunStarted,
    RunStopped,
    StateTransitioned,
    SymbolThrottleChanged,
    TradedWhileFrozen,
)
from ledger.application import Ledger, StreamState
from ledger.codec import Record

PROBE: Final = 4
"""How many records a probe reads at a time to come upon one that observed a window."""


def first_version_from(ledger: Ledger, stream_id: str, window: int) -> int:
    """
    Return the version of the first record that observes this window or a later one.

    One more than the last version if there is none.
    """
    before = _last_observed(ledger, stream_id, lambda observed: observed.window < window)
    return _observation_from(ledger, stream_id, before + 1)[0]


def last_version_up_to(ledger: Ledger, stream_id: str, window: int) -> int:
    """Return the version of the last record that observes this window or an earlier one, else 0."""
    return _last_observed(ledger, stream_id, lambda observed: observed.window <= window)


def stream_at_time(ledger: Ledger, stream_id: str, time_ms: int) -> StreamState:
    """
    Return the stream as it was known at a time, by its windows' own times.

    The windows that had ended are in it, and what was done after the last of them up to that
    time; a gap that was seen only afterwards is not. Late windows change nothing and carry no time
    of their own: one that was recorded among these is counted. Before the end of the first window
    it is empty.
    """
    version = _last_observed(ledger, stream_id, lambda observed: observed.end_ms <= time_ms)
    if version == 0:
        return StreamState(stream_id)
    while page := ledger.page(stream_id, after=version, limit=PROBE):
        known = [record.version for record in takewhile(_known_at(time_ms), page)]
        version = known[-1] if known else version
        if len(known) < len(page):
            break
    return ledger.stream(stream_id, version=version)


def versions_between(
    ledger: Ledger, stream_id: str, from_ms: int | None, to_ms: int | None
) -> tuple[int, int]:
    """
    Return the versions in which all lies that happened from one time to before another.

    Returns:
        The version before the first, and the last. What happened just before or after may lie in
        them too: events say their own times. None for a time is the stream's beginning or end.
    """
    after = 0
    if from_ms is not None:
        after = _last_observed(ledger, stream_id, lambda observed: observed.end_ms < from_ms)
    if to_ms is None:
        return after, ledger.last_version(stream_id)
    before = _last_observed(ledger, stream_id, lambda observed: observed.end_ms < to_ms)
    return after, _observation_from(ledger, stream_id, before + 1)[0] - 1


def units_between(
    ledger: Ledger, stream_id: str, from_ms: int | None, to_ms: int | None
) -> tuple[int, int]:
    """
    Return the versions of all that belongs to the windows that start in a span, the end exclusive.

    Returns:
        The version before the first, and the last; see `unit_of`. None for a time is the stream's
        beginning or end.
    """
    last = ledger.last_version(stream_id)

    def before(window: int) -> int:
        version = first_version_from(ledger, stream_id, window)
        return last if version > last else unit_of(ledger, stream_id, version)[0] - 1

    after = 0 if from_ms is None else before(from_ms)
    return after, last if to_ms is None else before(to_ms)


def first_observation(ledger: Ledger, stream_id: str) -> KpiObserved | None:
    """Return the stream's first window, None if there is none yet."""
    return _observation_from(ledger, stream_id, 1)[1]


def observation_of(ledger: Ledger, stream_id: str, window: int) -> Record | None:
    """Return the record that observed a window, None if it was missing or isn't there."""
    version = first_version_from(ledger, stream_id, window)
    for record in ledger.page(stream_id, after=version - 1, limit=1):
        if isinstance(record.event, KpiObserved) and record.event.window == window:
            return record
    return None


def unit_of(ledger: Ledger, stream_id: str, version: int) -> tuple[int, int]:
    """
    Return the first and the last version of all that belongs to one window, or to one gap.

    That is what came after the window before, up to this window's own events: its observation, the
    transition that it caused, and what changed with its end. After the last window it is what has
    come since.
    """
    closing = _closing_before(ledger, stream_id, version + 1)
    if closing is not None and _own_events_end(ledger, closing) >= version:
        before = _closing_before(ledger, stream_id, closing.version)
    else:
        before, closing = closing, _closing_after(ledger, stream_id, version)
    first = 1 if before is None else _own_events_end(ledger, before) + 1
    last = ledger.last_version(stream_id) if closing is None else _own_events_end(ledger, closing)
    return first, last


def _closing_before(ledger: Ledger, stream_id: str, version: int) -> Record | None:
    """Return the last record before a version that accounts for windows; None without one."""
    before = version
    while before > 1:
        after = max(0, before - 1 - PROBE)
        for record in reversed(ledger.page(stream_id, after=after, limit=before - 1 - after)):
            if isinstance(record.event, KpiObserved | GapObserved):
                return record
        before = after + 1
    return None


def _closing_after(ledger: Ledger, stream_id: str, version: int) -> Record | None:
    """Return the first record after a version that accounts for windows; None without one."""
    after = version
    while page := ledger.page(stream_id, after=after, limit=PROBE):
        for record in page:
            if isinstance(record.event, KpiObserved | GapObserved):
                return record
        after = page[-1].version
    return None


def _own_events_end(ledger: Ledger, closing: Record) -> int:
    """Return the last version of what follows from a window or a gap."""
    event = closing.event
    assert isinstance(event, KpiObserved | GapObserved)
    last = closing.version
    while page := ledger.page(closing.stream, after=last, limit=PROBE):
        for record in page:
            match record.event:
                case StateTransitioned(
                    cause=CauseKind.VERDICT | CauseKind.RECOVERY | CauseKind.GAP
                ):
                    pass
                case SymbolThrottleChanged(at_ms=event.end_ms):
                    pass
                case _:
                    return last
            last = record.version
    return last


def accounted_until(ledger: Ledger, stream_id: str, version: int) -> int | None:
    """
    Return the end of the last window, observed or missing, up to a version; ms UTC.

    Before the first window it is that one's start; None if there is no window at all.
    """
    closing = _closing_before(ledger, stream_id, version + 1)
    if closing is not None and isinstance(closing.event, KpiObserved | GapObserved):
        return closing.event.end_ms
    first = first_observation(ledger, stream_id)
    return None if first is None else first.window


def last_observations(ledger: Ledger, stream_id: str, count: int) -> list[KpiObserved]:
    """Return the stream's last observations, at most `count`, in order."""
    found: list[KpiObserved] = []
    before = ledger.last_version(stream_id) + 1
    while before > 1 and len(found) < count:
        after = max(0, before - 1 - count)
        page = ledger.page(stream_id, after=after, limit=before - 1 - after)
        found[:0] = [r.event for r in page if isinstance(r.event, KpiObserved)]
        before = after + 1
    return found[-count:]


def last_observations_by(
    ledger: Ledger, stream: StreamState, count: int, is_meant: Callable[[RunStarted], bool]
) -> list[KpiObserved]:
    """
    Return the last observations of the last runs that are meant, at most `count`, in order.

    What another run has observed in between ends them: the ones before it are no continuation.
    """
    found: list[KpiObserved] = []
    run = stream.state.run
    before = stream.version + 1
    while before > 1 and len(found) < count:
        after = max(0, before - 1 - count)
        for record in reversed(ledger.page(stream.id, after=after, limit=before - 1 - after)):
            if run is None or not is_meant(run):
                return found[:count][::-1]
            if isinstance(record.event, KpiObserved):
                found.append(record.event)
            elif isinstance(record.event, RunStarted):
                run = ledger.stream(stream.id, version=record.version - 1).state.run
        before = after + 1
    return found[:count][::-1]


def _last_observed(ledger: Ledger, stream_id: str, is_before: Callable[[KpiObserved], bool]) -> int:
    """Bisect for the version of the last observation before a time; 0 if there is none."""
    low, high = 1, ledger.last_version(stream_id) + 1
    while low < high:
        middle = (low + high) // 2
        version, observed = _observation_from(ledger, stream_id, middle)
        if observed is not None and is_before(observed):
            low = version + 1
        else:
            high = middle
    return low - 1


def _observation_from(
    ledger: Ledger, stream_id: str, version: int
) -> tuple[int, KpiObserved | None]:
    """Return the first observation from a version on, or one past the end and None."""
    after = version - 1
    while page := ledger.page(stream_id, after=after, limit=PROBE):
        for record in page:
            if isinstance(record.event, KpiObserved):
                return record.version, record.event
        after = page[-1].version
    return after + 1, None


def _known_at(time_ms: int) -> Callable[[Record], bool]:
    """Return whether a record that follows a window was there at a time, before the next one."""

    def is_known(record: Record) -> bool:
        event = record.event
        match event:
            case KpiObserved() | GapObserved() | PolicyAdopted():
                return False
            case OverrideApplied():
                return event.override.applied_at_ms <= time_ms
            case OverrideEnded() | ExternalWriteDetected() | RunStopped():
                return event.at_ms <= time_ms
            case TradedWhileFrozen():
                return event.filled_at_ms <= time_ms
            case RunStarted():
                return event.started_at_ms <= time_ms
            case _:
                return True

    return is_known
