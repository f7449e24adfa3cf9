"""
A bundle: a stretch of one stream in a ZIP file, to be looked into and decided again elsewhere.

It holds the stored events as they lie in the ledger, the state before them, and whatever else was
added for people; a manifest names every file with its SHA-256. A bundle comes from outside: what a
manifest doesn't name, or isn't as named, or is larger than can be, is refused before it is used,
and nothing is ever unpacked to the disk. Source: issue 5, `live audit bundle`.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import msgspec
from eventsourcing.persistence import Notification

from domain.errors import BadInput, LedgerDamaged
from domain.state import FOLD_VERSION, State
from ledger.codec import LedgerMapper, Record

FORMAT_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
EVENTS: Final = "events.jsonl"
STATE_BEFORE: Final = "state_before.json"

FILES_MAX: Final = 64
FILE_BYTES_MAX: Final = 1 << 30
LINE_BYTES_MAX: Final = 16 << 20
MANIFEST_BYTES_MAX: Final = 1 << 20
_PIECE_BYTES: Final = 1 << 20
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""ZIP's beginning of time: the same stretch gives the same bytes whenever it is bundled."""

_UNREADABLE: Final = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError)
"""What the library says of a file that is no ZIP, cut, encrypted, or packed in another way."""


class BundledFile(msgspec.Struct, frozen=True):
    """One file of a bundle; `sha256` as hex digits."""

    name: str
    bytes: int
    sha256: str


