"""
What if: one recorded window decided again with another value, threshold or count, and the recorded
windows after it, through the core itself.

What follows is exact up to the first window after which something else may be traded: from then on
trading itself would have changed what was measured, and what is told is a model. Source: issue 5;
FIELD_NOTES.md, Replay.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from domain.commands import (
    AdoptPolicy,
    ApplyOverride,
    ClearOverride,
    Command,
    ExpireOverrides,
    ObserveWindow,
)
from domain.controller import decide, fold
from domain.errors import CommandRefused
from domain.events import (
    Event,
    GapObserved,
    KpiObserved,
    OverrideEnded,
    PolicyAdopted,
    StateTransitioned,
)
from domain.kpis import Reading
from domain.policy import Policy
from domain.state import State
from domain.windows import NOTHING, WindowReadings
from ledger.codec import Record
from replay.commands import command_of

WINDOWS_DEFAULT: Final = 1_440
"""How many windows are replayed after the changed one, where nothing else is asked for."""


class Change(msgspec.Struct, frozen=True):
    """
    What is to be other than recorded.

    Attributes:
        readings: by symbol and KPI, another reading in the one window; None for absent.
        policy: returns the policy to decide by instead of a recorded one, from that window on.
    """

    readings: dict[str, dict[str, Reading | None]] = {}
    policy: Callable[[Policy], Policy] | None = None

    def policy_instead_of(self, policy: Policy) -> Policy:
        """Return the policy to decide by."""
        return policy if self.policy is None else self.policy(policy)

    def readings_instead_of(self, arrived: WindowReadings) -> WindowReadings:
        """Return the window's readings with those that are to be others."""
        symbols = dict(arrived.symbols)
        for symbol, changed in self.readings.items():
            before = symbols.get(symbol, NOTHING)
            kpis = {**before.kpis, **changed}
            there = {kpi: reading for kpi, reading in kpis.items() if reading is not None}
            symbols[symbol] = replace(before, kpis=there)
        return replace(arrived, symbols=symbols)


class Step(NamedTuple):
    """
    One recorded decision, and the same one under the change.

    Attributes:
        version: the last version of the recorded decision.
        at_ms: the end of the window or gap; None where it was another decision.
        recorded, changed: the states after it.
        recorded_events, changed_events: the events of it.
    """

    version: int
    at_ms: int | None
    recorded: State
    changed: State
    recorded_events: Sequence[Event]
    changed_events: Sequence[Event]

    @property
    def is_same_to_trading(self) -> bool:
        """Whether the same may be traded after it."""
        return self.recorded.effective_throttles() == self.changed.effective_throttles()


def replay_changed(before: State, records: Iterable[Record], change: Change) -> Iterator[Step]:
    """
    Yield a step for each recorded decision, the first of them the changed window.

    Args:
        before: the state before the window.
        records: from the window's observation on, in order.
        change: what is to be other; its readings hold for the first observation alone.
    """
    policy = change.policy_instead_of(before.policy)
    recorded, changed = before, replace(before, policy=policy)
    is_first = True
    for decision in _decisions(records):
        events = [record.event for record in decision]
        recorded = fold(recorded, events)
        told: list[Event] = []
        for command in _commands(events, recorded, change):
            if is_first and isinstance(command, ObserveWindow):
                readings = change.readings_instead_of(command.readings)
                command = ObserveWindow(readings=readings)  # noqa: PLW2901 - the changed one
                is_first = False
            try:
                new = decide(changed.policy, changed, command)
            except CommandRefused:
                if not isinstance(command, AdoptPolicy | ApplyOverride | ClearOverride):
                    raise
                # Under the change there may be nothing to clear, or something that forbids it.
                continue
            changed = fold(changed, new)
            told += new
        yield Step(decision[-1].version, _end_of(events), recorded, changed, events, told)


def first_divergence(steps: Iterable[Step]) -> Step | None:
    """Return the first step after which something else may be traded; None if there is none."""
    return next((step for step in steps if not step.is_same_to_trading), None)


def transitions_of(events: Iterable[Event]) -> list[StateTransitioned]:
    """Return the changes of the global state among events."""
    return [event for event in events if isinstance(event, StateTransitioned)]


def _decisions(records: Iterable[Record]) -> Iterator[list[Record]]:
    """
    Yield the records of each decision: what answers a command, with all that follows from it.

    What expired with a window or a gap stands before it, and belongs to it.
    """
    decision: list[Record] = []
    expired: list[Record] = []
    for record in records:
        if _is_expiry(record.event):
            expired.append(record)
            continue
        begins = isinstance(record.event, PolicyAdopted) or command_of(record.event) is not None
        if expired and not isinstance(record.event, KpiObserved | GapObserved):
            # It expired by itself, between two windows.
            if decision:
                yield decision
            decision, expired = expired, []
        if begins and decision:
            yield decision
            decision = []
        decision += [*expired, record]
        expired = []
    for rest in (decision, expired):
        if rest:
            yield rest


def _commands(events: Sequence[Event], recorded: State, change: Change) -> Iterator[Command]:
    """Yield what a decision's events were the answer to, under the change."""
    if _is_expiry(events[0]) and _end_of(events) is None:
        expired = [event for event in events if isinstance(event, OverrideEnded)]
        yield ExpireOverrides(at_ms=max(event.at_ms for event in expired))
    for event in events:
        if isinstance(event, PolicyAdopted):
            yield AdoptPolicy(
                window=recorded.next_window or 0,
                policy=change.policy_instead_of(event.policy),
                symbols=event.symbols,
                profile=event.profile,
            )
        command = command_of(event)
        if command is not None:
            yield command


def _is_expiry(event: Event) -> bool:
    return isinstance(event, OverrideEnded) and event.ended_by == "expiry"


def _end_of(events: Iterable[Event]) -> int | None:
    for event in events:
        if isinstance(event, KpiObserved | GapObserved):
            return event.end_ms
    return None
