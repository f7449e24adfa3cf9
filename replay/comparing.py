"""
Comparing policies over the same windows: side by side with what was recorded.

A replay is exact up to its first divergence from what was recorded, and a model after it: other
decisions would have changed what was traded, and so the KPIs. Where no decision was recorded, the
windows are taken as traded without a controller, always on.
Source: issue 6; DECISIONS.md, Of replay.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from domain.errors import BadInput, CannotTell
from domain.windows import format_time
from replay.labels import Incident, Judgement, check_labels, incidents_from_edge, judge_track
from replay.money import Money, Scores, count_money, score_windows
from replay.source import Source
from replay.tracks import (
    FROZEN,
    STATES,
    Candidate,
    Decided,
    Engine,
    Timeline,
    Track,
    constant_track,
    track_by_core,
)

FLAP_WINDOWS: Final = 24


class FirstFreeze(msgspec.Struct, frozen=True):
    """The window after which trading was frozen for the first time, and why."""

    window: str
    reasons: tuple[str, ...]
    triggered_by: str | None


class Divergence(msgspec.Struct, frozen=True):
    """
    How a track differs from what was recorded: in the global state or an effective throttle.

    Attributes:
        first: the first window that was decided otherwise, None if none was.
        windows: how many were decided otherwise.
        state_windows: in how many of them the global state differs.
        exact_share: windows up to the first divergence, of all: what follows it is a model.
    """

    first: str | None
    windows: int
    state_windows: int
    exact_share: float


class PolicyResult(msgspec.Struct, frozen=True):
    """
    What one policy made of the windows.

    Attributes:
        windows_in: windows by global state after them, a gap's counted as the state after it.
        freezes: times that the state became FROZEN.
        flaps: times that trading was reduced again at most `flap_windows` after it was let loose.
        refreezes: freezes at most `flap_windows` after FROZEN was left.
        divergence: None for what was recorded itself.
    """

    name: str
    policy_hash: str | None
    windows_in: dict[str, int]
    transitions: int
    freezes: int
    first_freeze: FirstFreeze | None
    flaps: int
    refreezes: int
    divergence: Divergence | None
    money: Money
    labels: Judgement | None


class Comparison(msgspec.Struct, frozen=True):
    """
    Policies side by side.

    Attributes:
        baseline: `recorded`, or `always on` where no decision was recorded.
        windows, gap_windows: all of them; those among them that nobody decided.
        unit: of money: `quote` (edge x notional, quote currency) or `bps` (edge x 1).
        scored, censored, censored_share: windows of symbols, gaps aside, that money is counted
            over, and that it can't be; `censored_by` says why not.
        scaled: of the scored ones, those whose notional was scaled up from a recorded throttle.
        results: the recorded decisions if there are any, the policies, always on, always off.
    """

    source: str
    symbols: tuple[str, ...]
    interval_ms: int
    first: str
    last: str
    end: str
    windows: int
    gap_windows: int
    baseline: str
    flap_windows: int
    unit: str
    scored: int
    censored: int
    censored_share: float
    censored_by: dict[str, int]
    scaled: int
    results: list[PolicyResult]


class Question(msgspec.Struct, frozen=True):
    """
    What a comparison is asked beside the decisions.

    Attributes:
        incidents: to judge against, from a labels file.
        edge_below_bps, edge_windows: to find incidents in the edge afterwards instead.
        flap_windows: how soon after it was let loose a reduction is a flap.
    """

    incidents: Sequence[Incident] = ()
    edge_below_bps: float | None = None
    edge_windows: int = 12
    flap_windows: int = FLAP_WINDOWS


def compare(
    source: Source,
    candidates: Sequence[Candidate],
    question: Question,
    *,
    engine: Engine = track_by_core,
) -> Comparison:
    """
    Return the candidates side by side.

    Raises:
        CannotTell: if the source has no window.
        CommandRefused: if a candidate can't be adopted for the source's symbols.
        BadInput: if a candidate requires a KPI that the source never has, or an incident isn't
            about the data.
    """
    decided = engine(source, candidates)
    check_data(source, decided.timeline, candidates)
    return compare_decided(source, decided, question)


def compare_decided(source: Source, decided: Decided, question: Question) -> Comparison:
    """
    Return what was decided, side by side.

    Raises:
        CannotTell: if there is no window.
        BadInput: if an incident isn't about the data.
    """
    timeline = decided.timeline
    if not len(timeline):
        raise CannotTell(f"{source.name} holds no window")
    check_labels(question.incidents, timeline, source.symbols)
    always_on = constant_track(timeline, source.symbols, is_on=True)
    base = decided.recorded or always_on
    scores = score_windows(timeline, base, source.symbols)
    judged: Sequence[Incident] | None = question.incidents or None
    if question.edge_below_bps is not None:
        judged = incidents_from_edge(
            timeline,
            scores,
            below_bps=question.edge_below_bps,
            windows=question.edge_windows,
        )
    tracks = [*([decided.recorded] if decided.recorded else []), *decided.tracks, always_on]
    tracks.append(constant_track(timeline, source.symbols, is_on=False))
    results = [
        _result(
            timeline,
            track,
            diverge(timeline, track, base, source.symbols) if track is not base else None,
            count_money(scores, track),
            None if judged is None else judge_track(timeline, track, judged),
            question.flap_windows,
        )
        for track in tracks
    ]
    return _comparison(source, timeline, base.name, scores, results, question.flap_windows)


def check_data(source: Source, timeline: Timeline, candidates: Sequence[Candidate]) -> None:
    """
    Check that the data has the source's symbols, and what the candidates require of them.

    Raises:
        CannotTell: if there is no window.
        BadInput: naming the symbol, or the KPI and the candidate.
    """
    if not len(timeline):
        raise CannotTell(f"{source.name} holds no window")
    seen = {symbol: timeline.valid_kpis.get(symbol, set()) for symbol in source.symbols}
    unknown = [symbol for symbol, kpis in seen.items() if not kpis]
    if unknown:
        there = ", ".join(symbol for symbol in timeline.valid_kpis if symbol not in unknown)
        raise BadInput(
            f"{source.name}: {', '.join(unknown)} never has a valid value; "
            f"leave it out with --symbols{f' ({there} have some)' if there else ''}"
        )
    for candidate in candidates:
        for kpi in () if candidate.policy is None else candidate.policy.required_kpis:
            lacking = [symbol for symbol, kpis in seen.items() if kpi not in kpis]
            if lacking:
                raise BadInput(
                    f"{source.name}: {candidate.name} requires {kpi}, of which "
                    f"{', '.join(lacking)} never has a valid value: it would be frozen for good; "
                    "take it out of the policy's required_kpis, or the symbol out of --symbols"
                )


def count_flaps(timeline: Timeline, track: Track, within: int) -> tuple[int, int]:
    """Return the flaps and the freezes again; see `PolicyResult`."""
    flaps = refreezes = 0
    loose_at: int | None = None
    unfrozen_at: int | None = None
    before, position = track.first_state, 0
    for row, state in enumerate(track.states):
        position += timeline.windows[row]
        if state > before:
            flaps += loose_at is not None and position - loose_at <= within
            if state == FROZEN:
                refreezes += unfrozen_at is not None and position - unfrozen_at <= within
        elif state < before:
            loose_at = position
            if before == FROZEN:
                unfrozen_at = position
        before = state
    return flaps, refreezes


def diverge(timeline: Timeline, track: Track, base: Track, symbols: Sequence[str]) -> Divergence:
    """Return how a track differs from the base."""
    differs = bytearray(
        ours != theirs for ours, theirs in zip(track.states, base.states, strict=True)
    )
    state_windows = sum(
        windows for windows, differ in zip(timeline.windows, differs, strict=True) if differ
    )
    for symbol in symbols:
        columns = zip(track.effective.of(symbol), base.effective.of(symbol), strict=True)
        for row, (ours, theirs) in enumerate(columns):
            # NaN, a symbol that isn't there, equals NaN only.
            if ours != theirs and (ours == ours or theirs == theirs):  # noqa: PLR0124
                differs[row] = 1
    first = differs.find(1)
    if first < 0:
        return Divergence(None, 0, 0, 1.0)
    exact = sum(timeline.windows[: first + 1])
    return Divergence(
        first=format_time(timeline.starts_ms[first]),
        windows=sum(
            windows for windows, differ in zip(timeline.windows, differs, strict=True) if differ
        ),
        state_windows=state_windows,
        exact_share=exact / timeline.window_count,
    )


def _result(
    timeline: Timeline,
    track: Track,
    divergence: Divergence | None,
    money: Money,
    labels: Judgement | None,
    flap_windows: int,
) -> PolicyResult:
    windows_in = dict.fromkeys(map(str, STATES), 0)
    transitions, before = 0, track.first_state
    for state, windows in zip(track.states, timeline.windows, strict=True):
        windows_in[STATES[state]] += windows
        transitions += state != before
        before = state
    flaps, refreezes = count_flaps(timeline, track, flap_windows)
    first_freeze = None
    if track.freezes:
        first = track.freezes[0]
        first_freeze = FirstFreeze(
            format_time(timeline.starts_ms[first.row]), first.reasons, first.triggered_by
        )
    return PolicyResult(
        name=track.name,
        policy_hash=None if track.policy is None else track.policy.hash,
        windows_in=windows_in,
        transitions=transitions,
        freezes=len(track.freezes),
        first_freeze=first_freeze,
        flaps=flaps,
        refreezes=refreezes,
        divergence=divergence,
        money=money,
        labels=labels,
    )


def _comparison(
    source: Source,
    timeline: Timeline,
    baseline: str,
    scores: Scores,
    results: list[PolicyResult],
    flap_windows: int,
) -> Comparison:
    censored = sum(scores.censored.values())
    seen = len(scores.rows) + censored
    gaps = zip(timeline.windows, timeline.is_gap, strict=True)
    return Comparison(
        source=source.name,
        symbols=source.symbols,
        interval_ms=timeline.interval_ms,
        first=format_time(timeline.starts_ms[0]),
        last=format_time(timeline.end_ms(len(timeline) - 1) - timeline.interval_ms),
        end=format_time(timeline.end_ms(len(timeline) - 1)),
        windows=timeline.window_count,
        gap_windows=sum(windows for windows, is_gap in gaps if is_gap),
        baseline=baseline,
        flap_windows=flap_windows,
        unit=scores.unit,
        scored=len(scores.rows),
        censored=censored,
        censored_share=censored / seen if seen else 0.0,
        censored_by=scores.censored,
        scaled=scores.scaled,
        results=results,
    )
