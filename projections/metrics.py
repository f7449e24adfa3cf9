"""
Metrics for Prometheus: what `/metrics` says of a run.

A scrape is made from one immutable snapshot, and so of one ledger version, in the scraper's own
thread. Only the histogram of durations is kept beside it.

Source: LIVE_MODE_GUIDE.md, Alerts & Dashboard; issue 4, Metrics.
"""

from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import Final

from msgspec.structs import replace
from prometheus_client import (
    CollectorRegistry,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from domain.events import Event
from domain.windows import format_time
from ledger.application import StreamState
from projections.metrics_catalogue import COMMON_LABELS, DURATION_BUCKETS_SEC, all_metrics
from projections.metrics_readings import readings_of
from projections.metrics_server import Health
from projections.metrics_snapshot import About, Appends, Place, Snapshot, after_append
from projections.redis_keys import valid_until

_HISTOGRAM: Final = "live_window_duration_seconds"


class Metrics:
    """
    The metrics of one run. Every method may be called from any thread.

    Args:
        about: the run.
        stream, position: the ledger as it is before the run's first append.
        decided_at_ms: when a window was last appended to it.
        now_ms: the wall clock, for what has an age.
    """

    def __init__(
        self,
        about: About,
        stream: StreamState,
        *,
        position: int,
        decided_at_ms: int | None,
        now_ms: Callable[[], int],
    ) -> None:
        self._lock = Lock()
        self._appends = Appends()
        self._newest_ms: int | None = None
        self._now_ms = now_ms
        self.snapshot = Snapshot(
            about=about, stream=stream, position=position, decided_at_ms=decided_at_ms
        )
        self.registry = CollectorRegistry(auto_describe=True)
        """Whatever else a run counts may be registered here, with the labels of `labels`."""
        self.labels: Final = {"env": about.env, "exchange": about.exchange}
        # When a series began is no news to whoever scrapes it from its beginning.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry.register(self)
        durations = Histogram(
            _HISTOGRAM,
            next(metric.text for metric in all_metrics() if metric.name == _HISTOGRAM),
            COMMON_LABELS,
            buckets=DURATION_BUCKETS_SEC,
            registry=self.registry,
        )
        self._durations = durations.labels(**self.labels)
        ProcessCollector(registry=self.registry)

    def appended(
        self, stream: StreamState, events: Sequence[Event], *, position: int, at_ms: int
    ) -> None:
        """Take in what was appended at a time, the stream with it."""
        with self._lock:
            self._appends.add(stream.version, at_ms)
            self.snapshot = after_append(
                self.snapshot,
                stream,
                events,
                position=position,
                at_ms=at_ms,
                newest_ms=self._newest_ms,
            )

    def sampled(self, newest_ms: int | None) -> None:
        """Take the newest sample's own time, to be told with the window that is decided next."""
        self._newest_ms = newest_ms

    def add_projection(self, name: str) -> None:
        """Tell of a projection from now on, of which nothing is known yet."""
        with self._lock:
            snapshot = self.snapshot
            began_ms = snapshot.about.started_at_ms if snapshot.stream.version else None
            self._put(name, Place(0, began_ms))

    def projected(self, name: str, version: int) -> None:
        """Note that a projection holds a version of the stream."""
        with self._lock:
            snapshot = self.snapshot
            place = self._appends.place(snapshot.places[name], version, snapshot.stream)
            self._put(name, place)

    def set_redis_up(self, is_up: bool) -> None:
        """Note whether Redis answered."""
        with self._lock:
            self.snapshot = replace(self.snapshot, redis_up=is_up)

    def took(self, seconds: float) -> None:
        """Note how long a window took."""
        self._durations.observe(seconds)

    def collect(self) -> Iterable[Family]:
        """Yield what the snapshot says at this moment; the library calls it at each scrape."""
        snapshot = self.snapshot
        readings = readings_of(snapshot, self._now_ms())
        common = (snapshot.about.env, snapshot.about.exchange)
        for metric in all_metrics():
            if metric.name in readings:
                make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                family = make(metric.name, metric.text, labels=COMMON_LABELS + metric.labels)
                for labels, value in readings[metric.name]:
                    family.add_metric((*common, *labels), value)
                yield family

    def health(self) -> Health:
        """Return whether the last decision may still be believed."""
        until_ms = valid_until(self.snapshot.stream.state)
        if not until_ms:
            return Health(False, "no window has been decided yet")
        is_valid = self._now_ms() < until_ms
        verb = "is" if is_valid else "was"
        return Health(is_valid, f"the last decision {verb} valid until {format_time(until_ms)}")

    def _put(self, name: str, place: Place) -> None:
        places = {**self.snapshot.places, name: place}
        self.snapshot = replace(self.snapshot, places=places)
