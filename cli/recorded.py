"""
Looking up what the ledger already holds of a window, without holding it all in memory.
"""

from typing import Final, NamedTuple

from domain.events import KpiObserved, LateWindowObserved
from ledger.application import Ledger
from ledger.event_stores import READ_BATCH
from ledger.reading import first_version_from

PAGE: Final = READ_BATCH


class Recorded(NamedTuple):
    """A recorded window's content hash, and the symbols that it was of."""

    content: str
    symbols: tuple[str, ...]


class RecordedWindows:
    """
    The contents of a stream's windows, for a feed that brings them again.

    A feed brings them in order, so a page of the stream is read at a time.
    """

    def __init__(self, ledger: Ledger, stream_id: str) -> None:
        self._ledger = ledger
        self._stream_id = stream_id
        self._page: dict[int, Recorded] = {}
        self._span = range(0)
        self._late: set[tuple[int, str]] | None = None

    def find(self, window: int) -> Recorded | None:
        """Return what the ledger holds of a window, None if it was missing."""
        if window not in self._span:
            self._read_page(window)
        return self._page.get(window)

    def is_known_late(self, window: int, content: str) -> bool:
        """Return whether this very content was recorded as late."""
        return (window, content) in self._known_late()

    def add_late(self, window: int, content: str) -> None:
        """Remember content that is about to be recorded as late."""
        self._known_late().add((window, content))

    def _known_late(self) -> set[tuple[int, str]]:
        if self._late is None:
            self._late = {
                (record.event.window, record.event.content)
                for record in self._ledger.records(self._stream_id)
                if isinstance(record.event, LateWindowObserved)
            }
        return self._late

    def _read_page(self, window: int) -> None:
        version = first_version_from(self._ledger, self._stream_id, window)
        self._page = {}
        last = window
        for record in self._ledger.page(self._stream_id, after=version - 1, limit=PAGE):
            if isinstance(record.event, KpiObserved):
                last = record.event.window
                symbols = tuple(symbol.memory.symbol for symbol in record.event.symbols)
                self._page[last] = Recorded(record.event.content, symbols)
        self._span = range(window, last + 1)
