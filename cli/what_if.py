"""
`live explain --what-if`: one window decided again with another value, threshold or count.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

import click
import msgspec

from cli.audit_options import Audited
from cli.durations import count_text
from cli.texts import to_json
from domain.errors import BadInput
from domain.events import KpiObserved, TradingState
from domain.kpis import KPI_BY_NAME, KPI_BY_POLICY_KEY, Reading, Verdict
from domain.policy import Policy, overlay_mapping, policy_changes
from domain.state import State
from domain.verdicts import format_reading
from domain.windows import format_time
from ledger.application import StreamState
from ledger.codec import Record
from ledger.reading import observation_of
from projections.views import ViolationView, WindowSpan, violations_of, window_span
from projections.wording import cause_words
from replay.what_if import (
    WINDOWS_DEFAULT,
    Change,
    Step,
    first_divergence,
    replay_changed,
    transitions_of,
)

ABSENT: Final = "none"
CHANGES_SHOWN: Final = 20
POLICY_COUNTS: Final = (
    "min_warn_windows",
    "min_ok_windows",
    "unfreeze_after_ok_windows",
    "no_data_freeze_windows",
    "global_freeze_symbols",
    "cooldown_throttle",
)


class Asked(NamedTuple):
    """What is to be other, and how it is told: `BTCUSDT edge_bps 2.6 instead of 2.0`."""

    change: Change
    told: tuple[str, ...]


class Decided(msgspec.Struct, frozen=True):
    """How the window was decided, recorded or under the change."""

    verdict: Verdict
    state: TradingState
    throttle: float
    reasons: tuple[str, ...]
    triggered_by: str | None
    violations: tuple[ViolationView, ...]
    per_symbol_throttle: dict[str, float]
    effective_throttle: dict[str, float]


class Followed(msgspec.Struct, frozen=True):
    """A change of the global state; under the change, whether it is exact or a model."""

    at: str
    previous: TradingState
    state: TradingState
    throttle: float
    cause: str
    exact: bool


class WhatIf(msgspec.Struct, frozen=True):
    """
    `live explain --what-if --json`.

    Attributes:
        exact_until: from then on something else may be traded, which would have changed what was
            measured: what is told of later windows is a model. Null if the same may be traded
            in all that was replayed.
        windows: how many were replayed after the changed one, missing ones included.
        until: the end of the last of them.
        is_cut: whether the ledger goes on after it.
        recorded_after, changed_after: changes of the global state after the window.
        recorded_windows, changed_windows: how many of the windows each state stood after.
    """

    change: tuple[str, ...]
    stream: str
    version: int
    window: WindowSpan
    recorded: Decided
    changed: Decided
    exact_until: str | None
    windows: int
    until: str
    is_cut: bool
    recorded_after: tuple[Followed, ...]
    changed_after: tuple[Followed, ...]
    recorded_windows: dict[TradingState, int]
    changed_windows: dict[TradingState, int]


def explain_what_if(
    stream: Audited,
    known: StreamState,
    changes: Iterable[str],
    symbol: str | None,
    windows: int | None,
    *,
    as_json: bool,
) -> None:
    """
    Print how the last window known would have been decided, and what would have followed.

    Raises:
        BadInput: if a change isn't `NAME=VALUE`, or can't be made.
    """
    observed = known.state.observed
    assert observed is not None
    record = observation_of(stream.ledger, stream.id, observed.window)
    assert record is not None, "what was observed is in the ledger"
    before = stream.ledger.stream(stream.id, version=record.version - 1).state
    asked = _asked(changes, symbol, before, observed)
    limit = WINDOWS_DEFAULT if windows is None else windows
    records = stream.ledger.placed_records(stream.id, after=record.version - 1)
    steps = list(_within(replay_changed(before, records, asked.change), limit, before.interval_ms))
    view = _view(stream, record, asked, steps)
    if as_json:
        click.echo(to_json(view))
    else:
        _show(view)


def _within(steps: Iterator[Step], limit: int, interval_ms: int) -> Iterator[Step]:
    """Yield the steps up to so many windows after the first."""
    first = next(steps)
    yield first
    assert first.at_ms is not None
    for step in steps:
        if step.at_ms is not None and step.at_ms > first.at_ms + limit * interval_ms:
            return
        yield step


def _asked(
    changes: Iterable[str], symbol: str | None, before: State, observed: KpiObserved
) -> Asked:
    readings: dict[str, dict[str, Reading | None]] = {}
    overlay: dict[str, Any] = {}
    told: list[str] = []
    named: set[str] = set()
    for text in changes:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise BadInput(f"--what-if: expected NAME=VALUE, was {text!r}")
        if name in named:
            raise BadInput(f"--what-if: expected each name once, was {name} twice")
        named.add(name)
        if name in KPI_BY_NAME:
            reading = _reading(text, value)
            whose = _whose(symbol, observed)
            readings.setdefault(whose, {})[name] = reading
            was = format_reading(_readings_of(observed, whose).get(name))
            told.append(f"{whose} {name} {format_reading(reading)} instead of {was}")
        elif name in KPI_BY_POLICY_KEY:
            where = overlay if symbol is None else overlay.setdefault("symbols", {})
            where.setdefault("thresholds" if symbol is None else symbol, {})[name] = _number(
                text, value
            )
        elif name in POLICY_COUNTS:
            if symbol is not None:
                raise BadInput(f"--what-if: {name} is everybody's; leave --symbol out")
            number = _number(text, value)
            overlay[name] = int(number) if number == int(number) else number
        else:
            known = ", ".join((*KPI_BY_NAME, *KPI_BY_POLICY_KEY, *POLICY_COUNTS))
            raise BadInput(f"--what-if: unknown name {name!r}; known: {known}")

    def policy_of(policy: Policy) -> Policy:
        return overlay_mapping(policy, overlay, source="--what-if")

    told += [
        f"{change.key} {change.after} instead of {change.before}"
        for change in policy_changes(before.policy, policy_of(before.policy), before.symbol_names)
    ]
    return Asked(Change(readings, policy_of if overlay else None), tuple(told))


def _whose(symbol: str | None, observed: KpiObserved) -> str:
    """Return the symbol whose value is to be another."""
    names = [one.memory.symbol for one in observed.symbols]
    if symbol is None:
        symbol = observed.triggered_by or (names[0] if len(names) == 1 else None)
    if symbol is None:
        raise BadInput(f"--what-if: the window was OK; name one of {', '.join(names)} by --symbol")
    if symbol not in names:
        raise BadInput(f"--symbol: the window is of {', '.join(names)}, not {symbol}")
    return symbol


def _readings_of(observed: KpiObserved, symbol: str) -> dict[str, Reading]:
    return next(one.readings.kpis for one in observed.symbols if one.memory.symbol == symbol)


def _reading(text: str, value: str) -> Reading | None:
    return None if value.lower() == ABSENT else _number(text, value)


def _number(text: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadInput(f"--what-if: expected a finite number after =, was {text!r}")
    return number


def _view(stream: Audited, record: Record, asked: Asked, steps: list[Step]) -> WhatIf:
    first, *later = steps
    differing = first_divergence(steps)
    exact_until_ms = None if differing is None else _moment(differing, first)
    last = steps[-1]
    observed = record.event
    assert isinstance(observed, KpiObserved)
    assert first.at_ms is not None
    until_ms = max(step.at_ms for step in steps if step.at_ms is not None)
    last_version = stream.now.version
    return WhatIf(
        change=asked.told,
        stream=stream.id,
        version=record.version,
        window=window_span(observed),
        recorded=_decided(first.recorded),
        changed=_decided(first.changed),
        exact_until=None if exact_until_ms is None else format_time(exact_until_ms),
        windows=(until_ms - first.at_ms) // observed.interval_ms,
        until=format_time(until_ms),
        is_cut=last.version < last_version,
        recorded_after=tuple(_followed(later, None, changed=False)),
        changed_after=tuple(_followed(later, exact_until_ms, changed=True)),
        recorded_windows=_windows_in(later, first, changed=False),
        changed_windows=_windows_in(later, first, changed=True),
    )


def _moment(step: Step, first: Step) -> int:
    """Return until when what is told is exact, given the first step that differs to trading."""
    if step.at_ms is not None:
        return step.at_ms
    next_window = step.recorded.next_window
    return next_window if next_window is not None else (first.at_ms or 0)


def _decided(state: State) -> Decided:
    observed = state.observed
    assert observed is not None
    return Decided(
        verdict=observed.verdict,
        state=state.trading_state,
        throttle=state.throttle,
        reasons=state.reasons,
        triggered_by=state.triggered_by,
        violations=violations_of(observed),
        per_symbol_throttle=state.per_symbol_throttles(),
        effective_throttle=state.effective_throttles(),
    )


def _followed(
    steps: Iterable[Step], exact_until_ms: int | None, *, changed: bool
) -> Iterator[Followed]:
    for step in steps:
        events = step.changed_events if changed else step.recorded_events
        for event in transitions_of(events):
            yield Followed(
                at=format_time(event.since_ms),
                previous=event.previous,
                state=event.state,
                throttle=event.throttle,
                cause=cause_words(event.reasons, event.triggered_by),
                exact=exact_until_ms is None or event.since_ms <= exact_until_ms,
            )


def _windows_in(steps: list[Step], first: Step, *, changed: bool) -> dict[TradingState, int]:
    """Return how many windows after the first each state stood after; a gap's by its end."""
    counts = dict.fromkeys(TradingState, 0)
    before_ms = first.at_ms or 0
    for step in steps:
        if step.at_ms is None:
            continue
        state = step.changed if changed else step.recorded
        counts[state.trading_state] += (step.at_ms - before_ms) // state.interval_ms
        before_ms = step.at_ms
    return counts


