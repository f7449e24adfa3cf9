"""
Incidents that somebody, or the edge afterwards, says were there: what a policy is judged against.

An incident is an interval of time, of one symbol or of all. A policy that was FROZEN in some part
of it caught it, so late after its beginning; one that never was missed it. A freeze that no
incident overlaps was needless.
"""

import csv
import io
import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from statistics import median_low
from typing import Any, Final

import msgspec

from domain.errors import BadInput
from domain.windows import format_time, parse_time
from replay.money import Scores
from replay.tracks import ACTIVE, FROZEN, Timeline, Track

FIELDS: Final = ("start", "end", "symbol", "name")
INCIDENTS_MAX: Final = 10_000


class Incident(msgspec.Struct, frozen=True):
    """
    An interval, the end exclusive; `symbol` is None where all are meant.

    `place` is where it was given, for messages.
    """

    start_ms: int
    end_ms: int
    symbol: str | None = None
    name: str = ""
    place: str = ""


class Detection(msgspec.Struct, frozen=True):
    """
    How one incident was met.

    Attributes:
        start, end: ISO.
        frozen_after_sec: from the incident's start until the state was FROZEN, of one symbol until
            its effective throttle was 0.0; 0 if it was before, None if it never was within.
        reduced_after_sec: the same until the state wasn't ACTIVE, of one symbol until its
            throttle was below 1.0.
    """

    start: str
    end: str
    symbol: str | None
    name: str
    frozen_after_sec: float | None
    reduced_after_sec: float | None


class Judgement(msgspec.Struct, frozen=True):
    """
    A track against all incidents.

    Attributes:
        caught, missed: incidents in which trading was frozen in some part, in none.
        reduced: incidents in which it was reduced in some part.
        median_delay_sec, median_reduced_sec: the median delay over those caught, and reduced.
        freezes, needless_freezes: times that the global state was FROZEN; those that no incident
            overlaps.
        frozen_outside_share: of the time outside every incident, how much was FROZEN.
    """

    incidents: int
    caught: int
    missed: int
    reduced: int
    median_delay_sec: float | None
    median_reduced_sec: float | None
    freezes: int
    needless_freezes: int
    frozen_outside_share: float
    detections: list[Detection]


def parse_labels(text: str, *, source: str, is_json: bool) -> list[Incident]:
    """
    Return the incidents of a labels file.

    CSV has a header with `start` and `end` (ISO times, UTC without an offset), and perhaps `symbol`
    and `name`; JSON is an array of objects with the same keys.

    Raises:
        BadInput: naming the source and the line or the item.
    """
    found: list[Incident] = []
    for place, given in _json_items(text, source) if is_json else _csv_rows(text, source):
        if len(found) == INCIDENTS_MAX:
            raise BadInput(f"{place}: expected at most {INCIDENTS_MAX} incidents, was more")
        found.append(_incident(given, place))
    if not found:
        raise BadInput(f"{source}: expected at least one incident, was none")
    return found


def check_labels(incidents: Iterable[Incident], timeline: Timeline, symbols: Sequence[str]) -> None:
    """
    Check that every incident is about the data.

    Raises:
        BadInput: naming the first that lies outside it, or is of a symbol that it doesn't have.
    """
    first_ms, end_ms = timeline.starts_ms[0], timeline.end_ms(len(timeline) - 1)
    for incident in incidents:
        told = f"{format_time(incident.start_ms)} to {format_time(incident.end_ms)}"
        if incident.end_ms <= first_ms or incident.start_ms >= end_ms:
            raise BadInput(
                f"{incident.place}: expected an incident within the data, "
                f"{format_time(first_ms)} to {format_time(end_ms)}, was {told}"
            )
        if incident.symbol is not None and incident.symbol not in symbols:
            raise BadInput(
                f"{incident.place}: expected one of {', '.join(symbols)}, "
                f"was {incident.symbol} ({told})"
            )


