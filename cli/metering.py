"""
Metering a run: what the run loop tells of itself, and the server that passes it on.

A run without `--metrics-port` tells it to nobody, and imports nothing for it.
Source: issue 4, Metrics.
"""

import errno
import platform
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cli.clock import SystemClock
from cli.run_options import MetricsOptions
from cli.session import Session
from cli.texts import tell
from domain.commands import AdoptPolicy, StartRun
from domain.errors import BadInput
from domain.events import Event, KpiObserved
from ledger.application import Ledger, StreamState

if TYPE_CHECKING:
    from projections.metrics import Metrics
    from projections.metrics_server import MetricsServer
    from projections.metrics_snapshot import About

ARTIFACTS: Final = "artifacts"
REDIS: Final = "redis"
HISTORY: Final = "history"
NOTIFICATIONS: Final = "notifications"

_LOOK_BACK: Final = 100
"""How many records are looked through for when a window was last decided."""


class Meter:
    """
    What the parts of a run tell of themselves.

    Args:
        metrics: where it is kept; None where nobody asked.
    """

    def __init__(self, metrics: "Metrics | None" = None) -> None:
        self.metrics = metrics

    def add_projection(self, name: str) -> None:
        """Tell from now on how far a projection is behind."""
        if self.metrics is not None:
            self.metrics.add_projection(name)

    def projected(self, name: str, version: int, *, waiting_since_ms: int | None = None) -> None:
        """
        Tell which version of the stream a projection holds.

        Args:
            waiting_since_ms: since when the next one waits, where the projection itself knows.
        """
        if self.metrics is not None:
            self.metrics.projected(name, version, waiting_since_ms)

    def notified(
        self, *, pending: int, delivered: int = 0, failed: int = 0, abandoned: int = 0
    ) -> None:
        """Tell what has become of the run's notifications; `pending` is of now."""
        if self.metrics is not None:
            self.metrics.notified(
                pending=pending, delivered=delivered, failed=failed, abandoned=abandoned
            )

    def redis_answered(self, is_up: bool) -> None:
        """Tell whether Redis answered."""
        if self.metrics is not None:
            self.metrics.set_redis_up(is_up)

    def sampled(self, newest_ms: int | None) -> None:
        """Tell of what time the feed's newest sample is; it belongs to the next window decided."""
        if self.metrics is not None:
            self.metrics.sampled(newest_ms)

    @contextmanager
    def window(self) -> Iterator[None]:
        """Measure how long a window is worked on."""
        began_sec = time.perf_counter()
        yield
        if self.metrics is not None:
            self.metrics.took(time.perf_counter() - began_sec)


NO_METER: Final = Meter()


@contextmanager
def listening(options: MetricsOptions | None) -> Iterator["MetricsServer | None"]:
    """
    Hold the address of `--metrics-port`; without one, None.

    Raises:
        BadInput: if the address or the port can't be had, naming the option.
    """
    if options is None:
        yield None
        return
    server = _listen(options)
    try:
        yield server
    finally:
        server.close()


def open_meter(
    server: "MetricsServer | None",
    ledger: Ledger,
    session: Session,
    adoption: AdoptPolicy,
    clock: SystemClock,
) -> Meter:
    """
    Return what a session's run is told to; `serve` lets the server answer.

    Between the two whoever has figures of its own says so, that a scrape finds them from the start.
    """
    if server is None:
        return NO_METER
    from projections.metrics import Metrics  # noqa: PLC0415

    stream = session.stream
    metrics = Metrics(
        _about(session.start, adoption),
        stream,
        position=ledger.position(stream) if stream.version else 0,
        decided_at_ms=_decided_at_ms(ledger, stream),
        now_ms=clock.now_ms,
    )

    def appended(stream: StreamState, events: Sequence[Event], at_ms: int) -> None:
        metrics.appended(stream, events, position=ledger.position(stream), at_ms=at_ms)

    session.watch(appended)
    return Meter(metrics)


def serve(server: "MetricsServer | None", meter: Meter) -> None:
    """Answer scrapes from now on, and say where, if anybody asked for it."""
    if server is None or meter.metrics is None:
        return
    server.serve(meter.metrics.page, meter.metrics.health)
    tell(f"metrics at {server.url}")


def _listen(options: MetricsOptions) -> "MetricsServer":
    from projections.metrics_server import MetricsServer  # noqa: PLC0415

    address, port = options.address, options.port
    try:
        return MetricsServer(address, port)
    except (socket.gaierror, UnicodeError):
        reason = "expected an address of this machine"
        raise BadInput(f"--metrics-address: {reason}, was {address!r}") from None
    except OSError as error:
        if error.errno in {errno.EADDRINUSE, errno.EACCES}:
            cause = f"{port} on {address} can't be had: {error.strerror}"
            raise BadInput(f"--metrics-port: {cause}") from None
        cause = f"{address} can't be listened on: {error.strerror}"
        raise BadInput(f"--metrics-address: {cause}") from None


def _about(start: StartRun, adoption: AdoptPolicy) -> "About":
    from projections.metrics_snapshot import About  # noqa: PLC0415

    return About(
        env=f"{start.env}-dry-run" if start.dry_run else start.env,
        exchange=start.exchange,
        symbols=adoption.symbols,
        policy=adoption.policy,
        policy_hash=adoption.policy.hash,
        profile=adoption.profile,
        interval_ms=start.interval_ms,
        started_at_ms=start.started_at_ms,
        version=start.code_version,
        python=platform.python_version(),
    )


def _decided_at_ms(ledger: Ledger, stream: StreamState) -> int | None:
    """Return when the stream's last window was appended, None before the first."""
    observed = stream.state.observed
    if observed is None:
        return None
    after = max(0, stream.version - _LOOK_BACK)
    for record in reversed(ledger.page(stream.id, after=after, limit=_LOOK_BACK)):
        if isinstance(record.event, KpiObserved) and record.decided_at_ms is not None:
            return record.decided_at_ms
    return observed.end_ms
