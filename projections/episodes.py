"""
Episodes: the periods in COOLDOWN or FROZEN, what began and ended each, and what happened meanwhile.

The one place where episodes are made from events; whoever tells or stores them takes them from
here. Source: issue 5, `episodes`; DESIGN.md section 1, Global state and Cause.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from msgspec.structs import replace

from domain.events import (
    CauseKind,
    GapObserved,
    KpiObserved,
    Override,
    OverrideApplied,
    OverrideEnded,
    RunStarted,
    StateTransitioned,
    SymbolObservation,
    TradingState,
)
from domain.verdicts import Violation
from ledger.codec import Record

EPISODE_EVENTS: Final = (
    RunStarted,
    GapObserved,
    StateTransitioned,
    OverrideApplied,
    OverrideEnded,
)
"""All that episodes are made from, beside the window that decided a transition."""


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """
    One period in COOLDOWN or FROZEN; a change from one to the other ends the first of two.

    Times are milliseconds UTC. A window belongs to the episode that its end lies in, so that the
    deciding window doesn't, and the one that ended it does.

    Attributes:
        version, position: where the transition that began it stands in the ledger.
        state, throttle: the state, and the global throttle in it.
        started_ms: from when on it held.
        ended_ms: until when; None if it is still open.
        duration_ms: until its end; of an open one, until the end of the last window known.
        previous_state, next_state: the states before and after it.
        cause, reasons, triggered_by: why it began.
        kpi, kpi_verdict, value, comparator, threshold, margin, no_data_windows: the first of the
            worst of the triggering symbol's violations, where a verdict began it.
        windows: how many windows lie in it, missing ones included.
        gap_windows: how many of them are missing.
        windows_to_recover: `windows`, if it ended by recovery.
        ended_by, end_reasons: what ended it.
        overrides: those in force at its start or applied meanwhile, in order, as texts.
    """

    version: int
    position: int | None
    state: TradingState
    throttle: float
    started_ms: int
    ended_ms: int | None = None
    duration_ms: int = 0
    previous_state: TradingState
    next_state: TradingState | None = None
    cause: CauseKind
    reasons: tuple[str, ...]
    triggered_by: str | None = None
    kpi: str | None = None
    kpi_verdict: str | None = None
    value: float | None = None
    comparator: str | None = None
    threshold: float | None = None
    margin: float | None = None
    no_data_windows: int = 0
    windows: int = 0
    gap_windows: int = 0
    windows_to_recover: int | None = None
    ended_by: CauseKind | None = None
    end_reasons: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether it hasn't ended yet."""
        return self.ended_ms is None


def derive_episodes(
    records: Iterable[Record],
    *,
    until_ms: int | None = None,
    interval_ms: int = 0,
    in_force: Iterable[Override] = (),
) -> Iterator[Episode]:
    """
    Yield a stream's episodes in order, the one that is still open last.

    Args:
        records: the stream's, in order, from its beginning or from any version on; only
            `EPISODE_EVENTS` and the `KpiObserved` right before a transition are looked at, so
            that the others may be left out.
        until_ms: the end of the last window known, for an open episode; None to take the last one
            that the records show.
        interval_ms: the stream's interval; needed where no `RunStarted` is among the records.
        in_force: the overrides in force before the records.
    """
    builder = _Builder(interval_ms, in_force)
    for record in records:
        ended = builder.add(record)
        if ended is not None:
            yield ended
    still_open = builder.still_open(until_ms)
    if still_open is not None:
        yield still_open


def worst_violation(observed: KpiObserved, symbol: str | None) -> Violation | None:
    """Return the first of the worst of a symbol's violations in a window, None without any."""
    found = _symbol_of(observed, symbol)
    if found is None or not found.violations:
        return None
    return max(found.violations, key=lambda violation: violation.verdict.severity)


def override_text(override: Override) -> str:
    """Return an override in a line: `cap 0.25 ETHUSDT by ann: look at it first`."""
    bound = "" if override.cap is None else f" {override.cap:g}"
    symbol = "" if override.symbol is None else f" {override.symbol}"
    return f"{override.kind}{bound}{symbol} by {override.actor}: {override.reason}"


