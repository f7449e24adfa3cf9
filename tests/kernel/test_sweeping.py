"""Every engine comes to what the core's decisions, window by window, come to."""

import os
from pathlib import Path

import numpy as np
import pytest
from decider_spec import BTC, ETH, HEALTHY, MINUTE_MS, NO_FILLS, START_MS
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_support import core_decides, core_rows, kernel_rows, same_rows, shapes, told
from long_series import TROUBLES, long_series, random_policy
from msgspec.structs import replace
from random_stories import policies, series

from domain.errors import BadInput
from domain.kernel import outcomes as outcomes_module
from domain.kernel import plan
from domain.kernel.decisions import decide_plain_series
from domain.kernel.grid import PolicyGrid
from domain.kernel.outcomes import MoneyOutcomes, StateOutcomes, state_outcomes_of
from domain.policy import Policy, overlay_mapping
from domain.windows import SymbolReadings, WindowReadings
from feeds.kpi_file import open_kpi_file
from replay import sweeping
from replay.commands import commands_of_windows
from replay.preparing import series_of_windows
from replay.sweeping import Engine, Money, decide_series, sweep

ENGINES: tuple[Engine, ...] = ("words", "integers")
MONEYS: tuple[Money, ...] = ("total", "symbols")


def same_states(ours: StateOutcomes, theirs: StateOutcomes) -> None:
    for name in StateOutcomes.__struct_fields__:
        assert getattr(ours, name).tolist() == getattr(theirs, name).tolist(), name


@settings(derandomize=True, deadline=None, max_examples=500)
@given(st.data())
def test_every_engine_comes_to_what_the_core_decides(data: st.DataObject) -> None:
    symbols, limit = data.draw(shapes())
    chosen = data.draw(st.lists(policies(limit), min_size=1, max_size=3))
    story = told(data.draw(series), symbols, limit)
    if not story.windows:
        return
    flap_windows = data.draw(st.integers(0, 5))
    decisions = [decide_plain_series(story.series, policy, fast=False) for policy in chosen]
    for policy, decided in zip(chosen, decisions, strict=True):
        cores = core_decides(story, policy)
        same_rows(kernel_rows(decided, [row.window for row in cores], story.symbols), cores)
    expected = state_outcomes_of(decisions, flap_windows)
    for engine in ENGINES:
        outcomes = sweep(story.series, chosen, flap_windows=flap_windows, engine=engine)
        same_states(outcomes.states, expected)


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


def test_money_is_that_of_the_throttle_decided_a_window_before() -> None:
    # CRIT in window 1: window 1 was still traded in full, and 2 to 4 not at all; in 5 it is again.
    edges = [3.0, 1.0, 3.0, 3.0, 3.0, 3.0]
    windows = [
        WindowReadings(
            START_MS + number * MINUTE_MS,
            {BTC: SymbolReadings({**HEALTHY, "edge_bps": edge}, notional=10_000.0, fills=3)},
        )
        for number, edge in enumerate(edges)
    ]
    short = series_of_windows(windows, symbols=(BTC,), interval_ms=MINUTE_MS)
    policy = Policy(min_ok_windows=1, unfreeze_after_ok_windows=3)
    for engine in (*ENGINES, "loop"):
        money = sweep(short, [policy], money="symbols", engine=engine).money
        assert money is not None
        assert money.always_on.tolist() == [16.0]
        assert money.earned.tolist() == [[7.0]]
        assert money.edge_forgone.tolist() == [[9.0]]
        assert money.loss_avoided.tolist() == [[0.0]]


def test_windows_in_which_nothing_traded_are_censored_and_not_scored() -> None:
    windows = [
        WindowReadings(START_MS, {BTC: SymbolReadings(HEALTHY, notional=10_000.0, fills=3)}),
        WindowReadings(START_MS + MINUTE_MS, {BTC: SymbolReadings(HEALTHY, notional=0.0)}),
        WindowReadings(START_MS + 2 * MINUTE_MS, {BTC: SymbolReadings(HEALTHY, 10_000.0, 0)}),
        WindowReadings(START_MS + 3 * MINUTE_MS, {BTC: NO_FILLS}),
    ]
    quiet = series_of_windows(windows, symbols=(BTC, ETH), interval_ms=MINUTE_MS)
    money = sweep(quiet, [Policy()], money="symbols").money
    assert money is not None
    assert money.all_gains.tolist() == [3.5, 0.0]
    assert money.censored == {BTC: 0.75, ETH: 1.0}
    assert money.unit_weight == (ETH,)


