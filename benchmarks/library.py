"""
The peer of a rebuild: the eventsourcing library as its documentation has one use it.

A mutable `Aggregate` with `@event`, the JSON transcoder and the default fold, over the same store.
Its events carry the same observation as plain JSON values, the quickest that it can be given.
"""

from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from domain.events import KpiObserved

PLAIN_FIELDS: Final = (
    "window",
    "interval_ms",
    "content",
    "verdict",
    "throttle",
    "symbols",
    "ok_windows",
)


class Controller(Aggregate):
    """What a window leaves behind, kept by the library."""

    @event("Started")
    def __init__(self, interval_ms: int) -> None:
        self.interval_ms = interval_ms
        self.windows = 0

    @event("WindowObserved")
    def observe(
        self,
        window: int,
        interval_ms: int,
        content: str,
        verdict: str,
        throttle: float,
        symbols: list[dict[str, Any]],
        ok_windows: int,
        decided_at_ms: int,
    ) -> None:
        """Take a window's outcome over."""
        del interval_ms, content, decided_at_ms  # In the event, as in ours.
        self.window = window
        self.verdict = verdict
        self.throttle = throttle
        self.symbols = symbols
        self.ok_windows = ok_windows
        self.windows += 1


def open_library(path: Path) -> Application[UUID]:
    """Return the library's own application over one SQLite file."""
    return Application[UUID](
        env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)}
    )


def observe(controller: Controller, observed: KpiObserved) -> None:
    """Give the aggregate the same observation."""
    plain = msgspec.to_builtins(observed)
    fields = {name: plain.get(name, 0) for name in PLAIN_FIELDS}
    controller.observe(**fields, decided_at_ms=observed.end_ms)
