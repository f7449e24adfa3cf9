"""Scenario files: the short notation, what is refused with its line, and what a failure says."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import BadInput
from domain.kpis import Defect
from domain.policy import Policy
from replay.scenario import Outcome, Scenario, run_scenario
from replay.scenario_file import parse_scenarios
from replay.series_notation import Gap, Item, parse_series

SCENARIOS = sorted((Path(__file__).parents[2] / "docs" / "scenarios").glob("*.yaml"))


def no_file(name: str) -> Policy:
    raise BadInput(f"{name} can't be read: there is no file in this test")


def parse(text: str, policy: Policy | None = None) -> list[Scenario]:
    return parse_scenarios(text, source="t.yaml", read_policy=no_file, policy=policy)


def run(text: str) -> list[Outcome]:
    return [run_scenario(scenario) for scenario in parse(text)]


def failures(text: str) -> list[str]:
    return [
        f"{failure.place}: {failure.text}" for outcome in run(text) for failure in outcome.failures
    ]


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("2.6x3 1.9", (2.6, 2.6, 2.6, 1.9)),
        ("_x2 nan", (None, None, Defect.NAN)),
        ("1+0.5x3", (1.0, 1.5, 2.0)),
        ("1-0.1x4", (1.0, 0.9, 0.8, 0.7)),
        ("-2-1x2", (-2.0, -3.0)),
        ("gapx2 inf stale", (Gap.GAP, Gap.GAP, Defect.INFINITE, Defect.STALE)),
        ("1e3 1.5e-2x2", (1000.0, 0.015, 0.015)),
    ],
)
def test_a_series_in_short_notation(text: str, items: tuple[Item, ...]) -> None:
    assert parse_series(text).items == items
    assert not parse_series(text).has_rest


def test_a_last_item_may_go_on_for_good() -> None:
    series = parse_series("1x2 5+1x*")
    assert [series.at(index) for index in range(5)] == [1.0, 1.0, 5.0, 6.0, 7.0]
    assert parse_series("_x*").at(99) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a series such as"),
        ("abc", "expected a number, _, gap or one of"),
        ("2.6x", "was '2.6x'"),
        ("2.6x0", "expected a count from 1 to 100000"),
        ("2.6x999999999999", "expected a count from 1 to 100000"),
        ("1x60000 1x60000", "expected at most 100000 windows"),
        ("1x* 2", "expected 1x* at the end"),
        ("1+2", "expected a count after a step"),
        ("1_000", "was '1_000'"),
        ("1e999", "expected a finite number"),
    ],
)
def test_a_series_that_is_none_names_the_item(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_series(text)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), st.integers(1, 9))))
def test_a_series_is_as_long_as_its_counts(items: list[tuple[float, int]]) -> None:
    text = " ".join(f"{value:.3f}x{count}" for value, count in items)
    if items:
        assert parse_series(text).items == tuple(
            value for value, count in items for _ in range(count)
        )


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.name)
def test_the_documented_scenarios_pass(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = parse_scenarios(text, source=path.name, read_policy=no_file)
    outcomes = [run_scenario(scenario) for scenario in found]
    assert len(outcomes) >= 7
    assert [outcome.failures for outcome in outcomes] == [()] * len(outcomes)


def test_the_example_of_the_format_passes() -> None:
    page = (SCENARIOS[0].parents[1] / "policy.md").read_text(encoding="utf-8")
    example = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0]
    (scenario,) = parse_scenarios(example, source="policy.md", read_policy=lambda _: Policy())
    assert run_scenario(scenario).failures == ()


FROZEN = """
scenarios:
  - name: freezes
    series: {risk_ratio: 0.2 0.9 0.2}
    expect:
      - {window: 1-3, state: ACTIVE, throttle: 0.5}
      - window: 2
        state: FROZEN
        throttle: 0.0
        reasons: [risk=0.90 > 0.30]
        triggered_by: null
        per_symbol_throttle: {BTCUSDT: 0.5}
