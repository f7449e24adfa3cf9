from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_examples import (
    MINUTE_MS,
    ORIGIN_MS,
    START,
    STREAM,
    begin,
    open_at,
    readings_at,
    tell,
    window,
)
from msgspec.structs import replace

from domain.commands import (
    ApplyOverride,
    ClearOverride,
    ObserveWindow,
    ReportExternalWrite,
    ReportFill,
    StopRun,
)
from domain.events import KpiObserved, Override, OverrideKind
from ledger.application import Ledger, StreamState
from ledger.reading import first_version_from, last_observations_by, stream_at_time

FREEZE = Override(
    id="o-1", kind=OverrideKind.FREEZE, actor="ann", reason="look",
    applied_at_ms=ORIGIN_MS + 3 * MINUTE_MS + 5_000,
)  # fmt: skip


def at(minutes: float) -> int:
    return ORIGIN_MS + round(minutes * MINUTE_MS)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_at(tmp_path / "ledger.sqlite") as ledger:
        yield ledger


def version_at(ledger: Ledger, minutes: float) -> int:
    return stream_at_time(ledger, STREAM, at(minutes)).version


def test_before_the_end_of_the_first_window_nothing_is_known(ledger: Ledger) -> None:
    begin(ledger, windows=3)
    for minutes in (-1000, 0, 0.5, 0.99):
        assert stream_at_time(ledger, STREAM, at(minutes)) == StreamState(STREAM)
    assert stream_at_time(ledger, "dev:none", at(5)) == StreamState("dev:none")


def test_a_window_is_known_from_its_end_on(ledger: Ledger) -> None:
    begin(ledger, windows=3)
    known = {minutes: version_at(ledger, minutes) for minutes in (1, 1.99, 2, 2.5, 3, 1000)}
    assert known == {1: 3, 1.99: 3, 2: 4, 2.5: 4, 3: 5, 1000: 5}
    assert stream_at_time(ledger, STREAM, at(2)) == ledger.stream(STREAM, version=4)


def test_all_events_of_a_window_are_known_together(ledger: Ledger) -> None:
    stream = begin(ledger, windows=1)
    frozen = tell(ledger, stream, [window(1, risk_ratio=0.9)])
    tell(ledger, frozen, [window(2)])
    assert frozen.version > stream.version + 1
    assert version_at(ledger, 1.99) == stream.version
    assert stream_at_time(ledger, STREAM, at(2)) == frozen


def test_an_override_after_a_window_is_known_from_its_own_time_on(ledger: Ledger) -> None:
    stream = begin(ledger, windows=3)
    frozen = tell(ledger, stream, [ApplyOverride(override=FREEZE)])
    cleared = ClearOverride(id="o-1", at_ms=at(3.5), actor="bob")
    thawed = tell(ledger, frozen, [cleared])
    tell(ledger, thawed, [window(3)])
    assert stream_at_time(ledger, STREAM, at(3)) == stream
    assert stream_at_time(ledger, STREAM, FREEZE.applied_at_ms - 1) == stream
    assert stream_at_time(ledger, STREAM, FREEZE.applied_at_ms) == frozen
    assert stream_at_time(ledger, STREAM, at(3.49)) == frozen
    assert stream_at_time(ledger, STREAM, at(3.5)) == thawed
    assert version_at(ledger, 4) == thawed.version + 1


def test_a_gap_is_known_only_with_the_window_after_it(ledger: Ledger) -> None:
    stream = begin(ledger, windows=3)
    after = tell(ledger, stream, [window(10)])
    assert after.state.counts.gap_windows == 7
    for minutes in (3, 5, 9.9, 10.9):
        assert stream_at_time(ledger, STREAM, at(minutes)) == stream
    assert stream_at_time(ledger, STREAM, at(11)) == after


def test_a_late_window_does_not_lead_a_search_astray(ledger: Ledger) -> None:
    stream = begin(ledger, windows=8)
    late = ObserveWindow(readings=readings_at(2, edge_bps=9.0), recorded_content="other")
    stream = tell(ledger, stream, [late])
    assert stream.state.counts.late_windows == 1
    tell(ledger, stream, [window(8)])
    assert version_at(ledger, 3) == 5
    assert [first_version_from(ledger, STREAM, at(index)) for index in (2, 7, 8)] == [5, 10, 12]


