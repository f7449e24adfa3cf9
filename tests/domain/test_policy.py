"""Policies: the guide's defaults, what is refused and by which key, how a file is laid over."""

import json
import math
from typing import Any

import msgspec
import pytest
from decider_spec import BTC, ETH

from domain.errors import BadInput
from domain.policy import COUNT_MAX, Policy, overlay_mapping, overlay_policy

DEFAULT = Policy()


def overlay(base: Policy = DEFAULT, **given: Any) -> Policy:
    return overlay_policy(base, json.dumps(given).encode(), source="p.json")


def test_the_defaults_are_the_guides() -> None:
    assert DEFAULT.thresholds == {
        "min_edge_bps": 2.5,
        "min_maker_taker": 0.83,
        "max_risk": 0.40,
        "max_latency_ms": 350.0,
        "max_anomaly": 2.0,
    }
    assert (DEFAULT.min_warn_windows, DEFAULT.min_ok_windows) == (3, 12)
    assert (DEFAULT.unfreeze_after_ok_windows, DEFAULT.no_data_freeze_windows) == (24, 3)
    assert (DEFAULT.global_freeze_symbols, DEFAULT.cooldown_throttle) == (1, 0.5)
    assert DEFAULT.required_kpis == (
        "edge_bps",
        "maker_taker_ratio",
        "risk_ratio",
        "p95_latency_ms",
    )
    assert DEFAULT.waived_when_halted == ("edge_bps", "maker_taker_ratio")
    assert DEFAULT.symbols == {}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"unfreeze_after_ok_windows": 11}, "unfreeze_after_ok_windows: expected at least min_ok"),
    ({"min_ok_windows": 25}, "unfreeze_after_ok_windows: expected at least min_ok_windows (25)"),
    *[
        ({key: count}, f"{key}: expected 1 to {COUNT_MAX}, was {count}")
        for key in (
            "min_warn_windows",
            "min_ok_windows",
            "unfreeze_after_ok_windows",
            "no_data_freeze_windows",
            "global_freeze_symbols",
        )
        for count in (0, -1, COUNT_MAX + 1)
    ],
    ({"cooldown_throttle": 0.29}, "cooldown_throttle: expected 0.3 to 0.6, was 0.29"),
    ({"cooldown_throttle": 0.61}, "cooldown_throttle: expected 0.3 to 0.6, was 0.61"),
    ({"thresholds": {"max_riks": 0.3}}, "thresholds: unknown key 'max_riks'"),
    ({"thresholds": {"risk_ratio": 0.3}}, "thresholds: unknown key 'risk_ratio'"),
    ({"thresholds": {"max_risk": -0.1}}, "thresholds.max_risk: expected a finite number from 0"),
    ({"thresholds": {"max_latency_ms": -1}}, "thresholds.max_latency_ms: expected a finite number"),
    ({"thresholds": {"min_maker_taker": 1.1}}, "thresholds.min_maker_taker: expected a finite"),
    ({"thresholds": {"min_maker_taker": -0.1}}, "thresholds.min_maker_taker: expected a finite"),
    ({"thresholds": {"min_edge_bps": "2.5"}}, "thresholds.min_edge_bps: expected a number"),
    ({"thresholds": {"min_edge_bps": True}}, "thresholds.min_edge_bps: expected a number"),
    ({"thresholds": {"min_edge_bps": None}}, "thresholds.min_edge_bps: expected a number"),
    ({"thresholds": [2.5]}, "thresholds: expected a JSON object, was list"),
    ({"symbols": {"ethusdt": {"max_risk": 0.3}}}, "symbols: 'ethusdt' is not a well-formed symbol"),
    ({"symbols": {ETH: {"max_riks": 0.3}}}, "symbols.ETHUSDT: unknown key 'max_riks'"),
    ({"symbols": {ETH: {"max_risk": -1}}}, "symbols.ETHUSDT.max_risk: expected a finite number"),
    ({"symbols": {ETH: 0.3}}, "symbols.ETHUSDT: expected a JSON object, was float"),
    ({"symbols": [ETH]}, "symbols: expected a JSON object, was list"),
    ({"required_kpis": ["edge"]}, "required_kpis: unknown KPI 'edge'"),
    ({"waived_when_halted": ["edge"]}, "waived_when_halted: unknown KPI 'edge'"),
    ({"required_kpis": ["risk_ratio", "risk_ratio"]}, "required_kpis: a KPI is there twice"),
    ({"required_kpis": []}, "required_kpis: expected at least one KPI that is not in waived"),
    ({"required_kpis": ["edge_bps"]}, "required_kpis: expected at least one KPI that is not in"),
    ({"waived_when_halted": list(DEFAULT.required_kpis)}, "required_kpis: expected at least one"),
    ({"min_warn_window": 3}, "unknown key 'min_warn_window'"),
    ({"min_warn_windows": 2.5}, "Expected `int`"),
    ({"min_warn_windows": "3"}, "Expected `int`"),
]


