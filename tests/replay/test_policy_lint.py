"""What lint finds, and that what it says about runs is what the core would do."""

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from replay_support import BTC, ETH, MINUTE_MS, Window, one, source

from domain.events import TradingState
from domain.kpis import Defect
from domain.policy import Policy
from replay.policy_lint import LintReport, lint_policy
from replay.policy_survey import survey_policy
from replay.recovery import expected_windows
from replay.tracks import STATES, Candidate, track_by_core

DEFAULT = Policy()
GOOD = {BTC: one()}


def lint(*windows: Window | None, policy: Policy = DEFAULT) -> LintReport:
    return lint_policy(policy, source(windows))


def codes(report: LintReport) -> list[tuple[str, str]]:
    return [(finding.code, finding.key) for finding in report.findings]


def text_of(report: LintReport, code: str) -> str:
    return next(finding.text for finding in report.findings if finding.code == code)


@pytest.mark.parametrize(("rate", "windows"), [(0.01, 48), (0.02, 107), (0.05, 2_078)])
def test_recovery_takes_what_the_field_notes_say(rate: float, windows: int) -> None:
    assert round(expected_windows(24, (1 - rate) ** 5)) == windows
    table = lint_policy(DEFAULT, None).recovery
    found = next(line for line in table if (line.rate, line.symbols) == (rate, 5))
    assert found.unfreeze_windows is not None
    assert round(found.unfreeze_windows) == windows


@given(st.integers(2, 60), st.floats(0.5, 0.999))
def test_one_more_window_takes_one_more_try(run: int, ok_share: float) -> None:
    longer = (expected_windows(run - 1, ok_share) + 1) / ok_share
    assert expected_windows(run, ok_share) == pytest.approx(longer, rel=1e-6)


def test_recovery_is_never_where_nothing_is_ok_and_exact_where_all_is() -> None:
    assert expected_windows(24, 0.0) == math.inf
    assert expected_windows(1_000_000, 0.5) == math.inf
    assert expected_windows(24, 1.0) == 24.0


def test_the_default_policy_by_itself_is_clean() -> None:
    report = lint_policy(DEFAULT, None)
    assert (report.findings, report.data) == ([], None)


def test_a_policy_by_itself() -> None:
    policy = Policy(
        thresholds={**DEFAULT.thresholds, "min_maker_taker": 0.0, "max_risk": 0.0},
        symbols={"ETHUSDT": {"max_latency_ms": 0.0}},
        waived_when_halted=("edge_bps",),
    )
    report = lint_policy(policy, None)
    assert codes(report) == [
        ("no-waiver", "waived_when_halted"),
        ("never-breached", "thresholds.min_maker_taker"),
        ("always-breached", "thresholds.max_risk"),
        ("always-breached", "symbols.ETHUSDT.max_latency_ms"),
    ]
    assert text_of(report, "no-waiver").startswith("maker_taker_ratio exists only over fills")


def test_thresholds_that_the_data_always_or_never_breaches() -> None:
    report = lint(*[{BTC: one(edge_bps=edge, risk_ratio=0.5)} for edge in (1.0, -2.0, 2.0)])
    found = {finding.key: finding for finding in report.findings}
    always = found["thresholds.min_edge_bps"]
    assert always.code == "always-breached"
    assert always.text == "every edge_bps of BTCUSDT is below 2.5 (3 values from -2 to 2)"
    assert found["thresholds.max_anomaly"].code == "never-breached"
    assert (
        found["thresholds.max_latency_ms"].text
        == "no p95_latency_ms of BTCUSDT is above 350 (3 values from 180 to 180)"
    )


def test_a_symbols_own_threshold_is_judged_apart() -> None:
    windows = [{BTC: one(risk_ratio=0.5), ETH: one(risk_ratio=0.5)}] * 3
    policy = Policy(symbols={ETH: {"max_risk": 0.6}, "SOLUSDT": {"max_risk": 0.1}})
    report = lint_policy(policy, source(windows, (BTC, ETH)))
    found = {finding.key: (finding.code, finding.symbols) for finding in report.findings}
    assert found["thresholds.max_risk"] == ("always-breached", (BTC,))
    assert found["symbols.ETHUSDT.max_risk"] == ("never-breached", (ETH,))
    assert found["symbols.SOLUSDT"] == ("unknown-symbol", ("SOLUSDT",))


