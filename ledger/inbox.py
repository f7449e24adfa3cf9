"""
The durable inbox by which an operator's word reaches the runner of a stream.

A request is a file, renamed into place once it is on the disk; the runner answers with another one
and takes the request away, in this order. Only the runner writes to the ledger.
Source: DESIGN.md section 1, Overrides.
"""

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

import msgspec

from domain.commands import ApplyOverride, ClearOverride
from domain.errors import BadInput
from domain.events import Override
from ledger.location import LedgerLocation

REQUEST_BYTES_MAX: Final = 64 * 1024
REQUESTS_MAX: Final = 1_000

_REQUEST: Final = ".request.json"
_ANSWER: Final = ".answer.json"


class Clearance(msgspec.Struct, frozen=True):
    """An operator's word to end an override."""

    override_id: str
    at_ms: int
    actor: str
    reason: str = ""


class Request(msgspec.Struct, frozen=True):
    """
    What an operator asks for; exactly one of `override` and `clearance` is there.

    `valid_until_ms` is when it is no longer meant: an unfreeze must not come into force at a later
    start, of which nobody thinks any more. None for never.
    """

    id: str
    override: Override | None = None
    clearance: Clearance | None = None
    valid_until_ms: int | None = None

    @property
    def command(self) -> ApplyOverride | ClearOverride:
        """The command that it stands for."""
        if self.override is not None:
            return ApplyOverride(override=self.override)
        assert self.clearance is not None
        asked = self.clearance
        return ClearOverride(
            id=asked.override_id, at_ms=asked.at_ms, actor=asked.actor, reason=asked.reason
        )


class Answer(msgspec.Struct, frozen=True):
    """
    What became of a request: `refused` says why not, if it wasn't done.

    `note` is what was done instead of an event.
    """

    version: int
    refused: str | None = None
    note: str | None = None


class Inbox:
    """The requests to one stream's runner."""

    def __init__(self, location: LedgerLocation, stream_id: str) -> None:
        name = f"{location.path.resolve().name}.{stream_id.replace(':', '.')}.inbox"
        self._folder = location.path.resolve().with_name(name)
        self._answered: set[str] = set()

    def put(self, request: Request) -> None:
        """
        Leave a request; it is on the disk when this returns.

        Raises:
            BadInput: if it can't be written, or too many wait already.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if len(list(self._folder.iterdir())) >= REQUESTS_MAX:
                raise BadInput(f"{self._folder} holds {REQUESTS_MAX} requests; is a runner there?")
            _write_durably(self._folder / f"{request.id}{_REQUEST}", msgspec.json.encode(request))
        except OSError as error:
            raise BadInput(f"{self._folder} can't be written: {error.strerror}") from error

    def pending(self) -> list[Request]:
        """Return the requests that wait, the oldest first; what doesn't decode is set aside."""
        try:
            names = sorted(path.name for path in self._folder.iterdir())
        except OSError:
            return []
        found = [self._read(self._folder / name) for name in names if name.endswith(_REQUEST)]
        return [
            request for request in found if request is not None and request.id not in self._answered
        ]

    def answer(self, request: Request, answer: Answer) -> None:
        """
        Answer a request and take it away.

        Where the folder can't be written the request stays, but is not given by `pending` again.
        """
        self._answered.add(request.id)
        with contextlib.suppress(OSError):
            _write_durably(self._folder / f"{request.id}{_ANSWER}", msgspec.json.encode(answer))
            (self._folder / f"{request.id}{_REQUEST}").unlink(missing_ok=True)

    def take_answer(self, request: Request) -> Answer | None:
        """Return the answer if there is one, and take it away."""
        path = self._folder / f"{request.id}{_ANSWER}"
        try:
            answer = msgspec.json.decode(path.read_bytes(), type=Answer)
        except FileNotFoundError:
            return None
        path.unlink(missing_ok=True)
        return answer

    def withdraw(self, request: Request) -> bool:
        """Take a request back; return whether it still waited."""
        try:
            (self._folder / f"{request.id}{_REQUEST}").unlink()
        except FileNotFoundError:
            return False
        return True

    def _read(self, path: Path) -> Request | None:
        try:
            request = msgspec.json.decode(_content_of(path), type=Request)
            if (request.override is None) == (request.clearance is None):
                raise msgspec.ValidationError("expected either an override or a clearance")
            if path.name != f"{request.id}{_REQUEST}":
                raise msgspec.ValidationError("expected the file to be named after the request")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            with contextlib.suppress(OSError):
                path.rename(path.with_suffix(".malformed"))
            return None
        except OSError:
            return None
        return request


def _content_of(path: Path) -> bytes:
    """Return a regular file's content; nothing else is waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise msgspec.ValidationError("expected a regular file")
        return os.read(descriptor, REQUEST_BYTES_MAX + 1)
    finally:
        os.close(descriptor)


def _write_durably(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, and on the disk when this returns."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