def test_the_end_of_a_run_is_known_from_its_time_on(ledger: Ledger) -> None:
    stream = begin(ledger, windows=2)
    stopped = tell(ledger, stream, [StopRun(run_id="run-1", reason="done", at_ms=at(2.25))])
    assert version_at(ledger, 2.24) == stream.version
    assert version_at(ledger, 2.25) == stopped.version


def test_what_redis_and_a_bot_did_is_known_from_its_own_time_on(ledger: Ledger) -> None:
    stream = begin(ledger, windows=2)
    write = ReportExternalWrite(
        id="r-1", key="state", symbol=None, found="?", expected="ACTIVE", at_ms=at(2.5)
    )
    fill = ReportFill(
        symbol="BTCUSDT", filled_at_ms=at(2.75), frozen_since_ms=at(1), notional=1.0, grace_ms=0
    )
    written = tell(ledger, stream, [write])
    filled = tell(ledger, written, [fill])
    assert stream_at_time(ledger, STREAM, at(2.49)) == stream
    assert stream_at_time(ledger, STREAM, at(2.5)) == written
    assert stream_at_time(ledger, STREAM, at(2.75)) == filled


def test_an_override_after_a_late_window_is_known(ledger: Ledger) -> None:
    stream = begin(ledger, windows=3)
    late = ObserveWindow(readings=readings_at(1, edge_bps=9.0), recorded_content="other")
    frozen = tell(ledger, stream, [late, ApplyOverride(override=FREEZE)])
    tell(ledger, frozen, [window(3)])
    assert stream_at_time(ledger, STREAM, FREEZE.applied_at_ms) == frozen


def test_many_events_between_two_windows_are_passed_over(ledger: Ledger) -> None:
    stream = begin(ledger, windows=2)
    for number in range(40):
        cap = Override(
            id=f"o-{number}", kind=OverrideKind.CAP, actor="ann", reason="", cap=0.9,
            applied_at_ms=at(2) + number,
        )  # fmt: skip
        stream = tell(ledger, stream, [ApplyOverride(override=cap)])
    last = tell(ledger, stream, [window(2)])
    assert first_version_from(ledger, STREAM, at(2)) == stream.version + 1
    assert version_at(ledger, 3) == last.version
    assert len(stream_at_time(ledger, STREAM, at(2) + 24).state.overrides) == 25


def test_the_first_version_of_a_window_is_found_wherever_it_is(ledger: Ledger) -> None:
    stream = begin(ledger, windows=100)
    for index in range(100):
        version = first_version_from(ledger, STREAM, at(index))
        (record,) = ledger.page(STREAM, after=version - 1, limit=1)
        assert isinstance(record.event, KpiObserved)
        assert record.event.window == at(index)
    assert first_version_from(ledger, STREAM, at(-50)) == 3
    assert first_version_from(ledger, STREAM, at(0.5)) == 4
    assert first_version_from(ledger, STREAM, at(100)) == stream.version + 1
    assert first_version_from(ledger, "dev:none", at(0)) == 1


@pytest.mark.parametrize(
    ("feeds", "expected"),
    [
        (("a", "a", "a"), [1, 2, 3, 4, 5]),
        (("b", "a", "a"), [2, 3, 4, 5]),
        (("a", "b", "a"), [4, 5]),
        (("a", "a", "b"), []),
    ],
)
def test_the_last_observations_go_back_to_the_last_run_of_another_feed(
    ledger: Ledger, feeds: tuple[str, ...], expected: list[int]
) -> None:
    stream = begin(ledger)
    for run, feed in enumerate(feeds):
        start = replace(START, run_id=f"run-{run}", feed=feed)
        stream = tell(ledger, stream, [start, window(2 * run), window(2 * run + 1)])
    for count in (1, 2, 5):
        found = last_observations_by(ledger, stream, count, lambda run: run.feed == "a")
        windows = [(seen.window - ORIGIN_MS) // MINUTE_MS for seen in found]
        assert windows == expected[-count:]
    assert last_observations_by(ledger, StreamState("dev:none"), 5, lambda _: True) == []