def _show(view: WhatIf) -> None:
    click.echo(f"{view.stream}  what if {', '.join(view.change) or 'nothing were other'}")
    click.echo(f"window      {view.window.start} to {view.window.end}, v{view.version}")
    for name, decided in (("recorded", view.recorded), ("what if", view.changed)):
        click.echo(f"{name:10}  {decided.verdict}, {decided.state} {decided.throttle:g}")
        for violation in decided.violations:
            click.echo(f"            {violation.symbol} {violation.reason}  {violation.verdict}")
        throttles = ", ".join(f"{s} {t:g}" for s, t in decided.effective_throttle.items())
        click.echo(f"            may trade {throttles}")
    if view.exact_until is None:
        click.echo("exact       throughout: the same may be traded after every window")
    else:
        click.echo(
            f"exact       until {view.exact_until}: from then on something else may be traded, "
            "which would have changed what was measured; what follows is a MODEL"
        )
    cut = "; the ledger goes on, --windows replays more" if view.is_cut else ""
    click.echo(f"then        {count_text(view.windows, 'window')}, until {view.until}{cut}")
    for name, after, counts in (
        ("recorded", view.recorded_after, view.recorded_windows),
        ("what if", view.changed_after, view.changed_windows),
    ):
        told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        click.echo(f"{name:10}  {told or 'no window'}")
        for change in islice(after, CHANGES_SHOWN):
            label = "" if name == "recorded" else ("exact  " if change.exact else "model  ")
            click.echo(
                f"            {label}{change.at}  {change.previous} -> {change.state} "
                f"({change.throttle:g}): {change.cause}"
            )
        if len(after) > CHANGES_SHOWN:
            click.echo(
                f"            and {len(after) - CHANGES_SHOWN} more changes; --json has them all"
            )
