"""Adopting policies, symbols and profiles: what loosens, what that costs, who is remembered."""

from typing import Any

import pytest
from decider_spec import (
    BTC,
    CRIT,
    ETH,
    NO_FILLS,
    SHORT,
    SOL,
    START_MS,
    WARN,
    Ledger,
    frozen,
    only,
    profile,
    readings,
)
from msgspec.structs import replace

from domain.commands import AdoptPolicy
from domain.controller import decide
from domain.errors import CommandRefused
from domain.events import PolicyAdopted
from domain.policy import Policy
from domain.state import State

DEFAULT = Policy()


def thresholds(**changes: float) -> dict[str, Any]:
    return {"thresholds": {**DEFAULT.thresholds, **changes}}


# key, changes of the default policy, does it loosen
CHANGES: list[tuple[str, dict[str, Any], bool]] = [
    ("thresholds.min_edge_bps: 2.5 -> 2.0", thresholds(min_edge_bps=2.0), True),
    ("thresholds.min_edge_bps: 2.5 -> 3.0", thresholds(min_edge_bps=3.0), False),
    ("thresholds.min_maker_taker: 0.83 -> 0.8", thresholds(min_maker_taker=0.8), True),
    ("thresholds.min_maker_taker: 0.83 -> 0.9", thresholds(min_maker_taker=0.9), False),
    ("thresholds.max_risk: 0.4 -> 0.5", thresholds(max_risk=0.5), True),
    ("thresholds.max_risk: 0.4 -> 0.3", thresholds(max_risk=0.3), False),
    ("thresholds.max_latency_ms: 350.0 -> 400.0", thresholds(max_latency_ms=400.0), True),
    ("thresholds.max_latency_ms: 350.0 -> 300.0", thresholds(max_latency_ms=300.0), False),
    ("thresholds.max_anomaly: 2.0 -> 2.5", thresholds(max_anomaly=2.5), True),
    ("thresholds.max_anomaly: 2.0 -> 1.5", thresholds(max_anomaly=1.5), False),
    ("symbols.BTCUSDT.max_risk: 0.4 -> 0.5", {"symbols": {BTC: {"max_risk": 0.5}}}, True),
    ("symbols.BTCUSDT.max_risk: 0.4 -> 0.3", {"symbols": {BTC: {"max_risk": 0.3}}}, False),
    ("min_warn_windows: 3 -> 4", {"min_warn_windows": 4}, True),
    ("min_warn_windows: 3 -> 2", {"min_warn_windows": 2}, False),
    ("min_ok_windows: 12 -> 11", {"min_ok_windows": 11}, True),
    ("min_ok_windows: 12 -> 13", {"min_ok_windows": 13}, False),
    ("unfreeze_after_ok_windows: 24 -> 23", {"unfreeze_after_ok_windows": 23}, True),
    ("unfreeze_after_ok_windows: 24 -> 25", {"unfreeze_after_ok_windows": 25}, False),
    ("no_data_freeze_windows: 3 -> 4", {"no_data_freeze_windows": 4}, True),
    ("no_data_freeze_windows: 3 -> 2", {"no_data_freeze_windows": 2}, False),
    ("global_freeze_symbols: 1 -> 2", {"global_freeze_symbols": 2}, True),
    ("cooldown_throttle: 0.5 -> 0.6", {"cooldown_throttle": 0.6}, True),
    ("cooldown_throttle: 0.5 -> 0.4", {"cooldown_throttle": 0.4}, False),
    (
        "required_kpis: edge_bps, maker_taker_ratio, p95_latency_ms, risk_ratio -> risk_ratio",
        {"required_kpis": ("risk_ratio",)},
        True,
    ),
    (
        "required_kpis: edge_bps, maker_taker_ratio, p95_latency_ms, risk_ratio -> "
        "anomaly_score, edge_bps, maker_taker_ratio, p95_latency_ms, risk_ratio",
        {"required_kpis": (*DEFAULT.required_kpis, "anomaly_score")},
        False,
    ),
    (
        "waived_when_halted: edge_bps, maker_taker_ratio -> "
        "anomaly_score, edge_bps, maker_taker_ratio",
        {"waived_when_halted": (*DEFAULT.waived_when_halted, "anomaly_score")},
        True,
    ),
    (
        "waived_when_halted: edge_bps, maker_taker_ratio -> none",
        {"waived_when_halted": ()},
        False,
    ),
]


@pytest.mark.parametrize(("told", "changes", "loosens"), CHANGES, ids=lambda v: str(v)[:45])
def test_each_direction_of_each_key_loosens_or_does_not(
    told: str, changes: dict[str, Any], loosens: bool
) -> None:
    ledger = Ledger(None, BTC, ETH)
    adopted = only(ledger.adopt(replace(DEFAULT, **changes)), PolicyAdopted)
    assert adopted.loosened is loosens
    assert adopted.changes == (told + (" (loosens)" if loosens else ""),)
    assert adopted.policy_hash == replace(DEFAULT, **changes).hash


