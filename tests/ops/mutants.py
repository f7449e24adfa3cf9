"""Faults to put into an alert, one at a time, to see whether its promtool tests notice."""

import functools
import json
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from ops_support import RULE_TESTS, read_yaml, rule_file, rules, run_program

Rule = dict[str, Any]

_COMPARISONS: Final = {"==": ("!=",), "<": ("<=", ">"), ">": (">=", "<")}
_NUMBER: Final = re.compile(r"(?<![\w.\[(])\d+(\.\d+)?(?![\w\]])")
_RANGE: Final = re.compile(r"\[(\d+)([smhd])\]")
_METRIC: Final = re.compile(r"\b(live_\w+|redis_up|up)\b")
_MATCHER: Final = re.compile(r"\{(\w+)=\"(\w[\w-]*)\"\}")
_SEVERITIES: Final = {"CRIT": "WARN", "WARN": "CRIT", "none": "WARN"}

TWINS: Final = {
    # Nobody counts faults in halves, or seconds to the second: these mean the same.
    ("LiveKPIViolation", "< 300", "<= 300"),
    ("LiveLedgerStale", "> 2 *", ">= 2 *"),
    ("LiveLedgerStale", "time() > live", "time() >= live"),
    ("LiveFeedSilent", "> 3 *", ">= 3 *"),
    ("LiveOverrideExpiring", "< 600", "<= 600"),
    # No override expires in the first second of 1970.
    ("LiveOverrideExpiring", "seconds > 0", "seconds > 1"),
}
"""What stays unnoticed because it makes no difference: alert, text, mutated text."""


def mutants(rule: Rule) -> Iterator[tuple[str, Rule | None]]:
    """Yield what was done to a rule, and the rule then; None for a rule that is gone."""
    yield "removed", None
    expression = rule["expr"]
    for what, mutated in _mutated_expressions(expression):
        if not _is_twin(rule["alert"], expression, mutated):
            yield what, {**rule, "expr": mutated}
    for key in ("for", "keep_firing_for"):
        if key in rule:
            minutes = int(rule[key].removesuffix("m"))
            yield f"without {key}", {name: rule[name] for name in rule if name != key}
            yield f"{key} a minute longer", {**rule, key: f"{minutes + 1}m"}
            if minutes > 1:
                yield f"{key} a minute shorter", {**rule, key: f"{minutes - 1}m"}
    severity = rule["labels"]["severity"]
    changed = deepcopy(rule)
    changed["labels"]["severity"] = _SEVERITIES[severity]
    yield f"severity {_SEVERITIES[severity]}", changed


def survives(rule: Rule, mutant: Rule | None, folder: Path) -> bool:
    """Return whether all promtool tests of a rule pass with a mutant in its place."""
    by_name = {other["alert"]: other for other in rules()} | {rule["alert"]: mutant}
    for path in sorted(RULE_TESTS.glob("*.yml"), reverse=True):
        content = dict(_test_file(path))
        tests = [test for test in content["tests"] if rule["alert"] in _subjects(test)]
        # Only what the tests look at has to be evaluated, which is quick.
        named = {name for test in tests for name in _looked_at(test)}
        chosen = [found for name, found in by_name.items() if name in named and found is not None]
        content |= {"tests": tests, "rule_files": ["rules.yml"]}
        rule_file(folder / "rules.yml", chosen)
        (folder / "tests.yml").write_text(json.dumps(content), encoding="utf-8")
        if tests and run_program("promtool", "test", "rules", folder / "tests.yml").returncode:
            return False
    return True


@functools.cache
def _test_file(path: Path) -> dict[str, Any]:
    return dict(read_yaml(path))


def _subjects(test: dict[str, Any]) -> set[str]:
    """Return the alerts that a test is about; the absence is in many of them for comparison."""
    found = _looked_at(test)
    return found if len(found) == 1 else found - {"LiveControllerAbsent"}


def _looked_at(test: dict[str, Any]) -> set[str]:
    """Return the alerts that a test names."""
    found = {case["alertname"] for case in test.get("alert_rule_test", [])}
    for case in test.get("promql_expr_test", []):
        for names in re.findall(r'alertname=~?"([\w|]+)"', case["expr"]):
            found |= set(names.split("|"))
    return found


def _mutated_expressions(expression: str) -> Iterator[tuple[str, str]]:
    for found in re.finditer(r"[=<>]=|[<>]", expression):
        for other in _COMPARISONS[found[0]]:
            yield f"{found[0]} is {other}", _put(expression, found, other)
    for found in _NUMBER.finditer(expression):
        number = float(found[0])
        for value in (number * 1.25, number * 0.75) if number else (1.0, -1.0):
            yield f"{found[0]} is {value:g}", _put(expression, found, f"{value:g}")
    for found in _RANGE.finditer(expression):
        for text in (f"[{int(found[1]) * 2}{found[2]}]", "[30s]"):
            yield f"{found[0]} is {text}", _put(expression, found, text)
    for found in _METRIC.finditer(expression):
        yield f"{found[0]} is gone", _put(expression, found, f"no_{found[0]}")
    for found in _MATCHER.finditer(expression):
        yield f"{found[0]} is another", _put(expression, found, f'{{{found[1]}="other"}}')
        yield f"{found[0]} is any", _put(expression, found, f'{{{found[1]}=~".*"}}')
    for found in re.finditer(r" by \(([^)]*)\)", expression):
        yield f"without{found[0]}", _put(expression, found, "")


def _put(text: str, found: re.Match[str], other: str) -> str:
    return text[: found.start()] + other + text[found.end() :]


def _is_twin(name: str, expression: str, mutated: str) -> bool:
    return any(
        name == alert and mutated.replace(after, before) == expression.replace(after, before)
        for alert, before, after in TWINS
        if after in mutated
    )
