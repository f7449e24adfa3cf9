"""The mock feed tells the story that its url names, and tells it again the same."""

import subprocess
import sys

import pytest

from domain.errors import BadInput
from domain.kpis import KPIS, Verdict
from domain.windows import SymbolReadings
from feeds.base import LiveFeed
from feeds.mock import SCENARIOS, MockFeed

MINUTE_MS = 60_000
ORIGIN_MS = 1_767_621_600_000
SYMBOLS = ("BTCUSDT", "ETHUSDT")


def feed(url: str, origin_ms: int = ORIGIN_MS) -> MockFeed:
    return MockFeed(url, SYMBOLS, interval_ms=MINUTE_MS, origin_ms=origin_ms)


def window(mock: LiveFeed, index: int) -> dict[str, SymbolReadings]:
    start_ms = ORIGIN_MS + index * MINUTE_MS
    got = mock.collect(start_ms, start_ms + MINUTE_MS)
    assert got.start_ms == start_ms
    return got.symbols


def verdict(readings: SymbolReadings | None) -> str:
    """Judge by the guide's default thresholds; nothing at all is "-"."""
    if readings is None:
        return "-"
    worst = Verdict.OK
    for kpi in KPIS:
        value = readings.kpis[kpi.name]
        assert isinstance(value, float) and kpi.is_valid(value)
        if kpi.is_breached(value, kpi.threshold):
            worst = max(worst, kpi.verdict, key=lambda verdict: verdict.severity)
    return worst[0]


def story(url: str, windows: int, symbol: str = "BTCUSDT") -> str:
    mock = feed(url)
    return "".join(verdict(window(mock, index).get(symbol)) for index in range(windows))


def test_healthy_is_ok_in_every_window_of_a_thousand() -> None:
    assert story("mock://healthy?seed=1", 1000) == "O" * 1000


def test_warn_has_its_first_symbol_slow_from_the_seventh_window_on() -> None:
    assert story("mock://warn", 200) == "O" * 6 + "W" * 194
    assert story("mock://warn", 200, "ETHUSDT") == "O" * 200


def test_an_incident_goes_from_healthy_over_slow_and_critical_to_healthy() -> None:
    assert story("mock://incident", 120) == "O" * 30 + "W" * 8 + "C" * 4 + "O" * 78
    assert story("mock://incident", 120, "ETHUSDT") == "O" * 120


def test_a_critical_window_shows_the_figures_of_the_guides_runbook() -> None:
    kpis = window(feed("mock://incident"), 38)["BTCUSDT"].kpis

    assert (kpis["edge_bps"], kpis["risk_ratio"]) == (2.0, 0.45)


def test_flapping_mostly_stops_short_of_three_slow_windows_and_begins_again() -> None:
    told = story("mock://flapping", 118)

    assert told == 2 * ("OOWOOWWOWWOOWWW" + "O" * 14 + "WOOC" + "O" * 26)


def test_in_an_outage_nothing_arrives_for_ten_windows() -> None:
    assert story("mock://outage", 60) == "O" * 20 + "-" * 10 + "O" * 30
    assert story("mock://outage", 60, "ETHUSDT") == "O" * 20 + "-" * 10 + "O" * 30


def test_every_window_has_a_notional_and_fills() -> None:
    for readings in window(feed("mock://healthy"), 5).values():
        assert readings.notional is not None and 8_000 <= readings.notional <= 72_000
        assert readings.fills is not None and 20 <= readings.fills <= 60


def test_a_restarted_feed_goes_on_where_it_stopped() -> None:
    through = feed("mock://flapping?seed=7")
    before = [window(through, index) for index in range(80)]
    restarted = feed("mock://flapping?seed=7")

    assert [window(restarted, index) for index in range(40, 80)] == before[40:]


def test_a_window_depends_on_its_distance_from_the_origin_and_not_on_the_clock() -> None:
    later = feed("mock://incident", origin_ms=ORIGIN_MS + 9 * MINUTE_MS)

    assert window(later, 47) == window(feed("mock://incident"), 38)


