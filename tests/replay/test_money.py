"""Loss avoided and edge forgone, against figures worked out by hand, and what must always hold."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replay_support import BTC, ETH, edges, one, source

from domain.policy import Policy
from replay.money import count_money, score_windows
from replay.source import SeriesSource
from replay.tracks import Candidate, Decided, Track, constant_track, track_by_core

# 2 OK windows end a freeze, which leads to ACTIVE; edge below 2.5 freezes.
QUICK = Policy(min_ok_windows=1, unfreeze_after_ok_windows=2, waived_when_halted=())


def decided(of: SeriesSource, policy: Policy = QUICK) -> Decided:
    return track_by_core(of, [Candidate("candidate", policy)])


def on(found: Decided, *, is_on: bool = True) -> Track:
    return constant_track(found.timeline, (BTC, ETH), is_on=is_on)


def test_a_window_is_never_earned_under_the_throttle_that_it_led_to() -> None:
    # -4 freezes at its end, so that it is itself lost; -6 and 3 are kept away; after the second OK
    # window trading goes on, so that 5 is earned.
    found = decided(edges(3.0, -4.0, -6.0, 3.0, 3.0, 5.0))
    track = found.tracks[0]
    assert list(track.in_force.of(BTC)) == [1.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    scores = score_windows(found.timeline, on(found), (BTC,))
    money = count_money(scores, track)
    assert scores.unit == "bps"
    assert money.always_on == 3 - 4 - 6 + 3 + 3 + 5
    assert money.loss_avoided == 6
    assert money.edge_forgone == 3 + 3
    assert money.earned == 3 - 4 + 5


def test_notional_weighs_where_it_is_known() -> None:
    found = decided(
        source(
            [{BTC: one(edge_bps=-5.0, notional=20_000.0)}, {BTC: one(edge_bps=-2.0, notional=1e6)}]
        )
    )
    scores = score_windows(found.timeline, on(found), (BTC,))
    money = count_money(scores, found.tracks[0])
    assert scores.unit == "quote"
    assert money.always_on == pytest.approx(-10 - 200)
    assert money.loss_avoided == pytest.approx(200)


def test_what_was_recorded_while_nothing_traded_is_a_share_and_not_a_zero() -> None:
    found = decided(
        source(
            [
                {BTC: one(edge_bps=3.0, notional=100.0)},
                {BTC: one(edge_bps=None, notional=100.0)},
                {BTC: one(edge_bps=3.0, notional=0.0)},
                {BTC: one(edge_bps=3.0, fills=0)},
                {BTC: one(edge_bps=3.0)},
            ]
        )
    )
    scores = score_windows(found.timeline, on(found), (BTC,))
    assert list(scores.rows) == [0]
    assert scores.censored == {"no edge": 1, "no fills": 2, "no notional": 1}
    halted = score_windows(found.timeline, on(found, is_on=False), (BTC,))
    assert list(halted.rows) == []
    assert halted.censored == {"halted": 5}


def test_a_notional_traded_at_half_throttle_is_half_of_what_it_would_have_been() -> None:
    found = decided(edges(4.0, notional=1_000.0))
    half = Track("recorded", None)
    half.in_force.append({BTC: 0.5})
    scores = score_windows(found.timeline, half, (BTC,))
    assert list(scores.weights) == [2_000.0]
    assert scores.scaled == 1
    # What was recorded earns what was recorded.
    assert count_money(scores, half).earned == pytest.approx(4.0 * 1_000.0 / 10_000)


def test_a_symbol_that_a_track_does_not_have_is_not_traded() -> None:
    two = source([{BTC: one(edge_bps=3.0), ETH: one(edge_bps=-1.0)}], (BTC, ETH))
    found = decided(two)
    only_btc = constant_track(found.timeline, (BTC,), is_on=True)
    money = count_money(score_windows(found.timeline, on(found), (BTC, ETH)), only_btc)
    assert (money.earned, money.loss_avoided, money.edge_forgone) == (3.0, 1.0, 0.0)


def test_missing_windows_are_neither_scored_nor_censored() -> None:
    found = decided(source([{BTC: one(edge_bps=3.0)}, None, None, {BTC: one(edge_bps=3.0)}]))
    scores = score_windows(found.timeline, on(found), (BTC,))
    assert list(found.timeline.windows) == [1, 2, 1]
    assert list(scores.rows) == [0, 2]
    assert scores.censored == {}


edge_series = st.lists(st.one_of(st.none(), st.floats(-20, 20)), min_size=1, max_size=40)


@given(edge_series, st.one_of(st.none(), st.floats(1, 1e6)))
def test_laws_of_money(series: list[float | None], notional: float | None) -> None:
    found = decided(edges(*series, notional=notional))
    scores = score_windows(found.timeline, on(found), (BTC,))
    always = count_money(scores, on(found))
    never = count_money(scores, on(found, is_on=False))
    money = count_money(scores, found.tracks[0])
    assert (always.loss_avoided, always.edge_forgone) == (0.0, 0.0)
    assert never.earned == pytest.approx(0.0, abs=1e-6)
    assert 0.0 <= money.loss_avoided <= never.loss_avoided
    assert 0.0 <= money.edge_forgone <= never.edge_forgone
    assert money.earned == pytest.approx(
        money.always_on + money.loss_avoided - money.edge_forgone, abs=1e-6
    )
    assert len(scores.rows) + sum(scores.censored.values()) == len(series)


@given(edge_series, st.floats(-20, 20))
def test_the_last_window_never_changes_how_it_is_earned_itself(
    series: list[float | None], last: float
) -> None:
    before, after = (decided(edges(*series, value)) for value in (3.0, last))
    assert list(before.tracks[0].in_force.of(BTC)) == list(after.tracks[0].in_force.of(BTC))
    assert not math.isnan(after.timeline.edge_bps.of(BTC)[-1])