def incidents_from_edge(
    timeline: Timeline, scores: Scores, *, below_bps: float, windows: int
) -> list[Incident]:
    """
    Return the stretches over which the edge was below a bound for so many windows together.

    A stretch of `windows` windows is one where the mean edge over all symbols, weighted by
    notional where it is known, is below the bound. Stretches that overlap or touch are one
    incident. One with scores in fewer than half of its windows says nothing, nor does one that the
    data's end cuts off. An incident begins with its first window: what is decided just before it
    is in time.
    """
    value, weight, known = [0.0], [0.0], [0]
    per_row_value = [0.0] * len(timeline)
    per_row_weight = [0.0] * len(timeline)
    for row, scored, weighed in zip(scores.rows, scores.values, scores.weights, strict=True):
        per_row_value[row] += scored * (10_000.0 if scores.unit == "quote" else 1.0)
        per_row_weight[row] += weighed
    value += accumulate(per_row_value)
    weight += accumulate(per_row_weight)
    known += accumulate(int(weighed > 0) for weighed in per_row_weight)
    span_ms = windows * timeline.interval_ms
    data_end_ms = timeline.end_ms(len(timeline) - 1) if len(timeline) else 0
    found: list[Incident] = []
    for row, start_ms in enumerate(timeline.starts_ms):
        end_ms = start_ms + span_ms
        if end_ms > data_end_ms:
            break
        after = bisect_left(timeline.starts_ms, end_ms)
        if 2 * (known[after] - known[row]) < windows:
            continue
        if (value[after] - value[row]) / (weight[after] - weight[row]) >= below_bps:
            continue
        if found and start_ms <= found[-1].end_ms:
            found[-1] = Incident(found[-1].start_ms, end_ms, name=found[-1].name)
        else:
            found.append(Incident(start_ms, end_ms, name=f"edge below {below_bps:g} bps"))
    return found


def judge_track(timeline: Timeline, track: Track, incidents: Sequence[Incident]) -> Judgement:
    """Return how a track met the incidents; outside them all is taken for healthy."""
    frozen = list(_spells(timeline, track, None, at_zero=True))
    reduced = list(_spells(timeline, track, None, at_zero=False))
    by_symbol = {
        symbol: (
            list(_spells(timeline, track, symbol, at_zero=True)),
            list(_spells(timeline, track, symbol, at_zero=False)),
        )
        for symbol in {incident.symbol for incident in incidents}
        if symbol is not None
    }
    detections = []
    for incident in incidents:
        stops, cuts = (frozen, reduced) if incident.symbol is None else by_symbol[incident.symbol]
        detections.append(
            Detection(
                start=format_time(incident.start_ms),
                end=format_time(incident.end_ms),
                symbol=incident.symbol,
                name=incident.name,
                frozen_after_sec=_delay_sec(stops, incident),
                reduced_after_sec=_delay_sec(cuts, incident),
            )
        )
    stopped_after = [found.frozen_after_sec for found in detections]
    reduced_after = [found.reduced_after_sec for found in detections]
    caught = sum(delay is not None for delay in stopped_after)
    needless = [
        spell
        for spell in frozen
        if not any(spell[0] < one.end_ms and one.start_ms < spell[1] for one in incidents)
    ]
    return Judgement(
        incidents=len(incidents),
        caught=caught,
        missed=len(incidents) - caught,
        reduced=sum(delay is not None for delay in reduced_after),
        median_delay_sec=_median(stopped_after),
        median_reduced_sec=_median(reduced_after),
        freezes=len(frozen),
        needless_freezes=len(needless),
        frozen_outside_share=_outside_share(timeline, frozen, incidents),
        detections=detections,
    )


Spell = tuple[int, int]
"""A stretch of time, from and to (exclusive), in ms."""


