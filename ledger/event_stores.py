"""
How the library reads a stream of any length: in batches, and to fold it without what is superseded.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import Final, cast

from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import EventStore, StoredEvent

from ledger.codec import LedgerMapper, Record, Row, Superseded
from ledger.sqlite import LedgerRecorder

READ_BATCH: Final = 2_000


class BatchedEventStore(EventStore[str]):
    """Reads any number of events in a bounded amount of memory."""

    def get(
        self,
        originator_id: str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Iterator[DomainEventProtocol[str]]:
        """Yield the stream's records."""
        if desc or limit is not None:
            yield from super().get(originator_id, gt=gt, lte=lte, desc=desc, limit=limit)
            return
        recorder = cast("LedgerRecorder", self.recorder)
        after = gt or 0
        while True:
            rows = recorder.select_rows(originator_id, gt=after, lte=lte, limit=READ_BATCH)
            yield from cast("Iterator[DomainEventProtocol[str]]", self._decode(rows))
            if len(rows) < READ_BATCH:
                return
            after = rows[-1][1]

    def _decode(self, rows: Sequence[Row]) -> Iterator[Record | Superseded]:
        mapper = cast("LedgerMapper", self.mapper)
        return (mapper.to_record(StoredEvent(*row)) for row in rows)


class EventsToFold(BatchedEventStore):
    """Gives a fold what it needs: a row that the next one supersedes is counted, not decoded."""

    def _decode(self, rows: Sequence[Row]) -> Iterator[Record | Superseded]:
        mapper = cast("LedgerMapper", self.mapper)
        superseded = 0
        for row, following in pairwise(chain(rows, [_NO_ROW])):
            if mapper.is_superseded(row, following):
                superseded += 1
                continue
            if superseded:
                yield Superseded(row[0], row[1] - 1, superseded)
                superseded = 0
            yield mapper.to_record(StoredEvent(*row))


_NO_ROW: Final[Row] = ("", 0, "", b"")