def test_columns_that_are_missing_malformed_or_mostly_absent() -> None:
    report = lint(
        *[{BTC: one(p95_latency_ms=None, anomaly_score=None, risk_ratio=Defect.NAN)}] * 2,
        {BTC: one(p95_latency_ms=None, anomaly_score=None, edge_bps=None)},
        {BTC: one(p95_latency_ms=None, anomaly_score=None, edge_bps=None, risk_ratio=Defect.NAN)},
        {BTC: one(p95_latency_ms=None, anomaly_score=None, edge_bps=None)},
    )
    found = {finding.code: finding for finding in report.findings}
    assert "p95_latency_ms is required, and BTCUSDT never has" in found["required-missing"].text
    assert found["not-judged"].key == "thresholds.max_anomaly"
    assert found["mostly-malformed"].key == "risk_ratio"
    assert "(60.0% of 5 windows)" in found["mostly-malformed"].text
    assert found["mostly-absent"].key == "edge_bps"


def test_runs_of_ok_windows_are_counted_and_a_gap_breaks_one() -> None:
    policy = Policy(min_ok_windows=2, unfreeze_after_ok_windows=3)
    bad = {BTC: one(p95_latency_ms=400.0)}
    report = lint(GOOD, GOOD, GOOD, bad, GOOD, GOOD, None, GOOD, GOOD, GOOD, GOOD, policy=policy)
    assert report.data is not None
    unfreeze, recover = report.data.runs
    assert (unfreeze.held, unfreeze.longest, unfreeze.longest_end) == (2, 4, "2026-01-05T14:11:00Z")
    assert (recover.held, recover.longest) == (3, 4)
    assert (report.data.windows, report.data.gap_windows) == (10, 1)
    assert report.data.not_ok_rate == pytest.approx(0.1)


def test_data_that_never_recovers_says_so() -> None:
    report = lint(*[{BTC: one(risk_ratio=0.9)}] * 60)
    assert {"never-unfreezes", "never-recovers", "never-entered", "never-left"} <= {
        finding.code for finding in report.findings
    }
    assert "window 2026-01-05T14:00:00Z and not left in the 59 windows" in text_of(
        report, "never-left"
    )
    assert report.recovery[-1].is_measured
    assert report.recovery[-1].unfreeze_windows is None


def test_absent_fills_count_as_ok_towards_unfreezing_and_not_while_trading() -> None:
    quiet = {BTC: one(edge_bps=None, maker_taker_ratio=None)}
    report = lint(*[GOOD, *[quiet] * 30], policy=Policy())
    assert report.data is not None
    assert [run.longest for run in report.data.runs] == [31, 1]


def test_more_symbols_than_there_are_cannot_freeze() -> None:
    report = lint(GOOD, policy=Policy(global_freeze_symbols=2))
    assert ("never-entered", "global_freeze_symbols") in codes(report)
    assert report.data is not None
    assert report.data.windows_in == {}


cells = st.fixed_dictionaries(
    {
        "edge_bps": st.sampled_from([None, 3.0, 3.0, 3.0, 1.0]),
        "maker_taker_ratio": st.sampled_from([None, 0.9, 0.9, 0.5]),
        "risk_ratio": st.sampled_from([0.2, 0.2, 0.2, 0.2, 0.9, None, Defect.NAN]),
    }
)
series = st.lists(
    st.one_of(st.none(), *[st.fixed_dictionaries({BTC: cells, ETH: cells})] * 9),
    min_size=1,
    max_size=40,
)


@given(series, st.sampled_from([1, 2]))
def test_frozen_is_left_only_where_lint_saw_a_run(
    found: list[dict[str, dict[str, Any]] | None], freezes_at: int
) -> None:
    policy = Policy(min_ok_windows=1, unfreeze_after_ok_windows=2, global_freeze_symbols=freezes_at)
    windows = [
        None if window is None else {symbol: one(**kpis) for symbol, kpis in window.items()}
        for window in found
    ]
    opened = source(windows, (BTC, ETH))
    survey = survey_policy(policy, opened.commands(), MINUTE_MS)
    decided = track_by_core(opened, [Candidate("x", policy)])
    states = [STATES[code] for code in decided.tracks[0].states]
    left = any(
        before is TradingState.FROZEN and after is not TradingState.FROZEN
        for before, after in pairwise(states)
    )
    assert survey.windows + survey.gap_windows == decided.timeline.window_count
    if left:
        assert survey.unfreeze.held >= 1
