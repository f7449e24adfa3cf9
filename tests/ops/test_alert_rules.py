"""The alerts say what the guide says, their tests pass, and no fault in them goes unnoticed."""

import re
from pathlib import Path

import pytest
from mutants import mutants, survives
from ops_support import GUIDES, OPS, RULE_TESTS, RULES, rule_names, rules, run_program

OURS = {
    "LiveControllerAbsent",
    "LiveLedgerStale",
    "LiveFeedSilent",
    "LiveProjectionLagging",
    "LiveOverrideExpiring",
    "LiveExternalWrite",
    "LiveTradedWhileFrozen",
    "LiveClockFault",
    "LiveNotificationsFailing",
    "LiveWatchdog",
}

GUIDE_TABLE = """
| **LiveStateFrozen** | `state == FROZEN` | CRIT | 10min |
| **LiveThrottleLow** | `avg(throttle) < 0.4` | WARN | 15min |
| **LiveSymbolFrozen** | `symbol_throttle == 0` | WARN | 5min |
| **LiveKPIViolation** | `crit_violations > 0` | CRIT | Immediate |
| **LiveRedisDown** | `redis_up == 0` | CRIT | 2min |
"""
"""LIVE_MODE_GUIDE.md, Grafana Alerts."""


def test_promtool_accepts_the_rules_and_their_tests_pass() -> None:
    checked = run_program("promtool", "check", "rules", RULES)
    assert checked.returncode == 0, checked.stdout
    tested = run_program("promtool", "test", "rules", *sorted(RULE_TESTS.glob("*.yml")))
    assert tested.returncode == 0, tested.stdout


def test_prometheus_and_alertmanager_accept_their_configuration() -> None:
    for name, command in (("promtool", "config"), ("amtool", "")):
        file = OPS / ("prometheus.yml" if command else "alertmanager.yml")
        words = ("check", command) if command else ("check-config",)
        checked = run_program(name, *words, file)
        assert checked.returncode == 0, checked.stdout


def test_the_guides_five_have_its_severities_and_durations() -> None:
    table = re.findall(r"\*\*(\w+)\*\* \| `.*` \| (\w+) \| (\w+) \|", GUIDE_TABLE)
    found = [
        (rule["alert"], rule["labels"]["severity"], rule.get("for", "Immediate"))
        for rule in rules()[:5]
    ]
    assert found == [(name, severity, time.replace("min", "m")) for name, severity, time in table]
    assert tuple(rule_names()[:5]) == GUIDES


def test_no_alert_is_missing_and_each_says_enough() -> None:
    assert set(rule_names()) == {*GUIDES, *OURS}
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, rule["alert"]
        assert rule["labels"]["severity"] in {"CRIT", "WARN", "none"}


def test_whatever_says_how_it_is_now_is_held_over_a_crash() -> None:
    # The others count what happened, which is still in their range, or are the absence itself.
    counts_or_absence = {
        "LiveKPIViolation",
        "LiveExternalWrite",
        "LiveTradedWhileFrozen",
        "LiveOverrideExpiring",
        "LiveControllerAbsent",
        "LiveWatchdog",
    }
    held = {rule["alert"] for rule in rules() if "keep_firing_for" in rule}
    assert held == set(rule_names()) - counts_or_absence


@pytest.mark.parametrize("name", rule_names())
def test_a_fault_in_a_rule_makes_its_tests_fail(name: str, tmp_path: Path) -> None:
    (rule,) = [rule for rule in rules() if rule["alert"] == name]
    assert survives(rule, rule, tmp_path), "without a fault they pass"
    tried = [(what, survives(rule, mutant, tmp_path)) for what, mutant in mutants(rule)]
    assert len(tried) >= 2
    assert [what for what, alive in tried if alive] == []


@pytest.mark.parametrize("name", GUIDES)
def test_the_guides_alerts_are_named_by_its_dashboard_metrics(name: str) -> None:
    metrics = {
        "LiveStateFrozen": "live_state",
        "LiveThrottleLow": "live_throttle_factor",
        "LiveSymbolFrozen": "live_symbol_throttle",
        "LiveKPIViolation": "live_violations_total",
        "LiveRedisDown": "redis_up",
    }
    (rule,) = [rule for rule in rules() if rule["alert"] == name]
    assert metrics[name] in rule["expr"]
