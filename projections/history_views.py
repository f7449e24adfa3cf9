"""
The history as SQL: its tables, and the views that answer what people ask first.

    db = open_views("desk.history", ledger="desk.sqlite")
    db.sql("SELECT started_at, state, duration_ms, triggered_by, reasons FROM episodes").df()

DuckDB reads the very files that the manifests name, and the rows that are in no file from memory.
Source: issue 5, DuckDB; FIELD_NOTES.md, Traps: DuckDB.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import duckdb
import msgspec
import pyarrow as pa

from domain.errors import HistoryDamaged
from ledger.application import Ledger
from ledger.location import parse_location
from projections.history import History, open_history
from projections.history_queries import EPISODES, KPI_STATS, NEEDS, UPTIME
from projections.history_schema import TABLES

MEMORY_MB: Final = 1_024
THREADS: Final = 2

IN_MEMORY: Final = frozenset({"incidents", "overrides", "policies", "runs", "transitions"})
"""Tables of few rows in many files, and what episodes are made of: read once, when opened."""

PATTERN: Final = frozenset("*?[]{}")
"""What makes a path a pattern of several."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much a query may use: memory in MiB, threads; and whether it is kept from all else."""

    memory_mb: int = MEMORY_MB
    threads: int = THREADS
    is_locked: bool = False


def open_views(
    folder: str | Path, *, ledger: str | Path | None = None, limits: Limits | None = None
) -> duckdb.DuckDBPyConnection:
    """
    Return a DuckDB connection with the tables and views of a history.

    Args:
        folder: where the history is.
        ledger: its ledger, if what the history doesn't hold yet is wanted too.

    Raises:
        CannotTell: if there is no history, or it is too far behind.
        HistoryDamaged: if a file is not as it was written, naming it.
    """
    if ledger is None:
        return connect(open_history(Path(folder)), limits=limits)
    with Ledger.open(parse_location(str(ledger)), read_only=True) as opened:
        return connect(open_history(Path(folder), ledger=opened), limits=limits)


def connect(history: History, *, limits: Limits | None = None) -> duckdb.DuckDBPyConnection:
    """Return a connection with the tables and views of an opened history; see `open_views`."""
    limits = limits or Limits()
    connection = database(limits)
    try:
        add_views(connection, history, NAMES, is_locked=limits.is_locked)
    except BaseException:
        connection.close()
        raise
    return connection


def database(limits: Limits) -> duckdb.DuckDBPyConnection:
    """Return a connection to an empty database in memory, within limits."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "memory_limit": f"{limits.memory_mb}MiB",
            "threads": str(limits.threads),
            # Without a folder to spill to, the limit on memory is one.
            "temp_directory": "",
        },
    )
    # A year is hundreds of small local files: their footers are worth keeping, their bytes not.
    connection.execute("SET parquet_metadata_cache=true")
    connection.execute("SET enable_external_file_cache=false")
    connection.execute("SET disable_parquet_prefetching=true")
    connection.execute("SET TimeZone='UTC'")
    connection.execute("SET python_enable_replacements=false")
    return connection


def add_views(
    connection: duckdb.DuckDBPyConnection,
    history: History,
    names: Iterable[str],
    *,
    is_locked: bool,
) -> None:
    """
    Add some of the tables and views of a history, with what they need.

    Args:
        is_locked: whether to keep the connection from every file but those of the tables, and
            from its own settings, for good.

    Raises:
        HistoryDamaged: if a file of these tables is not as it was written, naming it.
    """
    wanted = set(names)
    tables = wanted.union(*(NEEDS.get(name, ()) for name in wanted)) & TABLES.keys()
    allowed: list[str] = []
    try:
        for table in sorted(tables):
            allowed += _create_table(connection, table, history)
        connection.register("known_streams", _streams(history))
        connection.execute("CREATE VIEW streams AS SELECT * FROM known_streams")
        for name in VIEWS.keys() & wanted:
            connection.execute(f"CREATE VIEW {name} AS {VIEWS[name]}")
    except duckdb.Error as error:
        raise HistoryDamaged(f"{history.folder}: {str(error).splitlines()[0]}") from error
    if is_locked:
        _lock(connection, allowed)


def _lock(connection: duckdb.DuckDBPyConnection, allowed: Iterable[str]) -> None:
    connection.execute(f"SET allowed_paths=[{', '.join(map(_quoted, allowed))}]")
    connection.execute("SET enable_external_access=false")
    connection.execute("SET lock_configuration=true")


def _create_table(connection: duckdb.DuckDBPyConnection, table: str, history: History) -> list[str]:
    """Make a table or view of the history's rows; return the files that it reads."""
    paths = [os.path.abspath(path) for path in history.files(table)]  # noqa: PTH100 - thousands
    if any(PATTERN.intersection(path) for path in paths):
        # DuckDB would take such a path for a pattern; pyarrow reads it for what it is.
        connection.register(f"all_{table}", history.dataset(table))
        connection.execute(f"CREATE VIEW {table} AS SELECT * FROM all_{table}")
        return []
    columns = ", ".join(TABLES[table].names)
    parts = []
    if paths:
        parts.append(
            f"SELECT {columns} FROM read_parquet([{', '.join(map(_quoted, paths))}], "
            "hive_partitioning=true, hive_types={'env': VARCHAR, 'exchange': VARCHAR, "
            "'dry_run': BOOLEAN, 'day': DATE})"
        )
    tail = history.tail(table)
    if tail.num_rows or not paths:
        connection.register(f"latest_{table}", tail)
        parts.append(f"SELECT {columns} FROM latest_{table}")
    kind = "TABLE" if table in IN_MEMORY else "VIEW"
    connection.execute(f"CREATE {kind} {table} AS {' UNION ALL '.join(parts)}")
    return paths


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _streams(history: History) -> pa.Table:
    """Return a row a stream: how far it goes."""
    time = pa.timestamp("ms", tz="UTC")
    streams = list(history.streams.values())
    columns = {
        "env": pa.array([s.key.env for s in streams], pa.string()),
        "exchange": pa.array([s.key.exchange for s in streams], pa.string()),
        "dry_run": pa.array([s.key.dry_run for s in streams], pa.bool_()),
        "ledger_id": pa.array([s.ledger_id for s in streams], pa.string()),
        "ledger_version": pa.array([s.last_version for s in streams], pa.int64()),
        "interval_ms": pa.array([s.state.interval_ms for s in streams], pa.int64()),
        "first_window_start": pa.array([s.starts_ms for s in streams], time),
        "last_window_end": pa.array([s.ends_ms for s in streams], time),
        "state": pa.array([str(s.state.trading_state) for s in streams], pa.string()),
        "behind": pa.array([s.behind for s in streams], pa.int64()),
    }
    return pa.table(columns)


VIEWS: Final = {"episodes": EPISODES, "uptime": UPTIME, "kpi_stats": KPI_STATS}
"""The views by name, beside the tables and `streams`."""

NAMES: Final = (*TABLES, "streams", *VIEWS)
"""All that can be selected from."""
