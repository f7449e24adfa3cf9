"""
Reading a history: `open_history` gives its tables, up to which event they go, and the rest.

A reader goes by the manifests alone; files that no manifest names are not part of the history.
Given the ledger, what the history doesn't hold yet is made in memory, so that answers are current:

    history = open_history(Path("desk.history"), ledger=ledger)
    history.table("transitions", columns=["happened_at", "from_state", "to_state", "reasons"])
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import pyarrow as pa

from domain.errors import CannotTell, HistoryDamaged
from domain.state import FOLD_VERSION, State
from domain.windows import format_time
from ledger.application import Ledger
from ledger.streams import StreamKey, controllers, parse_stream_id
from projections.history_manifest import (
    DataFile,
    Manifest,
    check_files,
    load_manifest,
    manifest_path,
    path_of,
)
from projections.history_origin import check_belongs, ledger_id_of, state_of
from projections.history_rows import HistoryRows
from projections.history_schema import SCHEMA_VERSION, TABLES

if TYPE_CHECKING:
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

TAIL_EVENTS_MAX: Final = 50_000
"""So many of the ledger's events are made into rows in memory; for more, make the history."""

_MANIFESTS: Final = "*.manifest.json"


class StreamHistory(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is known of one stream.

    Attributes:
        key: the stream.
        ledger_id: its ledger.
        version, position: the last event that the files hold.
        files: what the files are.
        tail: rows of later events, by table; empty without a ledger.
        state: the fold up to the last event that there are rows of.
        last_version: the last event that there are rows of.
        behind: how many events the ledger had beyond that; None without a ledger.
    """

    key: StreamKey
    ledger_id: str
    version: int
    position: int
    files: tuple[DataFile, ...]
    tail: dict[str, pa.Table]
    state: State
    last_version: int
    behind: int | None

    @property
    def starts_ms(self) -> int | None:
        """The start of the first window."""
        windows = self.tail.get("windows")
        in_files = [file.first_ms for file in self.files if file.table == "windows"]
        if in_files or windows is None:
            return min(in_files, default=None)
        return min(windows["window_start"].cast(pa.int64()).to_pylist(), default=None)

    @property
    def ends_ms(self) -> int | None:
        """The end of the last window that there are rows of."""
        return self.state.next_window

    def told(self) -> str:
        """Return how far it goes, as text."""
        ends = "before the first window" if self.ends_ms is None else format_time(self.ends_ms)
        text = f"{self.key}: up to version {self.last_version}, {ends}"
        return f"{text}; {self.behind} events behind the ledger" if self.behind else text


class History:
    """
    The tables of one history, as it was when it was opened.

    Attributes:
        folder: where it is.
        streams: by id of a stream.
    """

    def __init__(self, folder: Path, streams: dict[str, StreamHistory]) -> None:
        self.folder = folder
        self.streams = streams
        self._checked: set[str] = set()

    def files(
        self, table: str, *, from_ms: int | None = None, to_ms: int | None = None
    ) -> list[Path]:
        """
        Return the files with rows of a table that may be of a time, the end exclusive.

        Raises:
            HistoryDamaged: if one is missing or not as it was written, naming it.
        """
        return [
            self.folder / path_of(file, stream.key)
            for stream in self.streams.values()
            for file in self._chosen(stream, table, from_ms, to_ms)
        ]

    def tail(self, table: str) -> pa.Table:
        """Return the rows of a table that are in no file."""
        tails = [stream.tail[table] for stream in self.streams.values() if table in stream.tail]
        return pa.concat_tables([TABLES[table].empty_table(), *tails])

    def dataset(
        self, table: str, *, from_ms: int | None = None, to_ms: int | None = None
    ) -> "ds.Dataset":
        """
        Return a table's rows, read when they are asked for; see `files`.

        The times only choose files: rows of other times of the same days are among them.
        """
        from projections.history_dataset import dataset_of  # noqa: PLC0415 - slow to import

        files = [
            (self.folder / path_of(file, stream.key), stream.key, file)
            for stream in self.streams.values()
            for file in self._chosen(stream, table, from_ms, to_ms)
        ]
        return dataset_of(table, files, self.tail(table))

    def table(
        self,
        table: str,
        *,
        from_ms: int | None = None,
        to_ms: int | None = None,
        columns: Sequence[str] | None = None,
        where: "pc.Expression | None" = None,
    ) -> pa.Table:
        """
        Return a table's rows of a time, the end exclusive, in the ledger's order.

        A row's time is its window's start, or `happened_at`; a gap is of every time that it lasts.

        Args:
            columns: which columns; all if none are named.
            where: which rows, beside.

        Raises:
            HistoryDamaged: if a file can't be read, naming it.
        """
        from projections.history_dataset import in_time  # noqa: PLC0415 - slow to import

        chosen = in_time(table, from_ms, to_ms)
        if where is not None:
            chosen = where if chosen is None else chosen & where
        names = list(TABLES[table].names if columns is None else columns)
        read = names if "position" in names else [*names, "position"]
        dataset = self.dataset(table, from_ms=from_ms, to_ms=to_ms)
        try:
            rows = dataset.to_table(columns=read, filter=chosen)
        except (OSError, pa.ArrowException) as error:
            raise HistoryDamaged(
                f"{self.folder}, table {table}: {str(error).splitlines()[0]}; "
                "`live rebuild history` makes it again from the ledger"
            ) from error
        return rows.sort_by("position").select(names)

    def _chosen(
        self, stream: StreamHistory, table: str, from_ms: int | None, to_ms: int | None
    ) -> list[DataFile]:
        chosen = [
            file
            for file in stream.files
            if file.table == table
            and (to_ms is None or file.first_ms < to_ms)
            and (from_ms is None or file.last_ms >= from_ms)
        ]
        unchecked = [f for f in chosen if path_of(f, stream.key) not in self._checked]
        check_files(self.folder, stream.key, unchecked)
        self._checked |= {path_of(file, stream.key) for file in unchecked}
        return chosen


def open_history(
    folder: Path,
    *,
    ledger: Ledger | None = None,
    stream_id: str | None = None,
    with_tail: bool = True,
) -> History:
    """
    Open a history for reading.

    Args:
        folder: where it is.
        ledger: its ledger, if what the history doesn't hold yet is wanted.
        stream_id: the one stream that is wanted; None for all.
        with_tail: whether to make the rows of the ledger's events that are in no file; without,
            only their number is told.

    Raises:
        CannotTell: if it isn't there, is of another version of the program, or is too far behind.
        HistoryDamaged: if a manifest can't be read, naming it.
        LedgerDamaged: if the ledger is another one.
    """
    manifests = _manifests(folder, stream_id)
    wanted = set(manifests)
    if ledger is not None:
        wanted |= set(controllers(ledger.stream_ids())) if stream_id is None else {stream_id}
    if not wanted:
        asked = "" if stream_id is None else f" of {stream_id}"
        raise CannotTell(
            f"there is no history{asked} at {folder}; `live rebuild history` makes one"
        )
    streams = {
        stream: _open_stream(stream, manifests.get(stream), ledger, with_tail)
        for stream in sorted(wanted)
    }
    return History(folder, streams)


def _manifests(folder: Path, stream_id: str | None) -> dict[str, Manifest]:
    if stream_id is not None:
        paths = [manifest_path(folder, parse_stream_id(stream_id))]
    else:
        paths = sorted(folder.glob(_MANIFESTS))
    found = [manifest for path in paths if (manifest := load_manifest(path)) is not None]
    return {manifest.stream: manifest for manifest in found}


def _open_stream(
    stream_id: str, manifest: Manifest | None, ledger: Ledger | None, with_tail: bool
) -> StreamHistory:
    key = parse_stream_id(stream_id)
    if manifest is not None and ledger is not None:
        check_belongs(manifest, ledger)
    elif manifest is not None:
        _check_version(manifest)
    version = 0 if manifest is None else manifest.version
    state = State() if manifest is None else state_of(manifest)
    behind = None if ledger is None else ledger.last_version(stream_id) - version
    tail: dict[str, pa.Table] = {}
    last_version = version
    if ledger is not None and behind and with_tail:
        if behind > TAIL_EVENTS_MAX:
            raise CannotTell(
                f"the history of {stream_id} is {behind} events behind the ledger "
                f"{ledger.location}, more than the {TAIL_EVENTS_MAX} that are made up for while "
                "one waits; `live rebuild history` makes it"
            )
        tail, state, last_version = _tail(key, ledger, version, state)
        behind = 0
    if manifest is None:
        assert ledger is not None
        ledger_id = ledger_id_of(ledger, stream_id)
    else:
        ledger_id = manifest.ledger_id
    return StreamHistory(
        key=key,
        ledger_id=ledger_id,
        version=version,
        position=0 if manifest is None else manifest.position,
        files=() if manifest is None else manifest.files,
        tail=tail,
        state=state,
        last_version=last_version,
        behind=behind,
    )


def _tail(
    key: StreamKey, ledger: Ledger, version: int, state: State
) -> tuple[dict[str, pa.Table], State, int]:
    """Return the rows of the events after a version, the state after them, and their last one."""
    rows = HistoryRows(key, state)
    for record in ledger.placed_records(str(key), after=version):
        rows.add(record)
        version = record.version
    made: dict[str, list[pa.Table]] = defaultdict(list)
    for part, table in rows.tables().items():
        made[part.table].append(table)
    tables = {name: pa.concat_tables(tables) for name, tables in made.items()}
    return tables, rows.state, version


def _check_version(manifest: Manifest) -> None:
    made_by = (manifest.schema_version, manifest.fold_version)
    if made_by != (SCHEMA_VERSION, FOLD_VERSION):
        raise CannotTell(
            f"the history of {manifest.stream} has version {made_by}, this program reads "
            f"{(SCHEMA_VERSION, FOLD_VERSION)}; `live rebuild history` makes it again"
        )
