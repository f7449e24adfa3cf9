"""`live policy test`: reports like a test runner, for people, programs and CI servers."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from support import ROOT, live

PASSES = """
scenarios:
  - name: three WARN windows
    series: {p95_latency_ms: 400x3}
    expect: [{window: 3, state: COOLDOWN}]
"""
FAILS = """
policy: desk.json
scenarios:
  - name: "<freezes> at 0.45\\x01"
    series: {risk_ratio: 0.45}
    expect:
      - {window: 1, state: FROZEN, throttle: 0.0}
  - name: does not
    series: {risk_ratio: 0.2}
    expect: [{window: 1, state: ACTIVE}]
"""


@pytest.fixture(autouse=True)
def files(folder: Path) -> None:
    """Two scenario files; one names a policy that lies beside it."""
    Path("passes.yaml").write_text(PASSES)
    Path("sub").mkdir()
    Path("sub/fails.yaml").write_text(FAILS)
    Path("sub/desk.json").write_text('{"thresholds": {"max_risk": 0.5}}')


def test_scenarios_that_pass_end_with_0() -> None:
    outcome = live("policy", "test", "passes.yaml")
    assert (outcome.code, outcome.out.splitlines()) == (
        0,
        ["passes.yaml", "  ok    three WARN windows", "1 passed, 0 failed"],
    )


def test_one_that_fails_ends_with_1_and_says_what_was_expected_and_what_was() -> None:
    outcome = live("policy", "test", "passes.yaml", "sub/fails.yaml")
    assert outcome.code == 1
    assert outcome.out.splitlines()[2:] == [
        "sub/fails.yaml",
        "  FAIL  <freezes> at 0.45\x01",
        "        sub/fails.yaml line 7: window 1 (2026-01-05T14:00:00Z): state: expected FROZEN, "
        "was ACTIVE",
        "        sub/fails.yaml line 7: window 1 (2026-01-05T14:00:00Z): throttle: expected 0, "
        "was 1",
        "  ok    does not",
        "2 passed, 1 failed",
    ]


def test_junit_and_json_hold_the_same() -> None:
    outcome = live("policy", "test", "passes.yaml", "sub/fails.yaml", "--junit", "o.xml", "--json")
    assert outcome.code == 1
    found = json.loads(outcome.out)
    assert [one["passed"] for one in found] == [True, False, True]
    suites = list(ET.parse("o.xml").getroot())
    assert [(suite.get("name"), suite.get("tests"), suite.get("failures")) for suite in suites] == [
        ("passes.yaml", "1", "0"), ("sub/fails.yaml", "2", "1"),
    ]  # fmt: skip
    failed = suites[1][0]
    assert failed.get("name") == "<freezes> at 0.45?"
    assert failed[0].get("message", "").endswith("state: expected FROZEN, was ACTIVE")
    assert (failed[0].text or "").count("\n") == 1


def test_another_policy_can_decide_instead() -> None:
    Path("strict.json").write_text("{}")
    outcome = live("policy", "test", "sub/fails.yaml", "--policy", "strict.json")
    assert (outcome.code, outcome.out.splitlines()[-1]) == (0, "2 passed, 0 failed")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'FILES...'"),
        (["none.yaml"], "none.yaml: can't be read: No such file"),
        (["latin.yaml"], "latin.yaml: expected UTF-8"),
        (["large.yaml"], "large.yaml: expected at most 1048576 bytes"),
        (["bad.yaml"], "bad.yaml line 2: scenarios: expected a list, was 'x'"),
        (["sub/lost.yaml"], "sub/lost.yaml line 1: policy: sub/lost.yaml: sub/none.json can't be"),
        (["passes.yaml", "--policy", "none.json"], "live policy test: none.json can't be read"),
        (["passes.yaml", "--junit", "none/o.xml"], "--junit: none/o.xml can't be written"),
    ],
)
def test_bad_input_ends_with_2_before_anything_runs(arguments: list[str], message: str) -> None:
    Path("latin.yaml").write_bytes(b"\xe4")
    Path("large.yaml").write_bytes(b"#" * (1 << 20) + b"\n")
    Path("bad.yaml").write_text("# a comment\nscenarios: x\n")
    Path("sub/lost.yaml").write_text("policy: none.json\nscenarios: [{name: a, expect: []}]\n")
    outcome = live("policy", "test", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.out == ""


def test_the_documented_scenarios_run_as_a_user_would_run_them() -> None:
    paths = sorted((ROOT / "docs" / "scenarios").glob("*.yaml"))
    outcome = live("policy", "test", *paths)
    assert (outcome.code, outcome.out.splitlines()[-1]) == (0, "16 passed, 0 failed")
