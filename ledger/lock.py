"""
One runner per stream: a lock of the operating system beside the ledger.

The system lets go of it when the process ends, however that comes about. A stopped process keeps
it, which is right: its keys lapse, and nobody else may decide in its place.
Source: DESIGN.md section 1, Starting, and failing closed.
"""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from uuid import uuid4

import msgspec
from msgspec.structs import replace

from domain.errors import AnotherWriter, LedgerDamaged
from domain.windows import format_time
from ledger.location import LedgerLocation

NAMING_SEC: Final = 1.0
"""How long a holder may take from its lock to saying who it is."""


PROBE_SEC: Final = 0.2
"""For how long somebody who only asks who holds a lock may be in the way of taking it."""


CLAIMS_MAX: Final = 8
"""Of how many holders a lease may be left that nobody has heard of."""


class Holder(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    Who holds a stream; `since_ms` is the holder's wall clock.

    `fencing_token` is the last one that a holder of this lock had, whether or not it came to be
    written into the ledger: whoever holds the lock may take that lease over. `claims` are what the
    holder, then those before it, may have taken a lease by without having heard of its token.
    """

    host: str
    process_id: int
    since_ms: int
    fencing_token: int | None = None
    claims: tuple[str, ...] = ()

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
        if not _take(descriptor):
            holder = _holder_of(self._path)
            # Nobody alive is named: whoever had it for a moment has let go by now.
            if holder is not None or not _take(descriptor):
                os.close(descriptor)
                raise AnotherWriter(
                    f"{self._stream_id} is held by {holder or 'another process'}; "
                    "one runner per env and exchange"
                )
        self._descriptor = descriptor
        before = _read_holder(self._path)
        claims = (uuid4().hex, *(before.claims if before else ()))[:CLAIMS_MAX]
        token = before.fencing_token if before else None
        self._write(replace(self._me, fencing_token=token, claims=claims))
        return self

    @property
    def fencing_token(self) -> int | None:
        """The last fencing token of whoever held the lock, this holder included."""
        return self._me.fencing_token

    @property
    def claims(self) -> tuple[str, ...]:
        """What this holder takes a lease by, and what those before it did."""
        return self._me.claims

    def remember_token(self, fencing_token: int) -> None:
        """Note the token of a lease, so that the next holder needn't wait until it runs out."""
        if fencing_token != self._me.fencing_token:
            self._write(replace(self._me, fencing_token=fencing_token))

    def _write(self, me: Holder) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, msgspec.json.encode(me), 0)
        self._me = me

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the lock; its file stays, for removing it could break another's."""
        os.close(self._descriptor)
        self._descriptor = -1


def _take(descriptor: int) -> bool:
    """Return whether the lock could be taken; whoever only looks at it is waited for."""
    ends_sec = time.monotonic() + PROBE_SEC
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= ends_sec:
                return False
            time.sleep(0.01)
        else:
            return True


@contextmanager
def token_left_behind(location: LedgerLocation, stream_id: str) -> Iterator[int | None]:
    """
    Hold a stream that nobody holds for a moment, and give the fencing token that is free with it.

    None, and nothing is held, if somebody has the stream, or if it can't be told that the last
    holder is gone: it was on another machine, or the process is there. The lock file of a ledger
    that was copied names a runner that may well live, whose lease mustn't be taken.
    """
    path = _lock_path(location, stream_id)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        last = _read_holder(path) if _take(descriptor) else None
        is_gone = last is not None and last.host == socket.gethostname() and not _may_live(last)
        yield last.fencing_token if last is not None and is_gone else None
    finally:
        os.close(descriptor)


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
        return _holder_of(path) or Holder("unknown", 0, 0)
    finally:
        os.close(descriptor)
    return None


def _lock_path(location: LedgerLocation, stream_id: str) -> Path:
    # One ledger has one lock, by whatever links it is named.
    path = location.path.resolve()
    return path.with_name(f"{path.name}.{stream_id.replace(':', '.')}.lock")


def _holder_of(path: Path) -> Holder | None:
    """
    Return who holds a lock that is held, None if it can't be told.

    Whoever has just taken it may not have said so yet; until then the file is empty, or names a
    holder that has been killed.
    """
    ends_sec = time.monotonic() + NAMING_SEC
    while True:
        holder = _read_holder(path)
        if holder is not None and _may_live(holder):
            return holder
        if time.monotonic() >= ends_sec:
            return None
        time.sleep(0.01)


def _may_live(holder: Holder) -> bool:
    if holder.host != socket.gethostname():
        return True
    try:
        os.kill(holder.process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read_holder(path: Path) -> Holder | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Holder)
    except (OSError, msgspec.MsgspecError):
        return None
