"""What a scrape says, over HTTP, of a stream that the core decides."""

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from metrics_support import Metered, metered
from redis_support import BTC, CRIT, ETH, MINUTE_MS, OK, SOL, WARN, Stream
from scraping import assert_agrees

from domain.commands import (
    ApplyOverride,
    ExpireOverrides,
    ObserveClock,
    ObserveWindow,
    ReportExternalWrite,
    ReportFill,
)
from domain.events import Override, OverrideKind
from domain.kpis import KPIS, Defect
from domain.policy import Policy
from domain.windows import SymbolReadings, WindowReadings
from projections.metrics_catalogue import DISCARD_REASONS
from projections.metrics_snapshot import APPENDS_MAX

SIX = ("AAUSDT", "BBUSDT", "CCUSDT", "DDUSDT", "EEUSDT", "FFUSDT")


def override(story: Stream, kind: OverrideKind, for_ms: int | None = None, **more: Any) -> None:
    at_ms = (story.state.next_window or story.first) + 1
    story.when(
        ApplyOverride(
            override=Override(
                id=f"{kind}-{story.version}",
                kind=kind,
                actor="ann",
                reason="a test",
                applied_at_ms=at_ms,
                expires_at_ms=None if for_ms is None else at_ms + for_ms,
                **more,
            )
        )
    )


def skip(story: Stream, windows: int) -> None:
    """Decide the window that comes after so many missing ones."""
    assert story.state.next_window is not None
    start = story.state.next_window + windows * MINUTE_MS
    arrived = dict.fromkeys(story.state.symbol_names, OK)
    story.when(ObserveWindow(readings=WindowReadings(start_ms=start, symbols=arrived)))


def repeat(story: Stream, readings: SymbolReadings) -> None:
    """Let the last window come again with something else in it."""
    observed = story.state.observed
    assert observed is not None
    again = WindowReadings(start_ms=observed.window, symbols={BTC: readings})
    story.when(
        ObserveWindow(
            readings=again,
            recorded_content=observed.content,
            recorded_symbols=story.state.symbol_names,
        )
    )


def meddle(story: Stream) -> None:
    story.when(
        ReportExternalWrite(
            id="w", key="k", symbol=None, found="ACTIVE", expected="FROZEN", at_ms=story.first
        )
    )


def disobey(story: Stream) -> None:
    story.when(
        ReportFill(
            symbol=BTC, filled_at_ms=story.first + 9_000, frozen_since_ms=story.first,
            notional=10.0, grace_ms=1_000,
        )
    )  # fmt: skip


def turn_clock_back(story: Stream) -> None:
    story.when(ObserveClock(window=story.first - 5 * MINUTE_MS))


def readopt(story: Stream) -> None:
    """Take a symbol out with the next window, as a run does it: in one append."""
    story.adopt(*SIX[1:])
    story.window()


def test_every_figure_is_the_artifacts_of_the_same_version() -> None:
    sick = SymbolReadings(kpis={**OK.kpis, "risk_ratio": Defect.NAN, "maker_taker_ratio": 0.1})
    steps: list[Callable[[Stream], object]] = [
        Stream.window,
        *[lambda story: story.window(AAUSDT=WARN, FFUSDT=CRIT)] * 3,
        *[Stream.window] * 2,
        lambda story: story.window(AAUSDT=sick, BBUSDT=SymbolReadings()),
        lambda story: override(story, OverrideKind.CAP, 90_000, symbol=SIX[1], cap=0.25),
        lambda story: override(story, OverrideKind.CAP, cap=0.75),
        lambda story: override(story, OverrideKind.CAP, 9_000_000, cap=0.5),
        Stream.window,
        lambda story: story.window(CCUSDT=CRIT),
        meddle,
        Stream.window,
        lambda story: skip(story, 3),
        lambda story: override(story, OverrideKind.FREEZE, 30_000),
        Stream.window,
        turn_clock_back,
        Stream.window,
        readopt,
    ]
    story = Stream(*SIX, policy=Policy(min_ok_windows=2, unfreeze_after_ok_windows=2))
    seen = set()
    with metered(story) as run:
        for step in steps:
            found = run.tells(step)
            if story.state.observed is not None:
                assert_agrees(found, story.state, run.place)
            seen.add(found.value("live_state"))
        assert seen == {0, 1, 2}, "the story has every state in it"
        assert story.state.counts.gap_windows == 3
        assert found.value("live_clock_faults_total") == 1


