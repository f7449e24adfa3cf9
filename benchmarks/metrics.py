"""
Metrics: what they add to a window, and what a scrape costs, at 5 and at 500 symbols.

The peers are what one would write first, a gauge with labels for each figure, all set anew each
window; and a raw durable commit.
"""

import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Final

from eventsourcing.persistence import StoredEvent
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from benchmarks import market
from benchmarks.measuring import Figure, Scale, interleaved
from benchmarks.raw import RawCommits
from benchmarks.window import PAYLOAD_BYTES
from cli.metering import ARTIFACTS, REDIS, Meter
from domain.commands import ObserveWindow
from domain.controller import decide, fold
from domain.events import Event
from domain.policy import Policy
from domain.state import State
from domain.windows import WindowReadings
from ledger.application import StreamState
from projections.metrics import Metrics
from projections.metrics_catalogue import AGES, COMMON_LABELS, all_metrics
from projections.metrics_readings import ages_of, readings_of
from projections.metrics_server import MetricsServer
from projections.metrics_snapshot import About, Snapshot

SYMBOL_COUNTS: Final = (5, 500)
WINDOWS: Final = 200
SCRAPES: Final = 20
AIM_OF_COMMIT: Final = 0.1
AIM_OF_GAUGES: Final = 0.2
AIM_OF_SCRAPE: Final = 1.0
AIM_OF_REPEATED: Final = 0.25


def measure(scale: Scale) -> list[Figure]:
    raw = RawCommits(scale.folder / "raw-metrics.sqlite")

    def commit(turn: int) -> None:
        raw.commit([StoredEvent(market.STREAM, turn, "kpi_observed.v1", b"x" * PAYLOAD_BYTES)])

    figures = [figure for count in SYMBOL_COUNTS for figure in _at(count, commit)]
    raw.close()
    return figures


def _at(count: int, commit: Callable[[int], None]) -> Iterator[Figure]:
    symbols = tuple(f"S{number:03d}USDT" for number in range(count))
    history = list(_decided(symbols, WINDOWS))
    metrics = Metrics(
        _about(symbols),
        StreamState(market.STREAM),
        position=0,
        decided_at_ms=None,
        now_ms=lambda: market.ORIGIN_MS,
    )
    meter = Meter(metrics)
    meter.add_projection(ARTIFACTS)
    meter.add_projection(REDIS)

    def told(turn: int) -> None:
        stream, events = history[turn]
        with meter.window():
            meter.sampled(market.ORIGIN_MS)
            metrics.appended(stream, events, position=turn, at_ms=market.ORIGIN_MS)
            meter.redis_answered(True)
            meter.projected(REDIS, stream.version)
            meter.projected(ARTIFACTS, stream.version)

    gauges = _Gauges()

    def set_all(turn: int) -> None:
        stream, _ = history[turn]
        gauges.set(replace(metrics.snapshot, stream=stream))

    offset = count * WINDOWS
    ours, theirs, limit = interleaved(WINDOWS, [told, set_all, lambda turn: commit(offset + turn)])
    yield Figure(
        what=f"metrics of a window, {count} symbols", ours=ours * 1e6, unit="us", better="lower",
        peer=limit * 1e6, peer_name="raw commit", aim=AIM_OF_COMMIT,
    )  # fmt: skip
    yield Figure(
        what="  the same", ours=ours * 1e6, unit="us", better="lower", peer=theirs * 1e6,
        peer_name="setting a gauge for each figure", aim=AIM_OF_GAUGES,
    )  # fmt: skip

    def new_page(turn: int) -> None:
        metrics.snapshot = replace(metrics.snapshot, stream=history[turn][0])
        metrics.page("")

    first, again, their_page = interleaved(
        SCRAPES, [new_page, lambda _: metrics.page(""), lambda _: generate_latest(gauges.registry)]
    )
    lines = metrics.page("").content.count(b"\n")
    yield Figure(
        what=f"a window's first scrape, {count} symbols, {lines} lines", ours=first * 1e3,
        unit="ms", better="lower", peer=their_page * 1e3, peer_name="the gauges' page",
        aim=AIM_OF_SCRAPE,
    )  # fmt: skip
    yield Figure(
        what="  its others", ours=again * 1e3, unit="ms", better="lower", peer=their_page * 1e3,
        peer_name="the gauges' page", aim=AIM_OF_REPEATED,
    )  # fmt: skip
    yield Figure(
        what="  the same over HTTP", ours=_over_http(metrics) * 1e3, unit="ms", better="lower"
    )


class _Gauges:
    """A gauge with labels for each of our metrics, as a runner would set them itself."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._gauges = {
            metric.name: Gauge(
                metric.name, metric.text, COMMON_LABELS + metric.labels, registry=self.registry
            )
            for metric in all_metrics()
        }

    def set(self, snapshot: Snapshot) -> None:
        ages = {AGES.name: ages_of(snapshot, market.ORIGIN_MS)}
        for name, readings in {**readings_of(snapshot), **ages}.items():
            gauge = self._gauges[name]
            for labels, value in readings:
                gauge.labels("dev", "bybit", *labels).set(value)


def _over_http(metrics: Metrics) -> float:
    """Return the median seconds that a scrape takes for whoever scrapes."""
    server = MetricsServer("127.0.0.1", 0)
    server.serve(metrics.page, metrics.health)
    taken = []
    for _ in range(SCRAPES):
        began = time.perf_counter()
        with urllib.request.urlopen(server.url) as answer:
            answer.read()
        taken.append(time.perf_counter() - began)
    server.close()
    return median(taken)


def _decided(symbols: Sequence[str], windows: int) -> Iterator[tuple[StreamState, list[Event]]]:
    """Yield the stream after each window, and what the window appended."""
    state, version = State(), 0
    for command in (market.START, replace(market.ADOPTION, symbols=tuple(symbols))):
        events = decide(state.policy, state, command)
        state, version = fold(state, events), version + len(events)
    for index in range(windows):
        five = list(market.readings(index).symbols.values())
        readings = WindowReadings(
            start_ms=market.ORIGIN_MS + index * market.INTERVAL_MS,
            symbols={symbol: five[at % len(five)] for at, symbol in enumerate(symbols)},
        )
        events = decide(state.policy, state, ObserveWindow(readings=readings))
        state, version = fold(state, events), version + len(events)
        yield StreamState(market.STREAM, version, state), events


def _about(symbols: tuple[str, ...]) -> About:
    return About(
        env="dev",
        exchange="bybit",
        symbols=symbols,
        policy=Policy(),
        policy_hash="",
        profile=None,
        interval_ms=market.INTERVAL_MS,
        started_at_ms=market.ORIGIN_MS,
        version="0",
        python="3",
    )
