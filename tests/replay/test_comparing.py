"""Policies side by side: what differs, from when on, and that what was recorded comes out again."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replay_support import BTC, ETH, edges, ledger_source, one, source

from domain.errors import BadInput, CannotTell
from domain.policy import Policy
from ledger.application import Ledger
from ledger.location import LedgerLocation
from replay.comparing import Comparison, Question, compare, count_flaps
from replay.source import SeriesSource
from replay.tracks import STATES, Candidate, Timeline, Track, track_by_core

GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("*.sqlite"))
QUICK = Policy(min_ok_windows=1, unfreeze_after_ok_windows=2, waived_when_halted=())
QUICK_LOOSE = Policy(
    thresholds={**QUICK.thresholds, "min_edge_bps": -5.0},
    min_ok_windows=1,
    unfreeze_after_ok_windows=2,
    waived_when_halted=(),
)


def compared(of: SeriesSource, *policies: Policy, question: Question | None = None) -> Comparison:
    candidates = [Candidate(f"policy {index}", policy) for index, policy in enumerate(policies)]
    return compare(of, candidates, question or Question())


def test_two_policies_stand_beside_always_on_and_always_off() -> None:
    found = compared(edges(3.0, -1.0, -2.0, 3.0, 3.0, 3.0), QUICK, QUICK_LOOSE)
    assert [result.name for result in found.results] == [
        "policy 0", "policy 1", "always on", "always off",
    ]  # fmt: skip
    strict, loose, on, off = found.results
    # FROZEN after the second and the third window and the one after; let go after two OK ones.
    assert strict.windows_in == {"ACTIVE": 3, "COOLDOWN": 0, "FROZEN": 3}
    assert (strict.freezes, strict.transitions) == (1, 2)
    assert strict.first_freeze is not None
    assert strict.first_freeze.window == "2026-01-05T14:01:00Z"
    assert strict.first_freeze.reasons == ("edge_bps=-1.0 < 2.5",)
    assert strict.divergence is not None
    assert strict.divergence.first == "2026-01-05T14:01:00Z"
    assert (strict.divergence.windows, strict.divergence.state_windows) == (3, 3)
    assert strict.divergence.exact_share == pytest.approx(2 / 6)
    assert (loose.freezes, loose.windows_in["ACTIVE"]) == (0, 6)
    assert loose.divergence is not None
    assert (loose.divergence.first, loose.divergence.exact_share) == (None, 1.0)
    assert found.baseline == "always on"
    assert on.divergence is None
    assert off.divergence is not None
    assert off.divergence.first == "2026-01-05T14:00:00Z"
    assert on.money.loss_avoided == on.money.edge_forgone == off.money.earned == 0.0


def test_reduced_soon_after_a_recovery_is_a_flap_and_later_is_not() -> None:
    # Frozen by window 0, let go after 2; frozen by 3 (one later), let go after 5; frozen by 9.
    series = edges(-1.0, 3.0, 3.0, -1.0, 3.0, 3.0, 3.0, 3.0, 3.0, -1.0)
    found = compared(series, QUICK, question=Question(flap_windows=3))
    assert (found.results[0].flaps, found.results[0].refreezes) == (1, 1)
    assert found.results[0].freezes == 3
    found = compared(series, QUICK, question=Question(flap_windows=4))
    assert (found.results[0].flaps, found.results[0].refreezes) == (2, 2)


def test_a_freeze_after_probation_is_a_freeze_again_and_a_cooldown_after_active_is_a_flap() -> None:
    timeline, track = Timeline(60_000), Track("x", None)
    for state in ("FROZEN", "COOLDOWN", "FROZEN", "ACTIVE", "COOLDOWN"):
        timeline.windows.append(1)
        track.states.append([str(name) for name in STATES].index(state))
    assert count_flaps(timeline, track, 1) == (2, 1)
    assert count_flaps(timeline, track, 9) == (2, 1)


def test_missing_windows_count_by_how_many_they_are() -> None:
    windows = [{BTC: one()}, *[None] * 10, {BTC: one()}]
    found = compared(source(windows), Policy())
    assert (found.windows, found.gap_windows) == (12, 10)
    assert found.results[0].windows_in == {"ACTIVE": 1, "COOLDOWN": 0, "FROZEN": 11}


def test_a_source_without_a_required_kpi_is_refused_and_the_symbols_are_named() -> None:
    windows = [{BTC: one(), ETH: one(p95_latency_ms=None)}]
    with pytest.raises(BadInput) as error:
        compared(source(windows, (BTC, ETH)), Policy())
    assert (
        "test: policy 0 requires p95_latency_ms, of which ETHUSDT never has a valid value"
        in str(error.value)
    )
    optional = Policy(required_kpis=("edge_bps", "risk_ratio"))
    assert compared(source(windows, (BTC, ETH)), optional).results[0].freezes == 0


def test_an_unknown_symbol_is_refused_and_those_that_there_are_are_named() -> None:
    with pytest.raises(BadInput, match=r"SOLUSDT never has a valid value.*\(BTCUSDT have some\)"):
        compared(source([{BTC: one()}], (BTC, "SOLUSDT")), Policy())


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a copy: not even an open to read may touch the original."""
    return Path(shutil.copy(request.param, tmp_path))


def test_what_a_ledger_recorded_is_what_the_core_decides_again(golden: Path) -> None:
    with Ledger.open(LedgerLocation(golden), read_only=True) as ledger:
        for stream_id in ledger.stream_ids():
            opened = ledger_source(ledger, stream_id)
            decided = track_by_core(opened, [Candidate("again", None)])
            recorded, again = decided.recorded, decided.tracks[0]
            assert recorded is not None
            assert len(recorded.states) > 0
            assert recorded.states == again.states
            assert recorded.first_state == again.first_state
            assert recorded.freezes == again.freezes
            for symbol in opened.symbols:
                for ours, theirs in (
                    (again.effective, recorded.effective),
                    (again.in_force, recorded.in_force),
                ):
                    assert str(ours.of(symbol)) == str(theirs.of(symbol))
            found = compare(opened, [Candidate("again", None)], Question())
            assert found.baseline == "recorded"
            assert found.results[1].divergence is not None
            assert found.results[1].divergence.windows == 0
            assert found.results[1].money == found.results[0].money


def test_a_ledger_without_a_window_cannot_tell(tmp_path: Path) -> None:
    with pytest.raises(CannotTell, match="test holds no window"):
        compare(source([]), [Candidate("x", Policy())], Question())


@given(
    st.lists(st.floats(-10, 10), min_size=1, max_size=30),
    st.floats(-10, 10),
    st.floats(-10, 10),
)
def test_laws_of_comparing(series: list[float], one_edge: float, other_edge: float) -> None:
    policies = [
        Policy(
            thresholds={**QUICK.thresholds, "min_edge_bps": threshold},
            min_ok_windows=2,
            unfreeze_after_ok_windows=3,
        )
        for threshold in (one_edge, other_edge)
    ]
    both = compared(edges(*series), *policies)
    alone = compared(edges(*series), policies[1])
    assert both.results[1].windows_in == alone.results[0].windows_in
    assert both.results[1].money == alone.results[0].money
    for result in both.results:
        assert sum(result.windows_in.values()) == both.windows == len(series)
        assert result.refreezes <= result.freezes
        if result.divergence is not None and result.divergence.first is None:
            assert result.money == both.results[-2].money
