"""
The history's writer: it follows the ledger in batches, each of which becomes visible at once.

The manifest is the checkpoint: whatever a killed writer leaves behind that no manifest names is
not part of the history, and is removed by the next one. Small files are made one a day; those that
they replace stay for a while, for readers that have begun. Source: DESIGN.md section 3.
"""

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
from msgspec.structs import replace

from domain.errors import AnotherWriter, HistoryDamaged
from domain.events import GapObserved, KpiObserved
from domain.state import FOLD_VERSION, State
from ledger.application import Ledger
from ledger.codec import Record
from ledger.streams import parse_stream_id
from projections.history_files import Folder, in_order, read_file, writing
from projections.history_manifest import (
    DataFile,
    Manifest,
    RetiredFile,
    check_files,
    path_of,
    read_manifest,
)
from projections.history_origin import check_belongs, ledger_id_of, state_of
from projections.history_rows import DAY_MS, HistoryRows, Part
from projections.history_schema import SCHEMA_VERSION

BATCH_RECORDS: Final = 20_000
"""How many events are gathered before they are written, and up to twice as many to a day's end."""

FILES_A_DAY_MAX: Final = 16
"""So many files of a table and the day under way are made one."""

RETIRED_MS: Final = 600_000
"""How long a file that was replaced is left to readers."""

LOCK_WAIT_SEC: Final = 30.0

_REBUILD: Final = "rebuild"

Progress = Callable[[int], None]
"""Told how many more events are in the history."""


