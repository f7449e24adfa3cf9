"""Incidents: read from files, found in the edge, and what a policy is worth against them."""

import pytest
from replay_support import BTC, ETH, MINUTE_MS, START_MS, edges, one, source

from domain.errors import BadInput
from domain.policy import Policy
from replay.labels import (
    Incident,
    check_labels,
    incidents_from_edge,
    judge_track,
    parse_labels,
)
from replay.money import score_windows
from replay.tracks import Candidate, Decided, constant_track, track_by_core

QUICK = Policy(min_ok_windows=1, unfreeze_after_ok_windows=2, waived_when_halted=())


def minutes(start: float, end: float, symbol: str | None = None) -> Incident:
    return Incident(
        START_MS + round(start * MINUTE_MS), START_MS + round(end * MINUTE_MS), symbol, place="x"
    )


def decided(*edge_bps: float) -> Decided:
    return track_by_core(edges(*edge_bps), [Candidate("candidate", QUICK)])


def test_a_freeze_is_in_force_from_the_windows_end_and_so_late_it_is() -> None:
    # FROZEN from 14:02 to 14:04, decided by the second window.
    found = decided(3.0, -1.0, 3.0, 3.0, 3.0, 3.0)
    judged = judge_track(
        found.timeline,
        found.tracks[0],
        [minutes(1, 4), minutes(0, 2), minutes(3, 6), minutes(4, 6)],
    )
    assert [one.frozen_after_sec for one in judged.detections] == [60.0, None, 0.0, None]
    assert (judged.caught, judged.missed, judged.needless_freezes) == (2, 2, 0)
    assert judged.median_delay_sec == 0.0
    assert judged.median_reduced_sec == 0.0


def test_a_freeze_that_no_incident_overlaps_is_needless() -> None:
    found = decided(3.0, -1.0, 3.0, 3.0, 3.0, 3.0, -1.0, 3.0)
    judged = judge_track(found.timeline, found.tracks[0], [minutes(0, 3)])
    assert (judged.freezes, judged.needless_freezes) == (2, 1)
    # Frozen 14:02 to 14:04 and 14:07 to 14:08; two of those three minutes lie in the five outside.
    assert judged.frozen_outside_share == pytest.approx(2 / 5)


def test_a_warning_reduces_and_does_not_freeze() -> None:
    slow = [{BTC: one(p95_latency_ms=400.0)} for _ in range(5)]
    found = track_by_core(source(slow), [Candidate("candidate", Policy(min_warn_windows=2))])
    judged = judge_track(found.timeline, found.tracks[0], [minutes(0, 5)])
    assert (judged.caught, judged.missed, judged.reduced) == (0, 1, 1)
    assert judged.detections[0].reduced_after_sec == judged.median_reduced_sec == 120.0


def test_an_incident_of_one_symbol_is_met_by_that_symbols_throttle() -> None:
    ill = [{BTC: one(), ETH: one(risk_ratio=0.9)} for _ in range(3)]
    policy = Policy(global_freeze_symbols=2)
    found = track_by_core(source(ill, (BTC, ETH)), [Candidate("candidate", policy)])
    judged = judge_track(found.timeline, found.tracks[0], [minutes(0, 3, ETH), minutes(0, 3, BTC)])
    assert [one.frozen_after_sec for one in judged.detections] == [60.0, None]
    assert judged.freezes == 0


def test_a_controller_that_is_always_off_misses_nothing_and_is_frozen_all_the_time() -> None:
    found = decided(3.0, 3.0, 3.0, 3.0)
    off = constant_track(found.timeline, (BTC,), is_on=False)
    judged = judge_track(found.timeline, off, [minutes(1, 2)])
    assert (judged.missed, judged.frozen_outside_share) == (0, 1.0)
    on = constant_track(found.timeline, (BTC,), is_on=True)
    judged = judge_track(found.timeline, on, [minutes(1, 2)])
    assert (judged.missed, judged.needless_freezes, judged.frozen_outside_share) == (1, 0, 0.0)