@pytest.mark.parametrize(("told", "changes", "loosens"), CHANGES, ids=lambda v: str(v)[:45])
def test_in_prod_loosening_is_refused_with_the_difference_until_somebody_agrees(
    told: str, changes: dict[str, Any], loosens: bool
) -> None:
    ledger = Ledger(None, BTC, ETH)
    policy = replace(DEFAULT, **changes)
    if not loosens:
        assert ledger.adopt(policy, allow_loosening=False)
        return
    with pytest.raises(CommandRefused) as refusal:
        ledger.adopt(policy, allow_loosening=False)
    assert str(refusal.value) == (
        "this loosens the policy in force and must be agreed to (--adopt-policy):\n"
        f"  {told} (loosens)"
    )


def test_a_mixed_change_loosens_and_the_difference_names_all_of_it() -> None:
    ledger = Ledger()
    adopted = only(ledger.adopt(Policy(min_warn_windows=2, min_ok_windows=6)), PolicyAdopted)
    assert adopted.loosened
    assert adopted.changes == ("min_warn_windows: 3 -> 2", "min_ok_windows: 12 -> 6 (loosens)")


def test_the_own_thresholds_of_a_symbol_loosen_when_they_are_dropped_or_swapped() -> None:
    ledger = Ledger(Policy(symbols={ETH: {"max_risk": 0.3}, SOL: {"max_risk": 0.1}}), BTC, ETH)
    adopted = only(ledger.adopt(Policy()), PolicyAdopted)
    assert adopted.changes == ("symbols.ETHUSDT.max_risk: 0.3 -> 0.4 (loosens)",)


def test_what_is_in_force_already_is_not_adopted_again() -> None:
    ledger = Ledger(None, BTC, ETH, limits=profile(2))
    assert ledger.adopt(Policy()) == []
    assert ledger.adopt(Policy(waived_when_halted=("maker_taker_ratio", "edge_bps"))) == []


def test_the_first_adoption_loosens_nothing() -> None:
    adopt = AdoptPolicy(
        window=START_MS, policy=Policy(min_warn_windows=9), symbols=(BTC,), allow_loosening=False
    )
    adopted = only(decide(Policy(), State(), adopt), PolicyAdopted)
    assert (adopted.loosened, adopted.changes) == (False, ())


def test_loosening_sets_every_count_of_ok_windows_to_zero() -> None:
    ledger = Ledger(Policy(global_freeze_symbols=2), BTC, ETH)
    ledger.windows(1, CRIT)
    ledger.windows(20, ETHUSDT=NO_FILLS)
    ledger.adopt(Policy(global_freeze_symbols=2, min_warn_windows=4))
    assert (ledger.state.ok_windows, ledger.state.excused) == (0, False)
    assert [one.ok_windows for one in ledger.state.symbols] == [0, 0]
    assert [one.excused for one in ledger.state.symbols] == [False, False]


@pytest.mark.parametrize(
    ("changes", "left"),
    [({}, 1), ({"cooldown_throttle": 0.3}, 1), ({"cooldown_throttle": 0.6}, 3)],
)
def test_a_recovery_starts_again_after_loosening_but_goes_on_after_tightening(
    changes: dict[str, Any], left: int
) -> None:
    ledger = frozen(SHORT)
    ledger.windows(2)
    ledger.adopt(replace(SHORT, **changes))
    ledger.windows(left - 1)
    assert ledger.mode == ("FROZEN", 0.0)
    ledger.windows(1)
    assert ledger.mode == ("ACTIVE", 1.0)


def test_a_policy_is_in_force_from_the_next_window_and_reinterprets_nothing() -> None:
    ledger = Ledger(None, BTC)
    ledger.windows(1, readings(risk_ratio=0.35))
    observed, mode = ledger.state.observed, ledger.mode
    ledger.adopt(replace(DEFAULT, **thresholds(max_risk=0.3)))
    assert (ledger.state.observed, ledger.mode) == (observed, mode)
    ledger.windows(1, readings(risk_ratio=0.35))
    assert ledger.reasons_of() == ["risk=0.35 > 0.30"]


def test_a_new_throttle_for_cooldown_holds_from_the_next_window() -> None:
    ledger = Ledger(SHORT)
    ledger.windows(2, WARN)
    ledger.adopt(replace(SHORT, cooldown_throttle=0.3))
    assert ledger.mode == ("COOLDOWN", 0.5)
    ledger.windows(1)
    assert ledger.mode == ("COOLDOWN", 0.3)


def test_whatever_could_improve_a_verdict_loosens_even_a_global_freeze_at_fewer_symbols() -> None:
    policy = replace(SHORT, global_freeze_symbols=2, min_warn_windows=99)
    ledger = Ledger(policy, BTC, ETH)
    ledger.windows(1, BTCUSDT=CRIT)
    ledger.windows(1, ETHUSDT=CRIT)
    ledger.windows(1)
    assert ledger.verdict == "WARN"  # every symbol is frozen on its own
    adopted = only(ledger.adopt(replace(policy, global_freeze_symbols=1)), PolicyAdopted)
    ledger.windows(1)
    assert ledger.verdict == "OK"
    assert adopted.loosened