class HistoryWriter:
    """
    Keeps the history of one stream up with its ledger.

    Args:
        folder: the history's; made if it isn't there.
        now_ms: the wall clock, which decides only when replaced files are removed.
    """

    def __init__(self, folder: Path, stream_id: str, *, now_ms: Callable[[], int]) -> None:
        self._folder = Folder(folder)
        self._stream_id = stream_id
        self._key = parse_stream_id(stream_id)
        assert not self._key.shadow, "a shadow decides nothing that is published: it has no history"
        self._now_ms = now_ms
        self._is_tidy = False

    def catch_up(
        self, ledger: Ledger, *, wait_sec: float = LOCK_WAIT_SEC, progress: Progress | None = None
    ) -> Manifest:
        """
        Bring the history up to the ledger's end, and return what it consists of then.

        Raises:
            AnotherWriter: if another process is writing it.
            BadInput: if it can't be written.
            CannotTell: if it is of another version of the program and has to be made again.
            HistoryDamaged: naming the file.
            LedgerDamaged: if the ledger is not the one that it was made from, or can't be read.
        """
        with writing(self._folder.path, self._key, wait_sec=wait_sec):
            manifest = read_manifest(self._folder.path, self._key)
            if manifest is None:
                manifest = self._new(ledger)
            else:
                check_belongs(manifest, ledger)
            if not self._is_tidy:
                self._remove_strays(manifest)
                self._is_tidy = True
            for step in self._follow(ledger, manifest, progress):
                manifest = step
                self._folder.publish(manifest, self._key)
            compacted = self._compact(manifest)
            if compacted is not manifest:
                manifest = compacted
                self._folder.publish(manifest, self._key)
            return manifest

    def rebuild(self, ledger: Ledger, *, progress: Progress | None = None) -> Manifest:
        """
        Make the history again beside the old one, then let readers go by the new one.

        The old one is read until then, and is left as it is if this is interrupted.

        Raises:
            AnotherWriter: if another process is making it again, or doesn't stop writing it.
            BadInput: if it can't be written.
            LedgerDamaged: if the ledger can't be read.
        """
        folder, key = self._folder.path, self._key
        with writing(folder, key, _REBUILD, wait_sec=0):
            manifest = self._new(ledger)
            try:
                for step in self._follow(ledger, manifest, progress):
                    manifest = step
                with writing(folder, key, wait_sec=LOCK_WAIT_SEC):
                    for step in self._follow(ledger, manifest, progress):
                        manifest = step
                    manifest = self._compact(manifest)
                    manifest = replace(manifest, retired=self._all_retired(manifest))
                    self._folder.publish(manifest, self._key)
            except BaseException:
                self._remove_generation(manifest.generation)
                raise
        return manifest

    def _new(self, ledger: Ledger) -> Manifest:
        """Return the manifest of a history without a row."""
        return Manifest(
            stream=self._stream_id,
            ledger_id=ledger_id_of(ledger, self._stream_id),
            schema_version=SCHEMA_VERSION,
            fold_version=FOLD_VERSION,
            generation=uuid.uuid4().hex[:8],
            state=msgspec.Raw(msgspec.json.encode(State())),
        )

    def _follow(
        self, ledger: Ledger, manifest: Manifest, progress: Progress | None
    ) -> Iterable[Manifest]:
        """Yield the manifest after each batch, whose files are there but not yet published."""
        rows = HistoryRows(self._key, state_of(manifest))
        last: Record | None = None
        for record in ledger.placed_records(self._stream_id, after=manifest.version):
            if last is not None and _is_due(rows, record):
                manifest = self._add(manifest, rows, last)
                yield manifest
                if progress is not None:
                    progress(rows.records)
                rows = HistoryRows(self._key, rows.state)
            rows.add(record)
            last = record
        if last is not None and rows.records:
            yield self._add(manifest, rows, last)
            if progress is not None:
                progress(rows.records)

    def _add(self, manifest: Manifest, rows: HistoryRows, last: Record) -> Manifest:
        assert last.position is not None
        files = [
            self._folder.write_part(part, self._key, table, manifest.generation)
            for part, table in rows.tables().items()
        ]
        return replace(
            self._forget_retired(manifest),
            version=last.version,
            position=last.position,
            state=msgspec.Raw(msgspec.json.encode(rows.state)),
            files=(*manifest.files, *files),
        )

    def _compact(self, manifest: Manifest) -> Manifest:
        """Return the manifest with the files of each day that is over, or that are many, one."""
        window = state_of(manifest).window
        today = 0 if window is None else window // DAY_MS
        parts: dict[Part, list[DataFile]] = defaultdict(list)
        for file in manifest.files:
            parts[Part(file.table, file.day)].append(file)
        merged: list[DataFile] = []
        retired: list[RetiredFile] = []
        for part, files in parts.items():
            if len(files) < 2 or (part.day >= today and len(files) < FILES_A_DAY_MAX):
                merged += files
                continue
            merged.append(self._merge(part, files, manifest.generation))
            retired += self._retire(files)
        if not retired:
            return manifest
        return replace(manifest, files=tuple(merged), retired=(*manifest.retired, *retired))

    def _merge(self, part: Part, files: list[DataFile], generation: str) -> DataFile:
        folder = self._folder.path
        # What is damaged must be found before its only good description is thrown away.
        check_files(folder, self._key, files)
        tables = [read_file(folder / path_of(file, self._key), part.table) for file in files]
        rows = in_order(part.table, pa.concat_tables(tables))
        return self._folder.write_part(part, self._key, rows, generation)

    def _retire(self, files: Iterable[DataFile]) -> list[RetiredFile]:
        now_ms = self._now_ms()
        return [RetiredFile(path_of(file, self._key), now_ms) for file in files]

    def _all_retired(self, manifest: Manifest) -> tuple[RetiredFile, ...]:
        """Return what is retired once the manifest takes the place of the one that is there."""
        try:
            old = read_manifest(self._folder.path, self._key)
        except HistoryDamaged:
            # Nobody can read by it; what it named is removed as strays.
            old = None
        if old is None:
            return manifest.retired
        return (*manifest.retired, *old.retired, *self._retire(old.files))

    def _forget_retired(self, manifest: Manifest) -> Manifest:
        """Remove files that were replaced long ago; return the manifest without them."""
        if not manifest.retired:
            return manifest
        now_ms = self._now_ms()
        # A clock that was set back must not make readers' files vanish, nor keep them for good.
        kept = tuple(f for f in manifest.retired if abs(now_ms - f.retired_at_ms) < RETIRED_MS)
        for file in manifest.retired:
            if file not in kept:
                self._folder.remove(file.path)
        return replace(manifest, retired=kept)

    def _remove_strays(self, manifest: Manifest) -> None:
        """Remove what a killed writer left behind; a rebuild under way keeps its files."""
        known = {path_of(file, self._key) for file in manifest.files}
        known |= {file.path for file in manifest.retired}
        strays = list(self._folder.strays(self._key, known))
        for path, generation in strays:
            if generation == manifest.generation:
                self._folder.remove(path)
        others = [path for path, generation in strays if generation != manifest.generation]
        if not others:
            return
        try:
            with writing(self._folder.path, self._key, _REBUILD, wait_sec=0):
                for path in others:
                    self._folder.remove(path)
        except AnotherWriter:
            return

    def _remove_generation(self, generation: str) -> None:
        for path, found in list(self._folder.strays(self._key, set())):
            if found == generation:
                self._folder.remove(path)


def _is_due(rows: HistoryRows, record: Record) -> bool:
    """Return whether a batch is to be written before this record: if possible at a day's end."""
    if rows.records < BATCH_RECORDS or not rows.ends_before(record):
        return False
    if rows.records >= 2 * BATCH_RECORDS:
        return True
    event, window = record.event, rows.state.window
    if window is None or not isinstance(event, KpiObserved | GapObserved):
        return False
    return event.window // DAY_MS != window // DAY_MS
