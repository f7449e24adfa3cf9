"""What a policy tightens and loosens, in words: the same comparison as an adoption's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.kpis import KPIS
from domain.policy import Policy, policy_changes
from replay.policy_words import policy_differences

DEFAULT = Policy()
NAMES = tuple(kpi.name for kpi in KPIS)


def told(**changes: object) -> list[tuple[str, str]]:
    found = policy_differences(DEFAULT, replace(DEFAULT, **changes))
    return [(difference.effect, difference.text) for difference in found]


@pytest.mark.parametrize(
    ("key", "value", "effect", "text"),
    [
        ("min_edge_bps", 3.0, "tightens", "edge_bps below 3.0 is CRIT, was below 2.5"),
        ("min_edge_bps", 1.0, "loosens", "edge_bps below 1.0 is CRIT, was below 2.5"),
        ("max_latency_ms", 900.0, "loosens", "p95_latency_ms above 900.0 is WARN, was above 350.0"),
        ("max_risk", 0.3, "tightens", "risk_ratio above 0.3 is CRIT, was above 0.4"),
    ],
)
def test_a_threshold_is_told_by_what_it_makes_of_a_value(
    key: str, value: float, effect: str, text: str
) -> None:
    assert told(thresholds={**DEFAULT.thresholds, key: value}) == [(effect, text)]


def test_a_symbols_own_threshold_is_told_with_its_name_dots_and_all() -> None:
    assert told(symbols={"BTC.P-1": {"max_risk": 0.5}}) == [
        ("loosens", "BTC.P-1: risk_ratio above 0.5 is CRIT, was above 0.4")
    ]


def test_counts_are_told_by_what_they_lead_to() -> None:
    assert told(min_warn_windows=5, unfreeze_after_ok_windows=30) == [
        ("tightens", "FROZEN and a symbol's own freeze end after 30 OK windows in a row, was 24"),
        ("loosens", "COOLDOWN comes after 5 WARN windows in a row, was 3"),
    ]


def test_a_list_that_gains_one_kpi_and_loses_another_goes_both_ways() -> None:
    required = ("edge_bps", "maker_taker_ratio", "risk_ratio", "anomaly_score")
    assert told(required_kpis=required) == [
        ("tightens", "anomaly_score must be there now"),
        ("loosens", "p95_latency_ms need no longer be there"),
    ]


def test_a_global_freeze_by_fewer_symbols_tightens_and_down_to_one_also_loosens() -> None:
    three = replace(DEFAULT, global_freeze_symbols=3)
    two = replace(DEFAULT, global_freeze_symbols=2)
    assert [found.effect for found in policy_differences(three, two)] == ["tightens"]
    assert [found.effect for found in policy_differences(two, DEFAULT)] == ["tightens", "loosens"]


def test_the_same_policy_differs_in_nothing() -> None:
    assert policy_differences(DEFAULT, Policy()) == []


policies = st.builds(
    Policy,
    thresholds=st.fixed_dictionaries(
        {
            kpi.policy_key: st.sampled_from([0.1, kpi.threshold if kpi.highest > 1 else 0.5])
            for kpi in KPIS
        }
    ),
    symbols=st.dictionaries(
        st.sampled_from(["AA", "B.B"]), st.fixed_dictionaries({"max_risk": st.floats(0, 2)})
    ),
    required_kpis=st.lists(st.sampled_from(NAMES), unique=True).map(
        lambda names: (*(name for name in names if name != "risk_ratio"), "risk_ratio")
    ),
    waived_when_halted=st.sampled_from([(), ("edge_bps",), ("edge_bps", "anomaly_score")]),
    min_warn_windows=st.integers(1, 4),
    min_ok_windows=st.integers(1, 4),
    unfreeze_after_ok_windows=st.integers(4, 8),
    no_data_freeze_windows=st.integers(1, 4),
    global_freeze_symbols=st.integers(1, 3),
    cooldown_throttle=st.sampled_from([0.3, 0.5, 0.6]),
)


@given(before=policies, after=policies)
def test_words_say_loosens_exactly_where_an_adoption_would_ask(
    before: Policy, after: Policy
) -> None:
    changes = policy_changes(before, after, ("AA", "B.B"))
    found = policy_differences(before, after)
    assert {change.key for change in changes} == {difference.key for difference in found}
    assert {change.key for change in changes if change.loosens} == {
        difference.key for difference in found if difference.effect == "loosens"
    }
    assert policy_differences(before, before) == []