def test_sums_that_an_int64_could_not_hold_are_in_a_coarser_unit() -> None:
    huge = SymbolReadings({**HEALTHY, "edge_bps": 1e15}, notional=1e12, fills=1)
    windows = [WindowReadings(START_MS + number * MINUTE_MS, {BTC: huge}) for number in range(9)]
    rich = series_of_windows(windows, symbols=(BTC,), interval_ms=MINUTE_MS)
    money = sweep(rich, [Policy()], money="total").money
    assert money is not None
    np.testing.assert_allclose(money.always_on, [9e23], rtol=1e-12)


def test_a_policy_that_could_never_freeze_is_refused_as_the_core_refuses_it() -> None:
    long = long_series(3, TROUBLES["calm"], symbols=1)
    with pytest.raises(BadInput, match="the global freeze could never come"):
        sweep(long, [Policy(), Policy(global_freeze_symbols=2)])
    with pytest.raises(BadInput, match="expected policies, was none"):
        sweep(long, [])


@pytest.mark.skipif("LIVE_REAL_DATA" not in os.environ, reason="LIVE_REAL_DATA is not set")
@pytest.mark.parametrize("global_freeze_symbols", [1, 2])
def test_real_data_is_decided_as_the_core_decides_it(global_freeze_symbols: int) -> None:
    for path in sorted(Path(os.environ["LIVE_REAL_DATA"], "kpi").glob("*.parquet")):
        feed = open_kpi_file(path)
        windows = tuple(feed.windows())
        real = series_of_windows(windows, symbols=feed.symbols, interval_ms=feed.interval_ms)
        thresholds = {"min_edge_bps": -2.0, "max_latency_ms": 900.0, "max_anomaly": 3.0}
        chosen = [
            overlay_mapping(Policy(), {"thresholds": thresholds, **counts}, source="test")
            for counts in (
                {},
                {"unfreeze_after_ok_windows": 12, "min_ok_windows": 3},
                {"required_kpis": ["risk_ratio"], "waived_when_halted": []},
            )
        ]
        if global_freeze_symbols <= len(feed.symbols):
            chosen = [replace(one, global_freeze_symbols=global_freeze_symbols) for one in chosen]
        for policy in chosen:
            commands = commands_of_windows(
                windows, symbols=feed.symbols, interval_ms=feed.interval_ms, policy=policy,
                profile=None,
            )  # fmt: skip
            cores = core_rows(commands, real.start_ms, real.interval_ms)
            decided = decide_series(real, policy)
            same_rows(kernel_rows(decided, [row.window for row in cores], feed.symbols), cores)
        looped = sweep(real, chosen, money="symbols", engine="loop")
        for engine in ENGINES:
            ours = sweep(real, chosen, money="symbols", engine=engine)
            same_states(ours.states, looped.states)
            same_money(ours.money, looped.money)


def test_what_doesnt_fit_into_memory_at_once_comes_to_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chance = np.random.default_rng(5)
    for money in MONEYS:
        at_once = sweep(long_series(5, TROUBLES["with gaps"]), [Policy()], money=money)
        with monkeypatch.context() as small:
            small.setattr(sweeping, "PREFIX_MAX_BYTES", 1)
            small.setattr(outcomes_module, "STAKES_MAX_BYTES", 1)
            small.setattr(plan, "ROWS_MAX_BYTES", 1)
            long = long_series(5, TROUBLES["with gaps"])
            chosen = [Policy(), *(random_policy(chance, long.limit) for _ in range(5))]
            by_symbol = sweep(long, chosen, money=money)
        same_states(sweep(long, chosen).states, by_symbol.states)
        assert by_symbol.money is not None
        assert at_once.money is not None
        np.testing.assert_allclose(by_symbol.money.gains[0], at_once.money.gains[0], rtol=1e-12)
        np.testing.assert_allclose(by_symbol.money.losses[0], at_once.money.losses[0], rtol=1e-12)