@pytest.mark.parametrize(("given", "told"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_policy_that_could_not_be_run_is_refused_with_its_key(
    given: dict[str, Any], told: str
) -> None:
    with pytest.raises(BadInput) as refusal:
        overlay(**given)
    assert str(refusal.value).startswith(f"p.json: {told}")


@pytest.mark.parametrize("threshold", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("key", list(DEFAULT.thresholds))
def test_a_threshold_that_is_no_finite_number_is_refused(key: str, threshold: float) -> None:
    with pytest.raises(ValueError, match=rf"^thresholds\.{key}: expected a finite number"):
        Policy(thresholds={**DEFAULT.thresholds, key: threshold})
    with pytest.raises(BadInput, match=rf"thresholds\.{key}: expected a finite number"):
        overlay_mapping(DEFAULT, {"thresholds": {key: threshold}}, source="flags")
    with pytest.raises(BadInput, match=r"expected a policy as JSON|never NaN or infinite"):
        overlay(thresholds={key: threshold})


@pytest.mark.parametrize("throttle", [math.nan, math.inf])
def test_a_cooldown_throttle_that_is_no_finite_number_is_refused(throttle: float) -> None:
    with pytest.raises(ValueError, match=r"^cooldown_throttle: expected 0\.3 to 0\.6"):
        Policy(cooldown_throttle=throttle)


def test_a_policy_without_one_of_the_thresholds_is_refused() -> None:
    with pytest.raises(ValueError, match="thresholds: max_anomaly, max_latency_ms, max_risk"):
        Policy(thresholds={"min_edge_bps": 2.5, "min_maker_taker": 0.83})


@pytest.mark.parametrize(
    "given",
    [
        {"unfreeze_after_ok_windows": 12},
        {"min_ok_windows": 24},
        {"min_warn_windows": 1, "min_ok_windows": 1, "unfreeze_after_ok_windows": 1},
        {"cooldown_throttle": 0.3},
        {"cooldown_throttle": 0.6},
        {"thresholds": {"max_risk": 0, "min_maker_taker": 1, "min_edge_bps": -5}},
        {"thresholds": {"max_risk": 3.5, "max_anomaly": -1.5}},
        {"required_kpis": ["risk_ratio"], "waived_when_halted": ["edge_bps", "anomaly_score"]},
        {"required_kpis": ["anomaly_score"], "waived_when_halted": []},
    ],
)
def test_a_policy_at_its_limits_is_accepted(given: dict[str, Any]) -> None:
    assert overlay(**given) != DEFAULT


# A policy file.


def test_what_a_policy_file_leaves_out_keeps_its_value() -> None:
    base = overlay(min_warn_windows=5, thresholds={"max_risk": 0.3})
    laid = overlay(base, thresholds={"max_anomaly": 1.5}, min_ok_windows=6)
    assert laid.thresholds == {**DEFAULT.thresholds, "max_risk": 0.3, "max_anomaly": 1.5}
    assert (laid.min_warn_windows, laid.min_ok_windows) == (5, 6)
    assert overlay(base) == base


def test_thresholds_of_single_symbols_are_laid_over_one_by_one_too() -> None:
    base = overlay(symbols={ETH: {"max_risk": 0.3}})
    laid = overlay(base, symbols={ETH: {"max_anomaly": 1.0}, BTC: {"max_risk": 0.2}})
    assert laid.symbols == {ETH: {"max_risk": 0.3, "max_anomaly": 1.0}, BTC: {"max_risk": 0.2}}
    assert laid.thresholds_of(ETH)["max_risk"] == 0.3
    assert laid.thresholds_of(ETH)["max_latency_ms"] == 350.0
    assert laid.thresholds_of("SOLUSDT") == DEFAULT.thresholds


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "p.json: expected a policy as JSON"),
        (b"{", "p.json: expected a policy as JSON"),
        (b"[]", "p.json: expected a JSON object, was list"),
        (b"null", "p.json: expected a JSON object, was NoneType"),
        (b'{"min_warn_windows": NaN}', "p.json: a number is never NaN"),
        (b'{"\xff": 1}', "p.json: expected UTF-8"),
    ],
)
def test_what_is_no_policy_file_is_refused_with_its_name(data: bytes, told: str) -> None:
    with pytest.raises(BadInput) as refusal:
        overlay_policy(DEFAULT, data, source="p.json")
    assert str(refusal.value).startswith(told)


def test_the_hash_names_the_policy_and_not_the_order_it_was_written_in() -> None:
    turned = Policy(thresholds=dict(reversed(DEFAULT.thresholds.items())))
    assert turned.hash == DEFAULT.hash
    assert len(DEFAULT.hash) == 64
    assert overlay(min_warn_windows=4).hash != DEFAULT.hash


def test_a_policy_survives_its_own_json() -> None:
    policy = overlay(symbols={ETH: {"max_risk": 0.3}}, required_kpis=["risk_ratio"])
    assert msgspec.json.decode(msgspec.json.encode(policy), type=Policy) == policy