"""


def test_a_failure_names_the_line_the_window_what_was_expected_and_what_was() -> None:
    assert failures(FROZEN) == [
        "t.yaml line 6: window 1 (2026-01-05T14:00:00Z): throttle: expected 0.5, was 1",
        "t.yaml line 7: window 2 (2026-01-05T14:01:00Z): reasons: expected [risk=0.90 > 0.30], "
        "was [risk=0.90 > 0.40]",
        "t.yaml line 7: window 2 (2026-01-05T14:01:00Z): triggered_by: expected none, was BTCUSDT",
        "t.yaml line 7: window 2 (2026-01-05T14:01:00Z): per_symbol_throttle of BTCUSDT: "
        "expected 0.5, was 0",
    ]


def test_a_window_within_a_gap_cannot_be_expected_but_its_last_can() -> None:
    text = """
scenarios:
  - name: gap
    series: {edge_bps: 3.0 gapx3}
    expect: [{window: 4, state: FROZEN}, {window: 3, state: ACTIVE}]
"""
    assert failures(text) == [
        "t.yaml line 5: window 3: nobody decided it; of a gap only its last can be expected"
    ]


def test_an_override_that_the_rules_refuse_fails_the_scenario() -> None:
    text = """
scenarios:
  - name: refused
    windows: 3
    overrides: [{window: 2, kind: cap, cap: 1.5}]
    expect: [{window: 1, state: ACTIVE}]
"""
    assert failures(text) == [
        "t.yaml line 3: refused: the override of window 2: expected a cap from 0.0 to 1.0, was 1.5"
    ]


def test_a_scenarios_policy_is_laid_over_the_files_and_another_may_decide_instead() -> None:
    text = """
policy: {min_warn_windows: 2, thresholds: {max_risk: 0.5}}
scenarios:
  - name: own
    policy: {thresholds: {max_latency_ms: 500}}
    series: {p95_latency_ms: 450x2 550x2}
    expect: [{window: 3, state: ACTIVE}, {window: 4, state: COOLDOWN}]
"""
    (scenario,) = parse(text)
    assert scenario.policy.thresholds["max_risk"] == 0.5
    assert scenario.policy.thresholds["max_latency_ms"] == 500
    assert run_scenario(scenario).failures == ()
    (other,) = parse(text, Policy())
    assert other.policy.thresholds["max_risk"] == 0.4
    assert "window 4" in run_scenario(other).failures[0].text


def test_series_of_one_symbol_go_before_those_of_all() -> None:
    text = """
symbols: [BTCUSDT, ETHUSDT]
scenarios:
  - name: one
    series:
      risk_ratio: 0.1x3
      ETHUSDT: {risk_ratio: 0.9x*}
    expect: [{window: 1-3, per_symbol_throttle: {BTCUSDT: 1.0, ETHUSDT: 0.0}}]
