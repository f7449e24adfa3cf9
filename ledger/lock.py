"""
One runner per stream: a lock of the operating system beside the ledger.

The system lets go of it when the process ends, however that comes about. A stopped process keeps
it, which is right: its keys lapse, and nobody else may decide in its place.
Source: DESIGN.md section 1, Starting, and failing closed.
"""

import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from domain.errors import AnotherWriter, LedgerDamaged
from domain.windows import format_time
from ledger.location import LedgerLocation


class Holder(msgspec.Struct, frozen=True):
    """Who holds a stream; `since_ms` is the holder's wall clock."""

    host: str
    process_id: int
    since_ms: int

    def __str__(self) -> str:
        return f"process {self.process_id} on {self.host} since {format_time(self.since_ms)}"


class StreamLock:
    """Holds a stream for as long as it is entered."""

    def __init__(self, location: LedgerLocation, stream_id: str, *, now_ms: int) -> None:
        self._path = _lock_path(location, stream_id)
        self._stream_id = stream_id
        self._me = Holder(socket.gethostname(), os.getpid(), now_ms)
        self._descriptor = -1

    def __enter__(self) -> Self:
        """
        Take the lock.

        Raises:
            AnotherWriter: if it is held, naming who holds it.
            LedgerDamaged: if no lock can be made beside the ledger.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise LedgerDamaged(f"{self._path} can't be made: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            holder = _read_holder(self._path)
            raise AnotherWriter(
                f"{self._stream_id} is held by {holder or 'another process'}; "
                "one runner per env and exchange"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, msgspec.json.encode(self._me), 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the lock; its file stays, for removing it could break another's."""
        os.close(self._descriptor)
        self._descriptor = -1


def stream_holder(location: LedgerLocation, stream_id: str) -> Holder | None:
    """Return who holds a stream now, None if nobody does."""
    path = _lock_path(location, stream_id)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_holder(path) or Holder("unknown", 0, 0)
    finally:
        os.close(descriptor)
    return None


def _lock_path(location: LedgerLocation, stream_id: str) -> Path:
    name = f"{location.path.name}.{stream_id.replace(':', '.')}.lock"
    return location.path.with_name(name)


def _read_holder(path: Path) -> Holder | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Holder)
    except (OSError, msgspec.MsgspecError):
        return None