class BundleManifest(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a bundle is of, and what is in it.

    Attributes:
        format: of this class.
        stream, ledger_id, interval_ms: whose events they are.
        first_version, last_version: the events, both inclusive.
        first_position, last_position: where they stand in the ledger.
        from_window, to_window: the first window's start and the last one's end, ISO, UTC.
        fold_version: of the state before them.
        code_version: the program that made it.
        notes: what is left out, in sentences.
        files: all other files.
    """

    format: int
    stream: str
    ledger_id: str
    interval_ms: int
    first_version: int
    last_version: int
    first_position: int
    last_position: int
    from_window: str
    to_window: str
    fold_version: int
    code_version: str
    notes: tuple[str, ...] = ()
    files: tuple[BundledFile, ...] = ()


class _Line(msgspec.Struct, frozen=True):
    """An event as `events.jsonl` has it; `stored` is, byte for byte, what the ledger holds."""

    version: int
    position: int
    name: str
    stored: msgspec.Raw


class BundleWriter:
    """Writes a bundle's files, and names each in the manifest, which comes last."""

    def __init__(self, file: IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED)
        self._files: list[BundledFile] = []

    def add(self, name: str, pieces: Iterable[bytes]) -> None:
        """Add a file, made piece by piece."""
        digest, size = hashlib.sha256(), 0
        with self._zip.open(_entry(name), "w", force_zip64=True) as member:
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
                member.write(piece)
        self._files.append(BundledFile(name, size, digest.hexdigest()))

    def finish(self, manifest: BundleManifest) -> BundleManifest:
        """Add the manifest, and return it with the files named."""
        manifest = msgspec.structs.replace(manifest, files=tuple(self._files))
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
        self._zip.writestr(_entry(MANIFEST), text + b"\n")
        self._zip.close()
        return manifest


class Bundle:
    """
    A bundle that was checked: every file is as the manifest names it.

    Attributes:
        path: where it is.
        manifest: what it is of.
        before: the state before its first event.
    """

    def __init__(self, path: Path, manifest: BundleManifest, before: State) -> None:
        self.path = path
        self.manifest = manifest
        self.before = before

    def records(self) -> Iterator[Record]:
        """
        Yield the records, in order; each call starts again.

        Raises:
            BadInput: if a line doesn't decode, or a version is missing, naming the line.
        """
        mapper = LedgerMapper()
        expected = self.manifest.first_version
        with _reading(self.path) as archive, archive.open(EVENTS) as lines:
            for number, line in enumerate(_lines(lines, self.path), start=1):
                record = _record(line, mapper, self.manifest.stream, f"{self.path}: line {number}")
                if record.version != expected:
                    raise BadInput(
                        f"{self.path}: {EVENTS} line {number}: expected version {expected}, was "
                        f"{record.version}"
                    )
                expected += 1
                yield record
        if expected != self.manifest.last_version + 1:
            raise BadInput(
                f"{self.path}: {EVENTS}: expected version {self.manifest.last_version} at its end, "
                f"was {expected - 1}"
            )


def event_lines(rows: Iterable[Notification]) -> Iterator[bytes]:
    """Yield stored events as the lines of `events.jsonl`."""
    for row in rows:
        line = _Line(row.originator_version, row.id, row.topic, msgspec.Raw(row.state))
        yield msgspec.json.encode(line) + b"\n"


def state_bytes(state: State) -> bytes:
    """Return a state as `state_before.json` holds it."""
    return msgspec.json.encode(state) + b"\n"


def open_bundle(path: Path) -> Bundle:
    """
    Return a bundle, checked whole.

    Raises:
        BadInput: if it can't be read, or isn't as its manifest says, naming the file in it.
    """
    with _reading(path) as archive:
        manifest = _manifest(path, archive)
        named = {file.name: file for file in manifest.files}
        found = archive.namelist()
        if len(found) > FILES_MAX or sorted(found) != sorted([MANIFEST, *named]):
            raise BadInput(
                f"{path}: expected just the {len(named) + 1} files of its manifest, "
                f"each once, was {len(found)} files"
            )
        for needed in (EVENTS, STATE_BEFORE):
            if needed not in named:
                raise BadInput(f"{path}: {needed} is missing")
        for file in manifest.files:
            _check(path, archive, file)
        before = _state(path, archive, manifest)
    return Bundle(path, manifest, before)


@contextmanager
def _reading(path: Path) -> Iterator[zipfile.ZipFile]:
    """Give the archive; whatever the library says of its bytes becomes bad input."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _UNREADABLE as error:
        raise BadInput(f"{path}: can't be read as a bundle: {_told(error)}") from None


def _told(error: BaseException) -> str:
    """Return an error in one line of plain text; it may quote names from the file."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.encode("unicode_escape").decode()


def _manifest(path: Path, archive: zipfile.ZipFile) -> BundleManifest:
    if archive.namelist().count(MANIFEST) != 1:
        raise BadInput(f"{path}: expected one {MANIFEST} in it; is it a bundle?")
    with archive.open(MANIFEST) as member:
        data = member.read(MANIFEST_BYTES_MAX + 1)
    try:
        if len(data) > MANIFEST_BYTES_MAX:
            raise msgspec.ValidationError("it is too large")
        manifest = msgspec.json.decode(data, type=BundleManifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"{path}: {MANIFEST}: {_told(error)}") from None
    if manifest.format != FORMAT_VERSION:
        raise BadInput(f"{path}: expected format {FORMAT_VERSION}, was {manifest.format}")
    return manifest


def _check(path: Path, archive: zipfile.ZipFile, file: BundledFile) -> None:
    """Check a file's size and hash, reading no more of it than the manifest says."""
    name = file.name.encode("unicode_escape").decode()
    if not 0 <= file.bytes <= FILE_BYTES_MAX:
        raise BadInput(f"{path}: {name}: expected at most {FILE_BYTES_MAX} bytes, was {file.bytes}")
    digest, left = hashlib.sha256(), file.bytes
    with archive.open(file.name) as member:
        while piece := member.read(min(_PIECE_BYTES, left + 1)):
            left -= len(piece)
            if left < 0:
                break
            digest.update(piece)
    if left or digest.hexdigest() != file.sha256:
        raise BadInput(f"{path}: {name} isn't what the manifest says: it was changed or cut")


def _state(path: Path, archive: zipfile.ZipFile, manifest: BundleManifest) -> State:
    if manifest.fold_version != FOLD_VERSION:
        raise BadInput(
            f"{path}: its state is of fold version {manifest.fold_version}, this program's is "
            f"{FOLD_VERSION}; make the bundle again with this version"
        )
    try:
        return msgspec.json.decode(archive.read(STATE_BEFORE), type=State)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"{path}: {STATE_BEFORE}: {_told(error)}") from None


def _lines(member: IO[bytes], path: Path) -> Iterator[bytes]:
    while line := member.readline(LINE_BYTES_MAX + 1):
        if len(line) > LINE_BYTES_MAX:
            raise BadInput(f"{path}: {EVENTS}: expected lines of at most {LINE_BYTES_MAX} bytes")
        yield line


def _record(line: bytes, mapper: LedgerMapper, stream: str, place: str) -> Record:
    try:
        told = msgspec.json.decode(line, type=_Line)
        row = Notification(stream, told.version, told.name, bytes(told.stored), id=told.position)
        return mapper.to_record(row)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, LedgerDamaged) as error:
        raise BadInput(f"{place} of {EVENTS}: {_told(error)}") from None


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