def _spells(
    timeline: Timeline, track: Track, symbol: str | None, *, at_zero: bool
) -> Iterator[Spell]:
    """Yield when trading was at 0.0, or reduced; a decision is in force from its row's end."""
    if not len(timeline):
        return
    if symbol is None:
        states = (track.first_state, *track.states)
        is_on = [state == FROZEN if at_zero else state != ACTIVE for state in states]
    else:
        throttles = (track.in_force.of(symbol)[0], *track.effective.of(symbol))
        is_on = [throttle == 0.0 if at_zero else throttle < 1.0 for throttle in throttles]
    since_ms = timeline.starts_ms[0] if is_on[0] else None
    for row, on in enumerate(is_on[1:]):
        at_ms = timeline.end_ms(row)
        if on and since_ms is None:
            since_ms = at_ms
        elif not on and since_ms is not None:
            yield since_ms, at_ms
            since_ms = None
    end_ms = timeline.end_ms(len(timeline) - 1)
    if since_ms is not None and since_ms < end_ms:
        yield since_ms, end_ms


def _delay_sec(spells: Sequence[Spell], incident: Incident) -> float | None:
    for since_ms, until_ms in spells:
        if since_ms < incident.end_ms and until_ms > incident.start_ms:
            return max(0, since_ms - incident.start_ms) / 1000
    return None


def _median(delays: Iterable[float | None]) -> float | None:
    """Return the lower median of those that there are."""
    known = [delay for delay in delays if delay is not None]
    return median_low(known) if known else None


def _outside_share(
    timeline: Timeline, frozen: Sequence[Spell], incidents: Sequence[Incident]
) -> float:
    """Return how much of the time outside the incidents was FROZEN."""
    if not len(timeline):
        return 0.0
    first_ms, end_ms = timeline.starts_ms[0], timeline.end_ms(len(timeline) - 1)
    merged: list[Spell] = []
    for incident in sorted(incidents, key=lambda one: one.start_ms):
        start, end = max(first_ms, incident.start_ms), min(end_ms, incident.end_ms)
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    outside_ms = end_ms - first_ms - sum(end - start for start, end in merged)
    inside_frozen_ms = sum(
        max(0, min(until, end) - max(since, start))
        for since, until in frozen
        for start, end in merged
    )
    frozen_ms = sum(until - since for since, until in frozen)
    return (frozen_ms - inside_frozen_ms) / outside_ms if outside_ms else 0.0


def _csv_rows(text: str, source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        header = reader.fieldnames or []
        if not {"start", "end"} <= set(header) <= set(FIELDS) or len(set(header)) < len(header):
            raise BadInput(
                f"{source} line 1: expected a header of start, end, and perhaps symbol and name, "
                f"was {', '.join(header) or 'nothing'}"
            )
        for row in reader:
            place = f"{source} line {reader.line_num}"
            if None in row or None in row.values():
                raise BadInput(f"{place}: expected {len(header)} cells, was another number")
            yield place, row
    except csv.Error as error:
        raise BadInput(f"{source} line {reader.line_num}: expected CSV: {error}") from None


def _json_items(text: str, source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{source}: expected JSON: {error}") from None
    if not isinstance(given, list):
        raise BadInput(f"{source}: expected an array of incidents, was {type(given).__name__}")
    for number, item in enumerate(given, start=1):
        place = f"{source} item {number}"
        if not isinstance(item, dict):
            raise BadInput(f"{place}: expected an object, was {type(item).__name__}")
        for key in item:
            if key not in FIELDS:
                raise BadInput(f"{place}: unknown key {key!r}; known: {', '.join(FIELDS)}")
        yield place, item


def _incident(given: dict[str, Any], place: str) -> Incident:
    times = []
    for key in ("start", "end"):
        text = given.get(key)
        try:
            times.append(parse_time(text if isinstance(text, str) else ""))
        except (ValueError, OverflowError):
            raise BadInput(
                f"{place}: expected {key} to be a time such as 2026-01-05T14:00:00Z, was {text!r}"
            ) from None
    if times[1] <= times[0]:
        raise BadInput(f"{place}: expected an end after the start, was {given['end']!r}")
    for key in ("symbol", "name"):
        if not isinstance(given.get(key) or "", str):
            raise BadInput(f"{place}: expected {key} to be text, was {given[key]!r}")
    symbol, name = given.get("symbol") or None, given.get("name") or ""
    return Incident(times[0], times[1], symbol, name, place)
