"""
Scenarios: windows told in short, and what a policy is expected to make of them.

They are decided by the core, as any window is. Source: issue 6, `live policy test`.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from domain.commands import (
    AdoptPolicy,
    ApplyOverride,
    ClearOverride,
    Command,
    ObserveWindow,
    PassWindows,
)
from domain.controller import decide, fold
from domain.errors import CommandRefused
from domain.events import GapObserved, KpiObserved
from domain.policy import Policy
from domain.state import State
from domain.windows import WindowReadings
from replay.commands import start_of_replay
from replay.replaying import ReplayedWindow, row_after

Expected = str | float | tuple[str, ...] | dict[str, float] | None

KEYS: Final = (
    "state",
    "throttle",
    "reasons",
    "triggered_by",
    "per_symbol_throttle",
    "effective_throttle",
)
"""What can be expected, named as in `live replay --json`."""


class Expectation(msgspec.Struct, frozen=True):
    """
    What is expected after some windows.

    Attributes:
        place: where it stands, for messages.
        first, last: the windows, from 1, the last included.
        values: by key of `KEYS`; of throttles by symbol only those that are named.
    """

    place: str
    first: int
    last: int
    values: dict[str, Expected]


class Scenario(msgspec.Struct, frozen=True):
    """
    One scenario.

    Attributes:
        windows: what arrives; None is a window that nobody decided.
        orders: overrides, applied or cleared before the window with that index is decided.
    """

    name: str
    place: str
    policy: Policy
    symbols: tuple[str, ...]
    interval_ms: int
    start_ms: int
    windows: tuple[WindowReadings | None, ...]
    orders: dict[int, tuple[ApplyOverride | ClearOverride, ...]]
    expectations: tuple[Expectation, ...]


class Failure(msgspec.Struct, frozen=True):
    """One thing that is not as expected."""

    place: str
    text: str


class Outcome(msgspec.Struct, frozen=True):
    """What came of a scenario; it passed if there is no failure."""

    scenario: Scenario
    failures: tuple[Failure, ...]


def run_scenario(scenario: Scenario) -> Outcome:
    """Return what came of a scenario."""
    try:
        rows = dict(_rows(scenario))
    except CommandRefused as refusal:
        return Outcome(scenario, (Failure(scenario.place, f"refused: {refusal}"),))
    failures = [
        failure for expectation in scenario.expectations for failure in _check(expectation, rows)
    ]
    return Outcome(scenario, tuple(failures))


def _rows(scenario: Scenario) -> Iterator[tuple[int, ReplayedWindow]]:
    """Yield the controller after each window that was decided, and after each gap's last."""
    state = State()
    for command in _commands(scenario):
        try:
            events = decide(state.policy, state, command)
        except CommandRefused as refusal:
            if isinstance(command, ApplyOverride):
                window = (
                    command.override.applied_at_ms - scenario.start_ms
                ) // scenario.interval_ms
                raise CommandRefused(f"the override of window {window + 1}: {refusal}") from None
            raise
        state = fold(state, events)
        for event in events:
            if isinstance(event, KpiObserved | GapObserved):
                end = (event.end_ms - scenario.start_ms) // scenario.interval_ms
                yield end, row_after(state, event)


def _commands(scenario: Scenario) -> Iterator[Command]:
    yield start_of_replay(scenario.interval_ms)
    yield AdoptPolicy(window=0, policy=scenario.policy, symbols=scenario.symbols)
    for index, readings in enumerate(scenario.windows):
        start_ms = scenario.start_ms + index * scenario.interval_ms
        orders = scenario.orders.get(index, ())
        if orders or readings is not None:
            yield PassWindows(until=start_ms)
        yield from orders
        if readings is not None:
            yield ObserveWindow(readings=readings)
    yield PassWindows(until=scenario.start_ms + len(scenario.windows) * scenario.interval_ms)


def _check(expectation: Expectation, rows: dict[int, ReplayedWindow]) -> Iterator[Failure]:
    """Yield what differs in the first window in which anything does."""
    for number in range(expectation.first, expectation.last + 1):
        row = rows.get(number)
        if row is None:
            yield Failure(
                expectation.place,
                f"window {number}: nobody decided it; of a gap only its last can be expected",
            )
            return
        failures = [
            Failure(expectation.place, f"window {number} ({row.window}): {text}")
            for key, expected in expectation.values.items()
            for text in _differences(key, expected, getattr(row, key))
        ]
        if failures:
            yield from failures
            return


def _differences(key: str, expected: Expected, was: object) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(was, dict):
        for symbol, throttle in expected.items():
            if was.get(symbol) != throttle:
                yield f"{key} of {symbol}: expected {throttle:g}, was {_told(was.get(symbol))}"
    elif was != expected:
        yield f"{key}: expected {_told(expected)}, was {_told(was)}"


def _told(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(value) + "]"
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
