"""Every engine comes to what the core's decisions, window by window, come to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_support import shapes, told
from long_series import TROUBLES, long_series, random_policy
from random_stories import policies, series

from domain.errors import BadInput
from domain.kernel.decisions import decide_plain_series
from domain.kernel.grid import PolicyGrid
from domain.kernel.outcomes import MoneyOutcomes, StateOutcomes, state_outcomes_of
from domain.policy import Policy
from replay.sweeping import Engine, Money, sweep

ENGINES: tuple[Engine, ...] = ("words", "integers")
MONEYS: tuple[Money, ...] = ("total", "symbols")


def same_states(ours: StateOutcomes, theirs: StateOutcomes) -> None:
    for name in StateOutcomes.__struct_fields__:
        assert getattr(ours, name).tolist() == getattr(theirs, name).tolist(), name


@settings(derandomize=True, deadline=None, max_examples=1000)
@given(st.data())
def test_bitmaps_in_python_integers_agree_with_the_loop(data: st.DataObject) -> None:
    symbols, limit = data.draw(shapes())
    chosen = data.draw(st.lists(policies(limit, global_freeze_symbols=1), min_size=1, max_size=4))
    story = told(data.draw(series), symbols, limit)
    if not story.windows:
        return
    flap_windows = data.draw(st.integers(0, 5))
    decisions = [decide_plain_series(story.series, policy, fast=False) for policy in chosen]
    outcomes = sweep(story.series, chosen, flap_windows=flap_windows)
    same_states(outcomes.states, state_outcomes_of(decisions, flap_windows))


def test_a_grid_is_all_its_policies_in_order() -> None:
    axes: dict[str, list[float]] = {
        "min_edge_bps": [2.48, 2.5],
        "max_latency_ms": [350.0, 350.01],
        "no_data_freeze_windows": [1, 3],
        "min_ok_windows": [3, 12],
        "unfreeze_after_ok_windows": [3, 24],
    }
    grid = PolicyGrid(Policy(), axes)
    assert len(grid) == 24
    chosen = [grid.table.policy(number) for number in range(len(grid))]
    assert [policy.unfreeze_after_ok_windows for policy in chosen[:4]] == [3, 24, 24, 3]
    assert chosen[-1].thresholds["min_edge_bps"] == 2.5
    long = long_series(7, TROUBLES["with everything"])
    same_states(sweep(long, grid).states, sweep(long, chosen).states)


@pytest.mark.parametrize(
    ("axes", "complaint"),
    [
        ({"max_riks": [1.0]}, "unknown axis 'max_riks'"),
        ({"max_risk": []}, "max_risk: expected values, each once"),
        ({"max_risk": [0.4, 0.4]}, "max_risk: expected values, each once"),
        ({"max_risk": [-1.0]}, "max_risk: expected a finite number"),
        ({"min_warn_windows": [1.5]}, "min_warn_windows: expected whole numbers"),
        ({"cooldown_throttle": [0.9]}, "cooldown_throttle: expected 0.3 to 0.6"),
        ({"min_ok_windows": [9], "unfreeze_after_ok_windows": [8]}, "of at least min_ok_windows"),
    ],
)
def test_a_grid_that_is_none_is_refused(axes: dict[str, list[float]], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        PolicyGrid(Policy(), axes)


def same_money(ours: MoneyOutcomes | None, theirs: MoneyOutcomes | None) -> None:
    assert ours is not None
    assert theirs is not None
    assert ours.symbols == theirs.symbols
    assert ours.all_gains.tolist() == theirs.all_gains.tolist()
    assert ours.all_losses.tolist() == theirs.all_losses.tolist()
    np.testing.assert_allclose(ours.gains, theirs.gains, rtol=1e-12)
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=1e-12)


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("seed", range(6))
def test_money_and_states_of_every_engine_agree_over_many_words(trouble: str, seed: int) -> None:
    long = long_series(seed, TROUBLES[trouble])
    chance = np.random.default_rng(seed)
    chosen = [random_policy(chance, long.limit) for _ in range(8)]
    flap_windows = (0, 5, 30, 63, 64, 500)[seed]
    for money in MONEYS:
        looped = sweep(long, chosen, money=money, flap_windows=flap_windows, engine="loop")
        for engine in ENGINES:
            ours = sweep(long, chosen, money=money, flap_windows=flap_windows, engine=engine)
            same_states(ours.states, looped.states)
            same_money(ours.money, looped.money)