def test_violations_and_transitions_are_counted_window_by_window() -> None:
    with metered(Stream(BTC, ETH)) as run:
        run.tells(lambda story: story.window(BTCUSDT=WARN))
        run.tells(lambda story: story.window(BTCUSDT=WARN, ETHUSDT=CRIT))
        run.tells(lambda story: story.window(BTCUSDT=SymbolReadings()))
        found = run.tells(lambda story: story.window())
    counts = found.by("live_violations_total", "symbol", "kpi", "severity")
    crit = [kpi for kpi in CRIT.kpis if CRIT.kpis[kpi] != OK.kpis[kpi]]
    assert crit
    # In the third window trading is halted, and what needs fills is waived.
    assert {of: count for of, count in counts.items() if count} == {
        (BTC, "p95_latency_ms", "WARN"): 2 + 1,
        (BTC, "risk_ratio", "WARN"): 1,
        **{(ETH, kpi, "CRIT"): 1 for kpi in crit},
    }
    assert len(counts) == 2 * len(KPIS) * 2
    assert found.by("live_transitions_total", "state") == {"FROZEN": 1, "COOLDOWN": 0, "ACTIVE": 1}


def test_what_cannot_be_counted_by_its_reason_is_other() -> None:
    story = Stream(BTC)
    counts = {"late": 2, "malformed": 3, "eaten by a dog": 4, "lost": 1}
    with metered(story) as run:
        for index in range(2):
            readings = WindowReadings(
                start_ms=story.first + index * MINUTE_MS, symbols={BTC: OK}, feed_counts=counts
            )
            story.when(ObserveWindow(readings=readings))
            run.append()
        found = run.scrape().by("live_feed_samples_discarded_total", "reason")
    expected = dict.fromkeys(DISCARD_REASONS, 0) | {"late": 4, "malformed": 6, "other": 10}
    assert found == expected


def test_late_windows_intruders_and_disobedience_are_counted_as_the_ledger_counts_them() -> None:
    with metered(Stream(BTC)) as run:
        run.tells(lambda story: story.window(BTCUSDT=CRIT))
        for act in (disobey, meddle, lambda story: repeat(story, WARN)):
            found = run.tells(act)
        counts = run.story.state.counts
        assert (counts.fills_while_frozen, counts.external_writes, counts.late_windows) == (1, 1, 1)
        assert_agrees(found, run.story.state, run.place)


def test_an_override_that_has_ended_is_in_force_no_more() -> None:
    with metered(Stream(BTC).window()) as run:
        found = run.tells(lambda story: override(story, OverrideKind.FREEZE, 1_000))
        assert found.by("live_overrides_in_force", "kind") == {"freeze": 1, "cap": 0}
        ends = found.value("live_override_expiry_timestamp_seconds", kind="freeze")
        assert ends == (run.story.state.overrides[0].expires_at_ms or 0) / 1000
        run.story.when(ExpireOverrides(at_ms=run.story.first + 10 * MINUTE_MS))
        run.append()
        found = run.scrape()
    assert found.by("live_overrides_in_force", "kind") == {"freeze": 0, "cap": 0}
    assert found.value("live_override_expiry_timestamp_seconds", kind="freeze") == 0