"""
    assert failures(text) == []


ACTIVE = "expect: [{window: 1, state: ACTIVE}]}"


def one(scenario: str, before: str = "") -> str:
    return f"{before}scenarios:\n  - {scenario}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.yaml: expected scenarios, was an empty file"),
        ("a: [", "t.yaml line 1: expected YAML: "),
        ("- 1", "t.yaml line 1: the file: expected a mapping, was a list"),
        ("x: 1", "t.yaml line 1: the file: unknown key 'x'; known: interval, start, policy"),
        ("start: 2026-01-05", "t.yaml line 1: the file: expected a key 'scenarios', was start"),
        ("scenarios: []", "t.yaml line 1: scenarios: expected 1 to 10000, was 0"),
        (one("{name: a}"), "t.yaml line 2: scenario: expected a key 'expect', was name"),
        (one("{name: a, name: b}"), "t.yaml line 2: scenario: the key 'name' is there twice"),
        (one("{name: a, expect: []}"), "expected a series of a certain length, or a key 'windows'"),
        (one("{name: a, windows: 3, expect: []}"), "expect: expected at least one expectation"),
        (
            one("{name: a, windows: 3, expect: [{window: 4, state: ACTIVE}]}"),
            "t.yaml line 2: window: expected 1 to 3, was 4",
        ),
        (
            one("{name: a, windows: 3, expect: [{window: x, state: ACTIVE}]}"),
            "window: expected a number or a range such as 4-6, was 'x'",
        ),
        (one("{name: a, windows: 3, expect: [{window: 1}]}"), "expect: expected one of state"),
        (
            one("{name: a, windows: 3, expect: [{window: 1, state: WARN}]}"),
            "state: expected one of ACTIVE, COOLDOWN, FROZEN, was 'WARN'",
        ),
        (
            one("{name: a, windows: 3, expect: [{window: 1, throttle: half}]}"),
            "throttle: expected a number, was 'half'",
        ),
        (
            one("{name: a, windows: 3, expect: [{window: 1, effective_throttle: {SOL: 1}}]}"),
            "effective_throttle: unknown key 'SOL'; known: BTCUSDT",
        ),
        (
            one("{name: a, windows: x, expect: [{window: 1, state: ACTIVE}]}"),
            "windows: expected a whole number, was 'x'",
        ),
        (one("{name: a, windows: 2.5, " + ACTIVE), "windows: expected a whole number, was '2.5'"),
        (
            one("{name: a, windows: 2, expect: [{window: 1, throttle: .nan}]}"),
            "throttle: expected a number, was nan",
        ),
        (
            one("{name: a, series: {edge: 1}, expect: [{window: 1, state: ACTIVE}]}"),
            "series: unknown KPI or symbol 'edge'; known: edge_bps,",
        ),
        (
            one("{name: a, series: {edge_bps: 1y}, expect: [{window: 1, state: ACTIVE}]}"),
            "t.yaml line 2: expected a number, _, gap or one of",
        ),
        (
            one(
                "{name: a, series: {edge_bps: 1x2, risk_ratio: 1x3}, "
                "expect: [{window: 1, state: ACTIVE}]}"
            ),
            "series: expected as many windows in each, was all edge_bps 2, all risk_ratio 3",
        ),
        (
            one("{name: a, windows: 2, series: {edge_bps: 1x3 1x*}, expect: [{window: 1}]}"),
            "expected 3 to 100000 windows, was 2",
        ),
        (
            one("{name: a, windows: 2, overrides: [{window: 1, kind: stop}], " + ACTIVE),
            "kind: expected one of freeze, cap, unfreeze, clear, was 'stop'",
        ),
        (
            one("{name: a, windows: 2, policy: {min_edge: 1}, " + ACTIVE),
            "t.yaml line 2: policy: unknown key 'min_edge'",
        ),
        (one("{name: a}", "policy: none.json\n"), "t.yaml line 1: policy: none.json can't be read"),
        (one("{name: a}", "symbols: [btc]\n"), "t.yaml line 1: symbols: malformed symbol 'btc'"),
        (one("{name: a}", "interval: 5\n"), "interval: expected such as 60s or 5m, was '5'"),
        (one("{name: a}", "interval: 48h\n"), "t.yaml line 1: interval: expected an interval"),
        (one("{name: a}", "start: soon\n"), "start: expected a time such as"),
        (one("{name: a}", "start: 2026-01-05T14:00:01Z\n"), "expected it aligned to the interval"),
        ("a: &x [1]\nb: *x\n", "t.yaml line 1: expected no alias"),
        ("a: !!python/object:os.system x", "t.yaml line 1: the file: unknown key 'a'"),
        (
            one("{name: a, windows: 1, policy: {symbols: !!python/name:os.system x}, " + ACTIVE),
            "t.yaml line 2: expected a plain value, was 'x'",
        ),
        ("[" * 200 + "]" * 200, "expected at most 32 levels, was more"),
        ("[" * 20_000 + "]" * 20_000, "t.yaml: expected YAML"),
        ("a: \x00", "t.yaml: expected YAML"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_names_its_line(text: str, message: str) -> None:
    with pytest.raises(BadInput) as error:
        parse(text)
    assert message in str(error.value)