def test_windows_symbols_and_seeds_differ_from_one_another() -> None:
    first = feed("mock://healthy?seed=1")
    values = [
        window(first, 0)["BTCUSDT"],
        window(first, 0)["ETHUSDT"],
        window(first, 1)["BTCUSDT"],
        window(feed("mock://healthy?seed=2"), 0)["BTCUSDT"],
    ]

    assert all(values.count(value) == 1 for value in values)


def test_a_window_is_the_same_in_another_process() -> None:
    code = (
        "from feeds.mock import MockFeed\n"
        f"feed = MockFeed('mock://healthy?seed=3', ['BTCUSDT'], interval_ms={MINUTE_MS}, "
        f"origin_ms={ORIGIN_MS})\n"
        f"print(feed.collect({ORIGIN_MS}, {ORIGIN_MS + MINUTE_MS}).symbols['BTCUSDT'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == repr(window(feed("mock://healthy?seed=3"), 0)["BTCUSDT"])


def test_a_window_before_the_origin_is_of_the_first_phase() -> None:
    assert verdict(window(feed("mock://warn"), -5)["BTCUSDT"]) == "O"


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_has_a_phase_for_windows_years_away(name: str) -> None:
    assert SCENARIOS[name].phase_at(5_000_000) in SCENARIOS[name].phases


@pytest.mark.parametrize(
    ("url", "description"),
    [
        ("mock://", "mock://healthy?seed=0"),
        ("mock://?seed=12", "mock://healthy?seed=12"),
        ("mock://incident", "mock://incident?seed=0"),
        ("mock://outage/?seed=007", "mock://outage?seed=7"),
    ],
)
def test_the_description_is_the_whole_url(url: str, description: str) -> None:
    mock: LiveFeed = feed(url)

    assert (mock.description, mock.kind) == (description, "mock")
    mock.close()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mock://chaos", "healthy, warn, incident, flapping, outage, was 'chaos'"),
        ("mock://healthy?speed=2", "expected no option but seed, was 'speed'"),
        ("mock://healthy?seed=1&seed=2", "expected one seed, was 2"),
        ("mock://healthy?seed=-1", "expected a seed from 0 to 9223372036854775807, was '-1'"),
        ("mock://healthy?seed=", "was ''"),
        ("mock://healthy?seed=1e3", "was '1e3'"),
        ("mock://healthy?seed=" + "9" * 19, "was '9999"),
        ("mock://healthy?seed=" + "9" * 5000, "was '9999"),
        ("mock://healthy?seed", "expected mock://SCENARIO?seed=N"),
        ("mock://healthy#seed", "expected mock://SCENARIO?seed=N"),
        ("mock://healthy/now", "expected mock://SCENARIO?seed=N"),
        ("mock:healthy", "expected mock://SCENARIO?seed=N"),
        ("mock://[", "expected mock://SCENARIO?seed=N"),
        ("file://healthy", "expected mock://SCENARIO?seed=N"),
    ],
)
def test_a_url_that_names_nothing_known_is_refused(url: str, told: str) -> None:
    with pytest.raises(BadInput) as refused:
        feed(url)

    assert str(refused.value).startswith(url)
    assert told in str(refused.value)


def test_a_malformed_symbol_and_an_impossible_interval_are_refused() -> None:
    with pytest.raises(BadInput, match="malformed symbol 'btc'"):
        MockFeed("mock://", ["btc"], interval_ms=MINUTE_MS, origin_ms=0)
    with pytest.raises(BadInput, match="--interval-sec: expected an interval"):
        MockFeed("mock://", ["BTCUSDT"], interval_ms=0, origin_ms=0)


def test_the_mock_feed_imports_neither_pyarrow_nor_numpy() -> None:
    code = "import sys, feeds.mock; print({'pyarrow', 'numpy'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "set()"


def test_the_newest_sample_is_of_the_last_windows_end_that_was_not_silent() -> None:
    mock = feed("mock://outage")
    assert mock.newest_ms is None
    window(mock, 19)
    assert mock.newest_ms == ORIGIN_MS + 20 * MINUTE_MS
    window(mock, 20)
    assert mock.newest_ms == ORIGIN_MS + 20 * MINUTE_MS