def test_the_edge_itself_says_where_incidents_were() -> None:
    # Means of two: 3, 0.5, -2, -2, 0.5, 3: those below 0 are the stretches 2-3 and 3-4.
    found = decided(3.0, 3.0, -2.0, -2.0, -2.0, 3.0, 3.0)
    scores = score_windows(
        found.timeline, constant_track(found.timeline, (BTC,), is_on=True), (BTC,)
    )
    incidents = incidents_from_edge(found.timeline, scores, below_bps=0.0, windows=2)
    assert [(one.start_ms, one.end_ms) for one in incidents] == [
        (START_MS + 2 * MINUTE_MS, START_MS + 5 * MINUTE_MS)
    ]
    assert incidents_from_edge(found.timeline, scores, below_bps=-5.0, windows=2) == []


def test_a_stretch_that_is_hardly_known_or_not_over_yet_says_nothing() -> None:
    windows = [{BTC: one(edge_bps=edge)} for edge in (-1.0, None, None, -1.0)]
    found = track_by_core(source(windows), [Candidate("candidate", QUICK)])
    scores = score_windows(
        found.timeline, constant_track(found.timeline, (BTC,), is_on=True), (BTC,)
    )
    assert incidents_from_edge(found.timeline, scores, below_bps=0.0, windows=3) == []
    half = incidents_from_edge(found.timeline, scores, below_bps=0.0, windows=2)
    assert [(one.start_ms, one.end_ms) for one in half] == [(START_MS, START_MS + 4 * MINUTE_MS)]


def test_labels_are_read_from_csv_and_json_alike() -> None:
    csv = "start,end,symbol,name\n2026-01-05T14:00:00Z,2026-01-05T14:05:00,,leak\n"
    json = '[{"start": "2026-01-05T14:00Z", "end": "2026-01-05T15:05+01:00", "name": "leak"}]'
    from_csv = parse_labels(csv, source="l.csv", is_json=False)
    from_json = parse_labels(json, source="l.json", is_json=True)
    assert from_csv == [Incident(START_MS, START_MS + 5 * MINUTE_MS, None, "leak", "l.csv line 2")]
    assert from_json == [
        Incident(START_MS, START_MS + 5 * MINUTE_MS, None, "leak", "l.json item 1")
    ]


@pytest.mark.parametrize(
    ("text", "is_json", "message"),
    [
        ("", False, "l line 1: expected a header of start, end"),
        ("start,end\n", False, "l: expected at least one incident, was none"),
        ("start,end,colour\n", False, "l line 1: expected a header of start, end"),
        ("start,end\n2026-01-05,x\n", False, "l line 2: expected end to be a time such as"),
        ("start,end\n2026-01-05\n", False, "l line 2: expected 2 cells, was another number"),
        ("start,end\n2026-01-06,2026-01-05\n", False, "l line 2: expected an end after the start"),
        ("{}", True, "l: expected an array of incidents, was dict"),
        ("[1]", True, "l item 1: expected an object, was int"),
        ("[", True, "l: expected JSON"),
        ('[{"start": 5, "end": 6}]', True, "l item 1: expected start to be a time"),
        ('[{"begin": 5}]', True, "l item 1: unknown key 'begin'; known: start, end, symbol, name"),
        (
            '[{"start": "2026-01-05", "end": "2026-01-06", "symbol": 5}]',
            True,
            "l item 1: expected symbol to be text, was 5",
        ),
    ],
)
def test_labels_that_are_none_name_the_line(text: str, is_json: bool, message: str) -> None:
    with pytest.raises(BadInput) as error:
        parse_labels(text, source="l", is_json=is_json)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("incident", "message"),
    [
        (minutes(-9, -5), "x: expected an incident within the data, 2026-01-05T14:00:00Z to "),
        (minutes(2, 3), "2026-01-05T14:02:00Z, was 2026-01-05T14:02:00Z to 2026-01-05T14:03:00Z"),
        (minutes(0, 1, "SOLUSDT"), "x: expected one of BTCUSDT, was SOLUSDT"),
    ],
)
def test_labels_that_are_not_about_the_data_are_refused(incident: Incident, message: str) -> None:
    with pytest.raises(BadInput) as error:
        check_labels([minutes(1, 2), incident], decided(3.0, 3.0).timeline, (BTC,))
    assert message in str(error.value)