def test_the_newest_sample_is_told_with_the_window_that_it_came_for() -> None:
    with metered(Stream(BTC)) as run:
        first_end = run.story.first + MINUTE_MS
        run.now_ms = first_end + 2_000
        run.story.window()
        run.append(newest_ms=first_end - 1_500)
        found = run.scrape()
        newest = found.value("live_feed_last_sample_timestamp_seconds")
        assert newest == (first_end - 1_500) / 1000
        assert found.value("live_feed_lag_seconds") == 1.5
        assert found.value("live_last_decision_timestamp_seconds") == run.now_ms / 1000
        # A sample of the next window, taken in while this one was waited for.
        run.story.window()
        run.append(newest_ms=first_end + MINUTE_MS + 100)
        assert run.scrape().value("live_feed_lag_seconds") == 0
        # A feed that knows no times says nothing; the last one known grows old.
        run.story.window()
        run.append(newest_ms=None)
        assert run.scrape().value("live_feed_lag_seconds") == (MINUTE_MS - 100) / 1000


def test_symbols_of_the_run_and_of_the_ledger_are_told_until_the_first_window_decides() -> None:
    story = Stream(BTC, ETH)
    with metered(story, ETH, SOL) as run:
        found = run.tells(lambda _: None)
        assert set(found.by("live_symbol_throttle", "symbol")) == {BTC, ETH, SOL}
        assert found.value("live_effective_throttle", symbol=SOL) == 0
        story.adopt(ETH, SOL)
        found = run.tells(Stream.window)
    assert found.by("live_effective_throttle", "symbol") == {ETH: 1, SOL: 1}
    told = {labels["symbol"] for labels in found.labels("live_violations_total")}
    assert told == {ETH, SOL}


def test_a_new_ledger_says_that_nothing_may_be_traded_until_a_window_is_decided() -> None:
    with metered(Stream(BTC), BTC) as run:
        found = run.scrape()
        for name in ("live_state", "live_throttle_factor", "live_ok_windows_required"):
            assert found.value(name) == 0
        # The run is in the ledger, with its policy, but no window is.
        found = run.tells(lambda _: None)
        assert run.story.state.trading_state == "ACTIVE"
        assert found.value("live_state") == found.value("live_throttle_factor") == 0
        assert found.by("live_effective_throttle", "symbol") == {BTC: 0}
        assert math.isnan(found.value("live_feed_lag_seconds"))
        assert run.tells(Stream.window).value("live_state") == 2


def test_what_is_not_done_has_no_series() -> None:
    with metered(Stream(BTC)) as run:
        names = run.scrape().names
        assert not {name for name in names if "redis" in name or "notifications" in name}
        run.metrics.set_redis_up(False)
        run.metrics.notified(pending=3, delivered=5, failed=2, abandoned=1)
        found = run.scrape()
    assert found.value("live_redis_up") == 0
    assert found.value("live_notifications_pending") == 3
    outcomes = {"delivered": 5, "failed": 2, "abandoned": 1}
    assert found.by("live_notifications_total", "outcome") == outcomes


def test_what_is_healthy_may_be_believed() -> None:
    with metered(Stream(BTC)) as run:
        assert run.metrics.health() == (False, "no window has been decided yet")
        run.tells(Stream.window)
        assert run.metrics.health().is_healthy
        run.now_ms += 10 * MINUTE_MS
        health = run.metrics.health()
    assert not health.is_healthy
    assert health.text.startswith("the last decision was valid until 20")


