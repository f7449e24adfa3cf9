"""
One SELECT of somebody else's making: what is let in, and within which bounds it runs.

A statement is parsed, not searched for words: it has to be one SELECT, over the history's own
tables, with no function that reads anything else. Beneath that, the connection is locked
(`history_views.connect`): what this check would miss, DuckDB itself refuses.
Source: issue 5, DuckDB; FIELD_NOTES.md, Traps: DuckDB.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import duckdb
import msgspec
import pyarrow as pa

from domain.errors import BadInput
from projections.history_views import NAMES

STATEMENT_CHARACTERS_MAX: Final = 64 * 1024
BATCH_ROWS: Final = 10_000

TABLE_FUNCTIONS: Final = frozenset({"generate_series", "range", "unnest"})
"""Functions that make rows out of nothing but their arguments; all others are refused."""

REFUSED_FUNCTIONS: Final = frozenset(
    {
        "current_setting",
        "currval",
        "getenv",
        "getvariable",
        "nextval",
        "setseed",
        "setval",
        "sleep_ms",
        "write_log",
    }
)
REFUSED_PREFIXES: Final = ("duckdb_", "json_execute", "pg_", "pragma_", "read_")

_DEEDS: Final = {
    "ALTER": "it changes tables",
    "ANALYZE": "it changes what the database knows",
    "ATTACH": "it opens another database",
    "CALL": "it runs a procedure",
    "COPY": "it reads or writes files",
    "COPY_DATABASE": "it writes a database",
    "CREATE": "it makes something new",
    "DELETE": "it changes rows",
    "DETACH": "it closes a database",
    "DROP": "it removes something",
    "EXECUTE": "it runs a prepared statement",
    "EXPLAIN": "it may run what it explains",
    "EXPORT": "it writes files",
    "INSERT": "it changes rows",
    "LOAD": "it loads code",
    "MERGE_INTO": "it changes rows",
    "MULTI": "it is several statements in one",
    "PRAGMA": "it changes or reads settings",
    "PREPARE": "it prepares a statement",
    "SET": "it changes settings",
    "TRANSACTION": "it controls transactions",
    "UPDATE": "it changes rows",
    "VACUUM": "it rewrites the database",
    "VARIABLE_SET": "it changes settings",
}
"""By type of statement: why it is refused."""


class Refused(BadInput):
    """A statement that isn't let in, or that needed more than it may have."""


class Answer(NamedTuple):
    """What a SELECT gives: its columns, and its rows as they are made."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


@contextmanager
def answering(
    connection: duckdb.DuckDBPyConnection, statement: str, *, timeout_sec: float
) -> Iterator[Answer]:
    """
    Check a statement, run it, and give what it answers; leaving the context ends it.

    Raises:
        Refused: if it isn't let in, took longer, needed more memory, or is wrong; saying which.
        KeyboardInterrupt: if the user interrupted it.
    """
    admit(connection, statement)
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        connection.interrupt()

    timer = threading.Timer(timeout_sec, expire)
    timer.daemon = True
    with _told(expired, timeout_sec):
        timer.start()
        try:
            reader = connection.sql(statement).to_arrow_reader(BATCH_ROWS)
            yield Answer(reader.schema, iter(reader))
        finally:
            timer.cancel()


def admit(connection: duckdb.DuckDBPyConnection, statement: str) -> set[str]:
    """
    Check that a statement is one SELECT over the history alone; return the tables it names.

    Raises:
        Refused: saying why it is not.
    """
    if len(statement) > STATEMENT_CHARACTERS_MAX:
        raise Refused(
            f"expected a statement of at most {STATEMENT_CHARACTERS_MAX} characters, "
            f"was {len(statement)}"
        )
    if "\0" in statement:
        raise Refused("expected a statement without NUL characters")
    try:
        statements = connection.extract_statements(statement)
    except duckdb.Error as error:
        raise Refused(_first_line(error)) from None
    if len(statements) != 1:
        raise Refused(f"expected one SELECT, was {len(statements) or 'no'} statements")
    kind = statements[0].type.name
    if kind != "SELECT":
        deed = _DEEDS.get(kind, "it does not only read")
        raise Refused(f"expected one SELECT, was {_article(kind)}: {deed}")
    return _check_tree(_parse(connection, statement))


def _parse(connection: duckdb.DuckDBPyConnection, statement: str) -> Any:
    """Return the statement's syntax tree, as DuckDB itself parses it."""
    try:
        rows = connection.execute("SELECT json_serialize_sql(?)", [statement]).fetchall()
        tree = msgspec.json.decode(rows[0][0])
    except duckdb.Error as error:
        raise Refused(_first_line(error)) from None
    except RecursionError:
        raise Refused("the statement is nested too deeply") from None
    if tree["error"]:
        raise Refused(f"expected one SELECT: {tree['error_message']}")
    return tree