class _Builder:
    """Makes episodes of records; holds the open one, and what may explain the next."""

    def __init__(self, interval_ms: int, in_force: Iterable[Override]) -> None:
        self._interval_ms = interval_ms
        self._in_force = {override.id: override for override in in_force}
        self._open: Episode | None = None
        self._observed: KpiObserved | None = None
        self._gap: GapObserved | None = None
        self._last_ms: int | None = None

    def add(self, record: Record) -> Episode | None:
        """Take the next record; return the episode that it ended, if it did."""
        event = record.event
        match event:
            case RunStarted():
                self._interval_ms = event.interval_ms
            case KpiObserved():
                self._observed, self._last_ms = event, event.end_ms
            case GapObserved():
                self._gap, self._last_ms = event, event.end_ms
                self._add_missing(event.windows)
            case OverrideApplied():
                self._in_force[event.override.id] = event.override
                self._add_override(event.override)
            case OverrideEnded():
                self._in_force.pop(event.id, None)
            case StateTransitioned():
                ended = self._end(event)
                if event.state is not TradingState.ACTIVE:
                    self._begin(record, event)
                return ended
            case _:
                pass
        return None

    def still_open(self, until_ms: int | None) -> Episode | None:
        """Return the open episode as it is at a time."""
        if self._open is None:
            return None
        last_ms = self._last_ms if until_ms is None else until_ms
        return self._measured(self._open, max(self._open.started_ms, last_ms or 0))

    def _begin(self, record: Record, event: StateTransitioned) -> None:
        by_gap = self._gap if event.cause is CauseKind.GAP else None
        missing = 0 if by_gap is None else self._windows_in(event.since_ms, by_gap.end_ms)
        self._open = Episode(
            version=record.version,
            position=record.position,
            state=event.state,
            throttle=event.throttle,
            started_ms=event.since_ms,
            previous_state=event.previous,
            cause=event.cause,
            reasons=event.reasons,
            triggered_by=event.triggered_by,
            gap_windows=missing,
            overrides=tuple(
                override_text(override)
                for override in self._in_force.values()
                if override.kind != "unfreeze"
            ),
        )
        if event.cause is CauseKind.VERDICT and self._observed is not None:
            violation = worst_violation(self._observed, event.triggered_by)
            if violation is not None:
                self._open = _with_violation(self._open, violation)

    def _end(self, event: StateTransitioned) -> Episode | None:
        before = self._open
        self._open = None
        if before is None:
            return None
        if event.cause is CauseKind.GAP and self._gap is not None:
            # The rest of the gap lies in what comes after it.
            later = self._windows_in(event.since_ms, self._gap.end_ms)
            before = replace(before, gap_windows=before.gap_windows - later)
        ended = self._measured(before, event.since_ms)
        recovered = event.cause is CauseKind.RECOVERY
        return replace(
            ended,
            ended_ms=event.since_ms,
            next_state=event.state,
            ended_by=event.cause,
            end_reasons=event.reasons,
            windows_to_recover=ended.windows if recovered else None,
        )

    def _measured(self, episode: Episode, until_ms: int) -> Episode:
        return replace(
            episode,
            duration_ms=until_ms - episode.started_ms,
            windows=self._windows_in(episode.started_ms, until_ms),
        )

    def _windows_in(self, start_ms: int, end_ms: int) -> int:
        """Return how many windows end after one time, up to another: windows are aligned."""
        if not self._interval_ms:
            return 0
        return end_ms // self._interval_ms - start_ms // self._interval_ms

    def _add_missing(self, windows: int) -> None:
        if self._open is not None:
            self._open = replace(self._open, gap_windows=self._open.gap_windows + windows)

    def _add_override(self, override: Override) -> None:
        if self._open is not None:
            texts = (*self._open.overrides, override_text(override))
            self._open = replace(self._open, overrides=texts)


def _with_violation(episode: Episode, violation: Violation) -> Episode:
    return replace(
        episode,
        kpi=violation.kpi,
        kpi_verdict=violation.verdict.value,
        value=violation.value,
        comparator=violation.comparator,
        threshold=violation.threshold,
        margin=violation.margin,
        no_data_windows=violation.no_data_windows,
    )


def _symbol_of(observed: KpiObserved, name: str | None) -> SymbolObservation | None:
    for symbol in observed.symbols:
        if symbol.memory.symbol == name:
            return symbol
    return None
