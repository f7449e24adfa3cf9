"""`live policy diff` in a terminal and for programs."""

import json
from pathlib import Path

from support import live


def test_diff_says_what_tightens_and_what_loosens(folder: Path) -> None:
    Path("a.json").write_text("{}")
    Path("b.json").write_text(
        '{"thresholds": {"min_edge_bps": 1.0, "max_risk": 0.3}, "min_warn_windows": 2}'
    )
    outcome = live("policy", "diff", "a.json", "b.json")
    assert outcome.code == 0
    assert outcome.out.splitlines() == [
        "tightens",
        "  thresholds.max_risk: risk_ratio above 0.3 is CRIT, was above 0.4",
        "  min_warn_windows: COOLDOWN comes after 2 WARN windows in a row, was 3",
        "loosens",
        "  thresholds.min_edge_bps: edge_bps below 1.0 is CRIT, was below 2.5",
    ]
    found = json.loads(live("policy", "diff", "a.json", "b.json", "--json").out)
    assert [(one["effect"], one["before"], one["after"]) for one in found["differences"]] == [
        ("tightens", "0.4", "0.3"), ("tightens", "3", "2"), ("loosens", "2.5", "1.0"),
    ]  # fmt: skip


def test_two_files_that_say_the_same_are_the_same_policy(folder: Path) -> None:
    Path("a.json").write_text("{}")
    Path("b.json").write_text('{"min_warn_windows": 3}')
    outcome = live("policy", "diff", "a.json", "b.json")
    assert (outcome.code, outcome.out) == (0, "a.json and b.json are the same policy\n")


def test_a_file_that_is_no_policy_ends_with_2_and_is_named(folder: Path) -> None:
    Path("a.json").write_text("{}")
    Path("b.json").write_text('{"min_edge": 1.0}')
    missing = live("policy", "diff", "a.json", "none.json")
    assert missing.code == 2
    assert "live policy diff: none.json can't be read: No such file" in missing.err
    unknown = live("policy", "diff", "a.json", "b.json")
    assert unknown.code == 2
    assert "b.json: unknown key 'min_edge'" in unknown.err
