"""The loop decides every window as the core does, plain or compiled, recorded or told."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from decider_spec import (
    BTC,
    ETH,
    KPI_NAMES,
    MINUTE_MS,
    OK,
    SHORT,
    START_MS,
    profile,
    readings,
)
from decider_spec import Ledger as Story
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_support import core_decides, core_rows, kernel_rows, same_rows, shapes, told
from random_stories import Step, ledgers, policies, series, stories, tell

from domain.errors import BadInput
from domain.kernel.decisions import decide_plain_series
from domain.kernel.recorded import decide_recorded_series
from domain.kernel.series import ABSENT, MALFORMED, VALID
from domain.kpis import Defect
from domain.policy import Policy
from domain.windows import WindowReadings
from ledger.application import Ledger
from ledger.location import LedgerLocation
from replay.commands import commands_of_events
from replay.preparing import series_of_columns, series_of_events, series_of_windows
from replay.sweeping import decide_series, sweep

GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("*.sqlite"))


@pytest.mark.parametrize("fast", [False, True], ids=["plain", "compiled"])
@settings(derandomize=True, deadline=None, max_examples=400)
@given(st.data())
def test_the_loop_and_the_core_agree_on_every_window(fast: bool, data: st.DataObject) -> None:
    symbols, limit = data.draw(shapes())
    policy = data.draw(policies(limit))
    steps = data.draw(series)
    story = told(steps, symbols, limit)
    if not story.windows:
        return
    decisions = decide_plain_series(story.series, policy, fast=fast)
    cores = core_decides(story, policy)
    same_rows(kernel_rows(decisions, [row.window for row in cores], story.symbols), cores)


@pytest.mark.parametrize("fast", [False, True], ids=["plain", "compiled"])
@settings(derandomize=True, deadline=None, max_examples=400)
@given(ledgers(), stories)
def test_a_recorded_stream_with_overrides_is_decided_as_the_core_did(
    fast: bool, story: Story, steps: list[Step]
) -> None:
    tell(story, steps)

    if not any(type(event).__name__ == "KpiObserved" for event in story.events):
        return
    recorded = series_of_events(story.events, profile=story.state.profile)
    decisions = decide_recorded_series(recorded, None, fast=fast)
    commands = commands_of_events(
        story.events, policy=None, symbols=None, profile=story.state.profile
    )
    cores = core_rows(commands, recorded.start_ms, MINUTE_MS)
    same_rows(kernel_rows(decisions, [row.window for row in cores], recorded.symbols), cores)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
@pytest.mark.parametrize("policy", [None, SHORT], ids=["as recorded", "under another policy"])
def test_every_recorded_ledger_is_decided_as_the_core_does(
    path: Path, policy: Policy | None, tmp_path: Path
) -> None:
    copied = shutil.copy(path, tmp_path)
    with Ledger.open(LedgerLocation(Path(copied)), read_only=True) as ledger:
        for stream_id in ledger.stream_ids():
            events = [record.event for record in ledger.records(stream_id)]
            for limits in (None, profile(2)):
                recorded = series_of_events(events, profile=limits)
                decisions = decide_series(recorded, policy)
                commands = commands_of_events(events, policy=policy, symbols=None, profile=limits)
                cores = core_rows(commands, recorded.start_ms, recorded.interval_ms)
                windows = [row.window for row in cores]
                for ours, theirs in zip(
                    kernel_rows(decisions, windows, recorded.symbols), cores, strict=True
                ):
                    # A symbol that isn't configured in a window is 0 here, and missing there.
                    absent = dict.fromkeys(set(recorded.symbols) - set(theirs.effective), 0.0)
                    assert ours == theirs._replace(
                        per_symbol=theirs.per_symbol | absent,
                        effective=theirs.effective | absent,
                    )


def test_readings_in_columns_make_the_series_that_windows_make() -> None:
    window = {BTC: OK, ETH: readings(edge_bps=Defect.STALE, anomaly_score=None)}
    windows = [
        WindowReadings(START_MS, window),
        WindowReadings(START_MS + 3 * MINUTE_MS, {ETH: OK}),
    ]
    told_one_by_one = series_of_windows(windows, symbols=(BTC, ETH), interval_ms=MINUTE_MS)
    rows = [
        (each.start_ms, (BTC, ETH).index(name), got.kpis)
        for each in windows
        for name, got in reversed(each.symbols.items())
    ]
    in_columns = series_of_columns(
        np.array([row[0] for row in rows]),
        np.array([row[1] for row in rows]),
        [
            (
                np.array(
                    [
                        np.nan if isinstance(row[2].get(name), Defect) else row[2].get(name, 0.0)
                        for row in rows
                    ],
                    np.float64,
                ),
                np.array([name not in row[2] for row in rows]),
            )
            for name in KPI_NAMES
        ],
        symbols=(BTC, ETH),
        interval_ms=MINUTE_MS,
    )
    assert told_one_by_one.windows == in_columns.windows == 4
    for ours, theirs in zip(in_columns.columns, told_one_by_one.columns, strict=True):
        assert (ours.codes == theirs.codes).all()
        assert (ours.values == theirs.values).all()
    assert told_one_by_one.columns[1].codes[:, 0].tolist() == [
        MALFORMED,
        VALID,
        VALID,
        VALID,
        ABSENT,
    ]


@pytest.mark.parametrize(
    ("starts_ms", "complaint"),
    [
        ([], "expected windows, was none"),
        ([60_000, 60_000], "in order, each once"),
        ([60_000, 90_000], "aligned to 60 s"),
        ([0, 60_000 * 2**28], "at most 134217728 windows"),
    ],
)
def test_a_series_that_is_none_is_refused(starts_ms: list[int], complaint: str) -> None:
    windows = [WindowReadings(start_ms, {BTC: OK}) for start_ms in starts_ms]
    with pytest.raises(BadInput, match=complaint):
        series_of_windows(windows, symbols=(BTC,), interval_ms=MINUTE_MS)


def test_a_gap_of_years_costs_no_time_and_ends_frozen() -> None:
    years = 10 * 525_600
    windows = [
        WindowReadings(START_MS, {BTC: OK}),
        WindowReadings(START_MS + years * MINUTE_MS, {BTC: OK}),
    ]
    long = series_of_windows(windows, symbols=(BTC,), interval_ms=MINUTE_MS)
    outcomes = sweep(long, [Policy()])
    assert outcomes.states.windows.tolist() == [[3, 0, years - 2]]
    assert outcomes.states.transitions.tolist() == [1]
    assert outcomes.states.first_freeze.tolist() == [3]