# Symbols.


def test_a_new_symbol_starts_unfrozen_at_zero_counters_and_loosens_nothing() -> None:
    ledger = Ledger(SHORT, BTC)
    ledger.windows(5)
    adopted = only(ledger.adopt(SHORT, BTC, ETH), PolicyAdopted)
    assert (adopted.loosened, adopted.changes) == (False, ("symbols: BTCUSDT -> BTCUSDT,ETHUSDT",))
    new = ledger.state.symbols[1]
    assert (new.throttle, new.ok_windows, new.frozen, new.no_data) == (1.0, 0, False, {})
    assert ledger.state.ok_windows == 5


def test_a_removed_symbol_is_loosening() -> None:
    ledger = Ledger(SHORT, BTC, ETH)
    with pytest.raises(CommandRefused, match=r"symbols: BTCUSDT,ETHUSDT -> BTCUSDT \(loosens\)"):
        ledger.adopt(SHORT, BTC, allow_loosening=False)
    assert only(ledger.adopt(SHORT, BTC), PolicyAdopted).loosened


def test_a_re_added_symbol_has_its_freeze_and_counts_its_ok_windows_from_zero() -> None:
    ledger = Ledger(SHORT, BTC, ETH)
    ledger.windows(1, ETHUSDT=CRIT)
    ledger.windows(2)
    ledger.adopt(SHORT, BTC)
    ledger.windows(5)
    assert ledger.mode == ("ACTIVE", 1.0)
    ledger.adopt(SHORT, BTC, SOL)
    ledger.adopt(SHORT, BTC, ETH)
    assert (ledger.per_symbol, ledger.effective) == ([1.0, 0.0], [1.0, 0.0])
    ledger.windows(2)
    assert ledger.per_symbol == [1.0, 0.0]
    ledger.windows(1)
    assert ledger.per_symbol == [1.0, 1.0]


def test_symbols_stand_in_their_new_order_with_their_own_memory() -> None:
    ledger = Ledger(replace(SHORT, global_freeze_symbols=2), BTC, ETH)
    ledger.windows(1, ETHUSDT=CRIT)
    ledger.adopt(ledger.policy, ETH, BTC)
    assert ledger.state.per_symbol_throttles() == {ETH: 0.0, BTC: 1.0}


@pytest.mark.parametrize("symbols", [(BTC,), (BTC, ETH)])
def test_more_symbols_to_freeze_all_than_there_are_is_refused_at_start(
    symbols: tuple[str, ...],
) -> None:
    ledger = Ledger(None, *symbols)
    with pytest.raises(CommandRefused, match="global_freeze_symbols: expected at most the number"):
        ledger.adopt(Policy(global_freeze_symbols=len(symbols) + 1))
    assert ledger.adopt(replace(DEFAULT, global_freeze_symbols=len(symbols), min_ok_windows=3))


def test_symbols_beyond_the_limit_do_not_count_for_the_global_freeze() -> None:
    ledger = Ledger(None, BTC, ETH, limits=profile(1))
    with pytest.raises(CommandRefused, match=r"may trade \(1\), was 2; the global freeze could"):
        ledger.adopt(Policy(global_freeze_symbols=2))


# Profiles.


@pytest.mark.parametrize(
    ("before", "after", "told", "loosens"),
    [
        (profile(2), profile(3), "P (300 USD, 2 symbols) -> P (300 USD, 3 symbols)", True),
        (profile(2), profile(2, 500), "P (300 USD, 2 symbols) -> P (500 USD, 2 symbols)", True),
        (profile(2), None, "P (300 USD, 2 symbols) -> none", True),
        (None, profile(2), "none -> P (300 USD, 2 symbols)", False),
        (profile(3), profile(2), "P (300 USD, 3 symbols) -> P (300 USD, 2 symbols)", False),
        (profile(2), profile(2, 100), "P (300 USD, 2 symbols) -> P (100 USD, 2 symbols)", False),
    ],
)
def test_a_larger_profile_loosens(before: Any, after: Any, told: str, loosens: bool) -> None:
    ledger = Ledger(None, BTC, ETH, limits=before)
    adopted = only(ledger.adopt(Policy(), profile=after), PolicyAdopted)
    assert adopted.changes == (f"profile: {told}" + (" (loosens)" if loosens else ""),)
    assert ledger.state.profile == after


def test_a_profile_that_leaves_a_symbol_out_of_the_verdict_loosens_as_its_removal_would() -> None:
    ledger = Ledger(SHORT, ETH, BTC, limits=profile(2))
    ledger.windows(1, BTCUSDT=CRIT)
    adopted = only(ledger.adopt(SHORT, profile=profile(1)), PolicyAdopted)
    ledger.windows(1, BTCUSDT=CRIT)
    assert ledger.verdict == "OK"
    assert adopted.loosened


def test_a_symbol_that_another_pushes_beyond_the_limit_counts_as_removed() -> None:
    ledger = Ledger(None, BTC, ETH, limits=profile(1))
    assert only(ledger.adopt(Policy(), ETH, BTC), PolicyAdopted).loosened
