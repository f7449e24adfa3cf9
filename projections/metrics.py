"""
Metrics for Prometheus: what `/metrics` says of a run.

A page is made from one immutable snapshot, and so of one ledger version, in the scraper's own
thread. Only the histogram of durations, and what the library knows of the process, is kept beside
it. Source: LIVE_MODE_GUIDE.md, Alerts & Dashboard; issue 4, Metrics.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Final, NamedTuple

from msgspec.structs import replace
from prometheus_client import (
    CollectorRegistry,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from domain.events import Event
from domain.windows import format_time
from ledger.application import StreamState
from projections.metrics_catalogue import (
    AGES,
    COMMON_LABELS,
    DURATION_BUCKETS_SEC,
    DURATIONS,
    Metric,
    all_metrics,
)
from projections.metrics_readings import Readings, ages_of, readings_of
from projections.metrics_server import Health, Page
from projections.metrics_snapshot import (
    About,
    Appends,
    Notifications,
    Place,
    Snapshot,
    after_append,
)
from projections.redis_keys import valid_until

_END: Final = b"# EOF\n"
"""What ends a page of the OpenMetrics format, and none of the text format."""


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
        self.snapshot = Snapshot(
            about=about, stream=stream, position=position, decided_at_ms=decided_at_ms
        )
        self._now_ms = now_ms
        self._newest_ms: int | None = None
        self._appends = Appends()
        self._changing = Lock()
        self._making = Lock()
        self._made = _Made()
        # When a series began is no news to whoever scrapes it from its beginning.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        durations = Histogram(
            DURATIONS.name,
            DURATIONS.text,
            COMMON_LABELS,
            buckets=DURATION_BUCKETS_SEC,
            registry=self._registry,
        )
        self._durations = durations.labels(about.env, about.exchange)
        ProcessCollector(registry=self._registry)

    def appended(
        self, stream: StreamState, events: Sequence[Event], *, position: int, at_ms: int
    ) -> None:
        """Take in what was appended at a time, the stream with it."""
        with self._changing:
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
        with self._changing:
            snapshot = self.snapshot
            began_ms = snapshot.about.started_at_ms if snapshot.stream.version else None
            self._put(name, Place(0, began_ms))

    def projected(self, name: str, version: int, waiting_since_ms: int | None = None) -> None:
        """Note that a projection holds a version of the stream; see `Appends.place`."""
        with self._changing:
            snapshot = self.snapshot
            known = snapshot.places[name]
            place = self._appends.place(known, version, snapshot.stream, waiting_since_ms)
            if place != known:
                self._put(name, place)

    def set_redis_up(self, is_up: bool) -> None:
        """Note whether Redis answered."""
        with self._changing:
            if self.snapshot.redis_up is not is_up:
                self.snapshot = replace(self.snapshot, redis_up=is_up)

    def notified(self, *, pending: int, delivered: int, failed: int, abandoned: int) -> None:
        """Note what has become of the notifications up to now; see `Notifications`."""
        notifications = Notifications(
            pending=pending, delivered=delivered, failed=failed, abandoned=abandoned
        )
        with self._changing:
            if self.snapshot.notifications != notifications:
                self.snapshot = replace(self.snapshot, notifications=notifications)

    def took(self, seconds: float) -> None:
        """Note how long a window took."""
        self._durations.observe(seconds)

    def page(self, accept: str) -> Page:
        """
        Return what there is to say now, in the best of the formats that an `Accept` header names.

        Pages are made one at a time, and what still holds of the last one is taken over: however
        many ask, and however often, the run loop shares the interpreter with one of them.
        """
        encode, kind = choose_encoder(accept)
        with self._making:
            snapshot, last = self.snapshot, self._made
            if last.kind != kind:
                last = _Made(kind)
            if last.snapshot is not snapshot:
                last = _Made(kind, snapshot, _parts(snapshot, last.parts, encode))
            self._made = last
            ages = _family(AGES, ages_of(snapshot, self._now_ms()), snapshot.about)
            rest = encode(_Families([ages, *self._registry.collect()]))
        return Page(kind, b"".join([*(part.content for part in last.parts.values()), rest]))

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


class _Part(NamedTuple):
    """A metric's part of a page, and the readings that it was made from."""

    readings: Readings
    content: bytes


class _Made(NamedTuple):
    """What of the last page followed from its snapshot: its parts by metric, in their order."""

    kind: str = ""
    snapshot: Snapshot | None = None
    parts: Mapping[str, _Part] = {}


class _Families(NamedTuple):
    """What the library's encoders take."""

    families: Iterable[Family]

    def collect(self) -> Iterable[Family]:
        """Return the families."""
        return self.families


def _parts(
    snapshot: Snapshot, last: Mapping[str, _Part], encode: Callable[[Collector], bytes]
) -> dict[str, _Part]:
    """Return a page's parts, taken over from the last page's where the readings are the same."""
    found = readings_of(snapshot)
    parts: dict[str, _Part] = {}
    for metric in all_metrics():
        if metric.name in found:
            readings, part = found[metric.name], last.get(metric.name)
            if part is None or part.readings != readings:
                family = _family(metric, readings, snapshot.about)
                part = _Part(readings, encode(_Families([family])).removesuffix(_END))
            parts[metric.name] = part
    return parts


def _family(metric: Metric, readings: Readings, about: About) -> Family:
    """Return a metric with its readings, as the library has it."""
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = make(metric.name, metric.text, labels=COMMON_LABELS + metric.labels)
    for labels, value in readings:
        family.add_metric((about.env, about.exchange, *labels), value)
    return family
