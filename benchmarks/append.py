"""A durable append of one window, beside a raw commit of the same bytes."""

from typing import cast

from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import StoredEvent

from benchmarks import library, market
from benchmarks.measuring import Figure, Scale, interleaved
from benchmarks.raw import RawCommits
from domain.events import Event, KpiObserved
from ledger.application import Ledger, StreamState
from ledger.codec import LedgerMapper, Record
from ledger.location import LedgerLocation

AIM_RATIO = 1.3


def measure(scale: Scale) -> list[Figure]:
    windows = list(market.decided(2 * scale.commits))[1:]
    rows = _rows(windows)
    raw = RawCommits(scale.folder / "raw.sqlite")
    app = library.open_library(scale.folder / "library.sqlite")
    controller = library.Controller(market.INTERVAL_MS)
    with Ledger.open(LedgerLocation(scale.folder / "append.sqlite")) as ledger:
        stream = StreamState(market.STREAM)

        def append(turn: int) -> None:
            nonlocal stream
            stream = ledger.append(stream, windows[turn], decided_at_ms=market.ORIGIN_MS)

        def save(turn: int) -> None:
            observed = windows[turn][0]
            assert isinstance(observed, KpiObserved)
            library.observe(controller, observed)
            app.save(controller)

        # In pairs: whoever comes after the library finds colder caches.
        ours, limit = interleaved(scale.commits, [append, lambda turn: raw.commit(rows[turn])])
        ours_again, saved = interleaved(
            scale.commits, [lambda turn: append(scale.commits + turn), save]
        )
    raw.close()
    app.close()
    return [
        Figure(
            what="one durable commit, the machine's limit", ours=limit * 1e3, unit="ms",
            better="lower",
        ),
        Figure(
            what="Ledger.append, one window", ours=ours * 1e3, unit="ms", better="lower",
            peer=limit * 1e3, peer_name="raw commit of the same bytes", aim=AIM_RATIO,
        ),
        Figure(
            what="Ledger.append, one window", ours=ours_again * 1e3, unit="ms", better="lower",
            peer=saved * 1e3, peer_name="the library's Application.save",
        ),
    ]  # fmt: skip


def _rows(windows: list[list[Event]]) -> list[list[StoredEvent]]:
    mapper, version, rows = LedgerMapper(), 0, []
    for events in windows:
        records = [
            Record(
                stream=market.STREAM,
                version=version + offset,
                event=event,
                decided_at_ms=market.ORIGIN_MS,
            )
            for offset, event in enumerate(events, start=1)
        ]
        version += len(records)
        rows.append([mapper.to_stored_event(cast("DomainEventProtocol[str]", r)) for r in records])
    return rows
