"""
Keeping the history beside a run: a thread that follows the ledger, off the windows' path.

It reads through a connection of its own. Whatever goes wrong with the history is said once and
tried again; a run never waits for it, and never ends because of it.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from domain.errors import AnotherWriter, CannotTell, LiveError
from ledger.application import Ledger
from ledger.location import LedgerLocation

if TYPE_CHECKING:
    from projections.history_writer import HistoryWriter

LOOK_EVERY_SEC: Final = 2.0
WRITE_EVERY_INTERVALS: Final = 2
"""Windows are written two at a time: before the third, a projection counts as lagging."""

WRITE_EVERY_MS_MIN: Final = 10_000
WRITE_EVERY_MS_MAX: Final = 300_000
WRITE_EVENTS: Final = 2_000
"""As soon as so many events are new they are written."""

LAST_WAIT_SEC: Final = 5.0
"""How long a run that ends waits for another process that is writing its history."""


class HistoryFollower:
    """
    Keeps the history of one stream for as long as it is entered.

    Attributes:
        version: the last event that the history holds, as far as this process has seen.

    Args:
        interval_ms: a window's length, by which it is decided how often is written.
        now_ms: the wall clock.
        say: tells the user something.
        kept: is told, from the thread, up to which version the history goes.
    """

    def __init__(
        self,
        folder: Path,
        location: LedgerLocation,
        stream_id: str,
        *,
        interval_ms: int,
        now_ms: Callable[[], int],
        say: Callable[[str], None],
        kept: Callable[[int], None],
    ) -> None:
        self.version = 0
        self._folder = folder
        self._location = location
        self._stream_id = stream_id
        self._now_ms = now_ms
        self._say = say
        self._kept = kept
        self._written_ms = now_ms()
        often_ms = max(WRITE_EVERY_MS_MIN, WRITE_EVERY_INTERVALS * interval_ms)
        self._write_every_ms = min(often_ms, WRITE_EVERY_MS_MAX)
        self._is_failing = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)

    def __enter__(self) -> Self:
        """Begin to follow."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what is left, and end."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        from projections.history_writer import HistoryWriter  # noqa: PLC0415 - a run without it

        writer = HistoryWriter(self._folder, self._stream_id, now_ms=self._now_ms)
        while not self._ended.is_set():
            self._try_to_write(writer)
            self._ended.wait(LOOK_EVERY_SEC)
        self._try_to_write(writer)

    def _try_to_write(self, writer: "HistoryWriter") -> None:
        try:
            self._write_again(writer)
        except AnotherWriter:
            # A rebuild puts its history in place at this moment; what is new is in it, or is next.
            return
        except Exception as error:
            # Whatever it is, it is said, and tried again; the run goes on.
            self._tell(error)
        else:
            if self._is_failing:
                self._say("the history is written again")
            self._is_failing = False

    def _write_again(self, writer: "HistoryWriter") -> None:
        try:
            self._write(writer)
        except CannotTell:
            # The ledger was written for the first time while it was looked at.
            self._write(writer)

    def _write(self, writer: "HistoryWriter") -> None:
        is_last = self._ended.is_set()
        with Ledger.open(self._location, read_only=True) as ledger:
            new = ledger.last_version(self._stream_id) - self.version
            waited_ms = self._now_ms() - self._written_ms
            if new and (
                is_last or new >= WRITE_EVENTS or not 0 <= waited_ms < self._write_every_ms
            ):
                wait_sec = LAST_WAIT_SEC if is_last else 0
                self.version = writer.catch_up(ledger, wait_sec=wait_sec).version
                self._written_ms = self._now_ms()
                self._kept(self.version)

    def _tell(self, error: Exception) -> None:
        if not self._is_failing:
            told = str(error) if isinstance(error, LiveError) else repr(error)
            self._say(f"{told}; decisions go on without the history")
        self._is_failing = True