class TestLag:
    """How far a projection is behind, in events and in seconds."""

    @pytest.fixture
    def run(self) -> Any:
        with metered(Stream(BTC)) as run:
            yield run

    def lag(self, run: Metered, name: str = "redis") -> tuple[float, float]:
        found = run.scrape()
        assert set(found.by("live_projection_lag_seconds", "projection")) == set(
            found.by("live_projection_lag_events", "projection")
        )
        return (
            found.value("live_projection_lag_events", projection=name),
            found.value("live_projection_lag_seconds", projection=name),
        )

    def test_nothing_in_the_ledger_is_no_lag(self, run: Metered) -> None:
        run.metrics.add_projection("redis")
        run.now_ms += 5_000
        assert self.lag(run) == (0, 0)

    def test_it_grows_from_the_first_append_that_is_missing(self, run: Metered) -> None:
        run.metrics.add_projection("redis")
        run.append()
        began = run.story.version
        run.metrics.projected("redis", began)
        run.now_ms += 7_000
        assert self.lag(run) == (0, 0)
        for _ in range(3):
            run.tells(Stream.window)
            run.now_ms += 1_000
        assert self.lag(run) == (run.story.version - began, 3)
        run.metrics.projected("redis", run.story.version)
        assert self.lag(run) == (0, 0)

    def test_one_that_catches_up_waits_since_the_first_append_that_it_lacks(
        self, run: Metered
    ) -> None:
        run.metrics.add_projection("history")
        versions = []
        for _ in range(4):
            run.tells(Stream.window)
            versions.append(run.story.version)
            run.now_ms += 1_000
        assert self.lag(run, "history") == (versions[-1], 4)
        run.metrics.projected("history", versions[1])
        assert self.lag(run, "history") == (versions[3] - versions[1], 2)
        # An older version than it is known to have is an answer that came late.
        run.metrics.projected("history", versions[0])
        assert self.lag(run, "history") == (versions[3] - versions[1], 2)
        run.metrics.projected("history", versions[1], run.now_ms - 60_000)
        assert self.lag(run, "history") == (versions[3] - versions[1], 60)

    def test_one_that_begins_behind_waits_since_the_runs_start(self, run: Metered) -> None:
        run.append()
        run.metrics.add_projection("redis")
        run.now_ms += 3_000
        assert self.lag(run) == (run.story.version, 3)

    def test_a_clock_that_goes_back_makes_no_negative_age(self, run: Metered) -> None:
        run.metrics.add_projection("redis")
        run.append()
        run.now_ms -= 9_000
        assert self.lag(run) == (run.story.version, 0)

    def test_what_is_forgotten_of_the_appends_makes_it_older_rather_than_younger(
        self, run: Metered
    ) -> None:
        run.metrics.add_projection("history")
        run.append()
        stream = run.metrics.snapshot.stream
        for version in range(1, APPENDS_MAX + 2):
            run.metrics._appends.add(version, run.now_ms + version)
        place = run.metrics.snapshot.places["history"]
        assert run.metrics._appends.place(place, 1, stream).waiting_since_ms == run.now_ms


def test_a_dry_run_is_of_an_environment_of_its_own() -> None:
    with metered(Stream(BTC), env="prod-dry-run") as run:
        found = run.tells(Stream.window)
    ours = [labels for (name, labels) in found.series if name.startswith("live_")]
    assert {dict(labels)["env"] for labels in ours} == {"prod-dry-run"}


def test_every_scrape_is_of_one_version_while_windows_are_appended() -> None:
    """Each window adds one event: the versions and the counts of one page belong together."""
    with metered(Stream(BTC)) as run:
        run.append()
        began = run.story.version
        ended = threading.Event()

        def go_on() -> None:
            while not ended.is_set():
                run.story.window()
                run.append()

        appending = threading.Thread(target=go_on)
        appending.start()
        try:
            pages = [run.scrape() for _ in range(60)]
        finally:
            ended.set()
            appending.join()
    for found in pages:
        windows = sum(found.by("live_windows_total", "verdict").values())
        version = found.value("live_ledger_version")
        assert version == began + windows
        assert found.value("live_ok_windows") == windows
        assert found.value("live_ledger_position") == version
        end_sec = found.value("live_last_window_end_timestamp_seconds")
        assert not windows or end_sec == run.story.first / 1000 + 60 * windows
    assert len({found.value("live_ledger_version") for found in pages}) > 3