def _check_tree(tree: Any) -> set[str]:
    """Look at every node of a syntax tree; what is known to read only the history is let in."""
    nodes = list(_nodes(tree))
    known = set(NAMES)
    known |= {entry["key"].lower() for node in nodes for entry in _named_queries(node)}
    named: set[str] = set()
    for node in nodes:
        match node.get("type"):
            case "BASE_TABLE":
                _check_table(node, known)
                named.add(node["table_name"].lower())
            case "TABLE_FUNCTION":
                name = node["function"]["function_name"].lower()
                if name not in TABLE_FUNCTIONS:
                    raise Refused(
                        f"the table function {name} is refused: a statement reads the history "
                        f"alone; allowed are {', '.join(sorted(TABLE_FUNCTIONS))}"
                    )
            case "SHOW_REF":
                raise Refused(
                    "DESCRIBE, SHOW and SUMMARIZE are refused: they read the catalog and its "
                    "settings; `live audit sql --tables` lists all tables and columns"
                )
            case _:
                _check_expression(node)
    return named & set(NAMES)


def _check_table(node: dict[str, Any], known: set[str]) -> None:
    name = node["table_name"]
    if node["catalog_name"] or node["schema_name"] not in {"", "main"}:
        place = ".".join(filter(None, (node["catalog_name"], node["schema_name"], name)))
        raise Refused(f"no such table: {place}; a table is named without a schema")
    if name.lower() not in known:
        raise Refused(f"no such table: {name}; there are {', '.join(NAMES)}")


def _check_expression(node: dict[str, Any]) -> None:
    match node.get("class"):
        case "FUNCTION" | "WINDOW":
            name = node["function_name"].lower()
            if name in REFUSED_FUNCTIONS or name.startswith(REFUSED_PREFIXES):
                raise Refused(
                    f"the function {name} is refused: it reads or changes settings, "
                    "sequences, files or the catalog, or only takes time"
                )
        case "PARAMETER":
            raise Refused("parameters are refused: write the value into the statement")


def _named_queries(node: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the queries that a WITH before this node names."""
    found = node.get("cte_map")
    return found["map"] if isinstance(found, dict) else []


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a JSON value."""
    left = [tree]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield value
            left += value.values()
        elif isinstance(value, list):
            left += value


@contextmanager
def _told(expired: threading.Event, timeout_sec: float) -> Iterator[None]:
    """Turn what ends a query into what a user can act on."""
    try:
        yield
    except duckdb.InterruptException:
        if not expired.is_set():
            raise KeyboardInterrupt from None
        raise Refused(_too_long(timeout_sec)) from None
    except (duckdb.OutOfMemoryException, MemoryError) as error:
        raise Refused(_too_much(error)) from None
    except duckdb.Error as error:
        raise Refused(_first_line(error)) from None
    except (OSError, RuntimeError, pa.ArrowException) as error:
        # Rows on their way out come through Arrow, which has its own words for all of these.
        text = str(error)
        if "Out of Memory" in text or "failed to allocate" in text:
            raise Refused(_too_much(error)) from None
        if "nterrupted" in text:
            if expired.is_set():
                raise Refused(_too_long(timeout_sec)) from None
            raise KeyboardInterrupt from None
        raise


def _too_long(timeout_sec: float) -> str:
    return f"stopped: it took longer than {timeout_sec:g} s; ask for less, or give --timeout-sec"


def _too_much(error: BaseException) -> str:
    return (
        f"stopped: it needed more memory than it may have ({_first_line(error)}); ask for less, "
        "or give --memory-mb"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind.replace('_', ' ')} statement"
