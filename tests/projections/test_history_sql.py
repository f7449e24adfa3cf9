"""What `live audit sql` lets in, and what each statement that it doesn't is told."""

import contextlib
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from history_story import Teller

from ledger.application import Ledger
from ledger.location import LedgerLocation
from projections.history import open_history
from projections.history_sql import STATEMENT_CHARACTERS_MAX, Refused, admit, answering
from projections.history_views import NAMES, Limits, connect
from projections.history_writer import HistoryWriter

secret_table = [{"a": 1}]
"""A Python variable that a replacement scan would find."""

ONE = "expected one SELECT, was "
FUNCTION = "the table function {} is refused"

HOSTILE = [
    # Files.
    ("SELECT * FROM read_csv('/etc/passwd')", FUNCTION.format("read_csv")),
    ("SELECT * FROM read_csv_auto('/etc/passwd')", FUNCTION.format("read_csv_auto")),
    ("SELECT * FROM READ_TEXT('/etc/passwd')", FUNCTION.format("read_text")),
    ("SELECT * FROM read_blob('/etc/shadow')", FUNCTION.format("read_blob")),
    ("SELECT * FROM read_json('/proc/self/environ')", FUNCTION.format("read_json")),
    ("SELECT * FROM read_parquet('{folder}/**/*.parquet')", FUNCTION.format("read_parquet")),
    ("SELECT * FROM parquet_metadata('{file}')", FUNCTION.format("parquet_metadata")),
    ("SELECT * FROM glob('/*')", FUNCTION.format("glob")),
    ("SELECT * FROM sniff_csv('/etc/passwd')", FUNCTION.format("sniff_csv")),
    ("SELECT * FROM '/etc/passwd'", "no such table: /etc/passwd"),
    ('SELECT * FROM "{file}"', "no such table: {file}"),
    ("WITH a AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM a",
     FUNCTION.format("read_text")),
    ("SELECT (SELECT count(*) FROM read_text('/etc/passwd'))", FUNCTION.format("read_text")),
    ("SELECT * FROM windows WHERE EXISTS (FROM read_csv('/etc/passwd'))",
     FUNCTION.format("read_csv")),
    ("SELECT 1 UNION ALL SELECT 1 FROM '/etc/passwd'", "no such table: /etc/passwd"),
    ("COPY (SELECT 1) TO '/tmp/stolen.csv'", ONE + "a COPY statement: it reads or writes files"),
    ("COPY windows TO '{file}'", ONE + "a COPY statement"),
    ("COPY windows FROM '/etc/passwd'", ONE + "a COPY statement"),
    ("EXPORT DATABASE '/tmp/stolen'", ONE + "an EXPORT statement: it writes files"),
    ("IMPORT DATABASE '/tmp/stolen'", ONE + "a PRAGMA statement"),
    # Other databases, the network, code.
    ("ATTACH '/tmp/other.db'", ONE + "an ATTACH statement: it opens another database"),
    ("ATTACH 'https://example.org/x.db' AS x", ONE + "an ATTACH statement"),
    ("DETACH memory", ONE + "a DETACH statement"),
    ("USE memory", ONE + "a SET statement"),
    ("SELECT * FROM 'https://example.org/x.parquet'", "no such table: https://example.org"),
    ("SELECT * FROM read_parquet('s3://bucket/x')", FUNCTION.format("read_parquet")),
    ("INSTALL httpfs", ONE + "a LOAD statement: it loads code"),
    ("LOAD httpfs", ONE + "a LOAD statement: it loads code"),
    ("CREATE SECRET s (TYPE s3)", ONE + "a CREATE statement"),
    # Settings and the catalog.
    ("SET memory_limit='100GB'", ONE + "a SET statement: it changes settings"),
    ("SET enable_external_access=true", ONE + "a SET statement"),
    ("RESET lock_configuration", ONE + "a SET statement"),
    ("PRAGMA memory_limit='100GB'", ONE),
    ("PRAGMA database_list", ONE + "a PRAGMA statement: it changes or reads settings"),
    ("CALL pragma_version()", ONE + "a CALL statement: it runs a procedure"),
    ("SELECT current_setting('allowed_paths')", "the function current_setting is refused"),
    ("SELECT \"CURRENT_SETTING\"('allowed_paths')", "the function current_setting is refused"),
    ("SELECT getvariable('x')", "the function getvariable is refused"),
    ("SELECT pg_get_viewdef(1)", "the function pg_get_viewdef is refused"),
    ("SELECT * FROM duckdb_settings()", FUNCTION.format("duckdb_settings")),
    ("SELECT * FROM duckdb_secrets()", FUNCTION.format("duckdb_secrets")),
    ("SELECT * FROM duckdb_views()", FUNCTION.format("duckdb_views")),
    ("SELECT * FROM information_schema.tables", "no such table: information_schema.tables"),
    ("SELECT * FROM pg_catalog.pg_views", "no such table: pg_catalog.pg_views"),
    ("SELECT * FROM sqlite_master", "no such table: sqlite_master"),
    ("SHOW TABLES", "DESCRIBE, SHOW and SUMMARIZE are refused"),
    ("SHOW memory_limit", "DESCRIBE, SHOW and SUMMARIZE are refused"),
    ("DESCRIBE windows", "DESCRIBE, SHOW and SUMMARIZE are refused"),
    ("SELECT * FROM enable_logging()", FUNCTION.format("enable_logging")),
    ("SELECT * FROM force_checkpoint()", FUNCTION.format("force_checkpoint")),
    # Several statements, and statements in disguise.
    ("SELECT 1; SELECT 2", ONE + "2 statements"),
    ("SELECT 1; DROP VIEW windows", ONE + "2 statements"),
    ("SELECT 1 /* ; */; SET threads=99 --", ONE + "2 statements"),
    ("", ONE + "no statements"),
    ("-- nothing", ONE + "no statements"),
    ("SELECT * FROM query('COPY windows TO ''/tmp/x''')", FUNCTION.format("query")),
    ("SELECT * FROM query_table('windows')", FUNCTION.format("query_table")),
    ("SELECT * FROM json_execute_serialized_sql('x')",
     FUNCTION.format("json_execute_serialized_sql")),
    ("EXPLAIN ANALYZE SELECT 1", ONE + "an EXPLAIN statement: it may run what it explains"),
    ("PREPARE p AS SELECT 1", ONE + "a PREPARE statement"),
    ("EXECUTE p", ONE + "an EXECUTE statement"),
    ("PIVOT windows ON state USING count(*)", ONE + "a MULTI statement"),
    ("SELECT ?", "parameters are refused"),
    ("SELECT $1", "parameters are refused"),
    # Changes.
    ("CREATE TABLE t AS SELECT 1", ONE + "a CREATE statement: it makes something new"),
    ("CREATE OR REPLACE VIEW windows AS SELECT 1", ONE + "a CREATE statement"),
    ("CREATE MACRO read(x) AS TABLE SELECT * FROM read_text(x)", ONE + "a CREATE statement"),
    ("INSERT INTO windows VALUES (1)", ONE + "an INSERT statement: it changes rows"),
    ("UPDATE windows SET state='ACTIVE'", ONE + "an UPDATE statement: it changes rows"),
    ("DELETE FROM windows", ONE + "a DELETE statement: it changes rows"),
    ("DROP VIEW windows", ONE + "a DROP statement: it removes something"),
    ("ALTER TABLE windows RENAME TO w", ONE + "an ALTER statement"),
    ("BEGIN", ONE + "a TRANSACTION statement"),
    ("CHECKPOINT", ONE),
    ("VACUUM", ONE + "a VACUUM statement"),
    ("SELECT setseed(0.5)", "the function setseed is refused"),
    ("SELECT nextval('s')", "the function nextval is refused"),
    # Python.
    ("SELECT * FROM secret_table", "no such table: secret_table"),
    ("SELECT * FROM known_streams", "no such table: known_streams"),
    ("SELECT * FROM python_map_function()", FUNCTION.format("python_map_function")),
    ("SELECT * FROM arrow_scan(1, 2, 3)", FUNCTION.format("arrow_scan")),
    # Time wasted, nonsense.
    ("SELECT sleep_ms(100000)", "the function sleep_ms is refused"),
    ("SELECT " + "(" * 20_000 + "1" + ")" * 20_000, ""),
    ("SELECT '" + "x" * STATEMENT_CHARACTERS_MAX + "'", "expected a statement of at most"),
    ("SELECT 1\0", "expected a statement without NUL characters"),
    ("SELEKT 1", "Parser Error: syntax error"),
    ("SELECT nosuch FROM windows", "Binder Error"),
]  # fmt: skip

RUNAWAY = [
    ("SELECT count(*) FROM kpis a, kpis b, kpis c, kpis d, kpis e WHERE a.value < b.value",
     "it took longer than 0.5 s"),
    ("SELECT sum(length(md5(i::VARCHAR))) FROM range(100000000000) t(i)", "it took longer"),
    ("WITH RECURSIVE t AS (SELECT 1 a UNION ALL SELECT a + 1 FROM t) SELECT count(*) FROM t",
     "it took longer"),
    ("SELECT * FROM range(1000000000000)", "it took longer"),
    ("SELECT list(i) FROM range(100000000000) t(i)", "it needed more memory"),
    ("SELECT * FROM range(1000000) a, range(1000000) b ORDER BY 1 DESC, 2",
     "it needed more memory"),
]  # fmt: skip


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    folder = tmp_path_factory.mktemp("sql")
    path = folder / "l.sqlite"
    with Ledger.open(LedgerLocation(path)) as ledger:
        Teller(ledger).tell(60)
    with Ledger.open(LedgerLocation(path), read_only=True) as ledger:
        HistoryWriter(folder / "l.history", "dev:bybit", now_ms=lambda: 0).catch_up(ledger)
    os.environ["HISTORY_UNDER_TEST"] = str(folder / "l.history")
    history = open_history(folder / "l.history")
    connection = connect(history, limits=Limits(memory_mb=64, is_locked=True))
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def victim() -> Iterator[duckdb.DuckDBPyConnection]:
    """A locked connection that may lose its views: they are its own, in memory."""
    history = open_history(Path(os.environ["HISTORY_UNDER_TEST"]))
    with connect(history, limits=Limits(memory_mb=64, is_locked=True)) as connection:
        yield connection


def answer(
    database: duckdb.DuckDBPyConnection, statement: str, *, timeout_sec: float = 30.0
) -> list[tuple[object, ...]]:
    with answering(database, statement, timeout_sec=timeout_sec) as found:
        rows = [row for batch in found.batches for row in batch.to_pylist()]
    return [tuple(row.values()) for row in rows]


def contents(folder: Path) -> dict[Path, int]:
    return {path: zlib.crc32(path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def filled(text: str) -> str:
    """Put the history's folder and a file of it into a text."""
    folder = Path(os.environ["HISTORY_UNDER_TEST"])
    file = sorted(folder.rglob("*.parquet"))[0]
    return text.replace("{folder}", str(folder)).replace("{file}", str(file))


@pytest.mark.parametrize(("statement", "told"), HOSTILE)
def test_a_hostile_statement_is_refused_and_told_why(
    database: duckdb.DuckDBPyConnection, statement: str, told: str
) -> None:
    with pytest.raises(Refused) as error:
        answer(database, filled(statement))
    assert filled(told) in str(error.value)
    assert Refused.exit_code == 2


@pytest.mark.parametrize(("statement", "told"), HOSTILE)
def test_the_locked_connection_itself_lets_nothing_hostile_leave_a_trace(
    database: duckdb.DuckDBPyConnection,
    victim: duckdb.DuckDBPyConnection,
    statement: str,
    told: str,
) -> None:
    # What admission would miss meets the lock: nothing outside is read, no file is written.
    if "sleep" in statement or told.endswith("no statements"):
        return
    before = contents(Path(os.environ["HISTORY_UNDER_TEST"]))
    rows: list[object] = []
    with victim.cursor() as cursor, contextlib.suppress(duckdb.Error, RuntimeError):
        rows += cursor.execute(filled(statement)).fetchall()
    assert "root:" not in str(rows)
    assert not list(Path("/tmp").glob("stolen*"))
    assert contents(Path(os.environ["HISTORY_UNDER_TEST"])) == before
    settings = victim.execute(
        "SELECT name, value FROM duckdb_settings() WHERE name IN "
        "('enable_external_access', 'lock_configuration', 'python_enable_replacements')"
    ).fetchall()
    assert sorted(settings) == [
        ("enable_external_access", "false"),
        ("lock_configuration", "true"),
        ("python_enable_replacements", "false"),
    ]


def test_there_are_enough_of_them() -> None:
    assert len({statement for statement, _ in HOSTILE}) >= 40


@pytest.mark.parametrize(("statement", "told"), RUNAWAY)
def test_a_runaway_is_stopped_and_told_why(
    database: duckdb.DuckDBPyConnection, statement: str, told: str
) -> None:
    began = time.monotonic()
    with pytest.raises(Refused, match="stopped: ") as error:
        answer(database, statement, timeout_sec=30.0 if "memory" in told else 0.5)
    assert told in str(error.value)
    assert time.monotonic() - began < 60
    # The connection answers on.
    assert answer(database, "SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "select 1 -- with a comment; and a semicolon\n;",
        "FROM windows SELECT count(*)",
        "WITH read_csv AS (SELECT 1 AS a) SELECT a FROM read_csv",
        "WITH a AS (SELECT 1 AS x), b AS (SELECT x FROM a) SELECT * FROM b",
        "SELECT * FROM (VALUES (1), (2)) AS t(a)",
        "SELECT count(*) FROM main.windows",
        "SELECT count(*) FROM Windows",
        "SELECT 'SELECT * FROM read_csv(''/etc/passwd''); DROP TABLE x' AS text",
        "SELECT sum(value) OVER (PARTITION BY symbol ORDER BY ledger_version) FROM kpis LIMIT 1",
        "SELECT unnest([1, 2, 3])",
        "SELECT * FROM range(3), generate_series(1, 2)",
        "SELECT * FROM kpis PIVOT (avg(value) FOR kpi IN ('edge_bps', 'risk_ratio'))",
        "SELECT list_transform([1, 2], lambda x: x + 1)",
        "SELECT 1 UNION SELECT 2 INTERSECT SELECT 2 ORDER BY 1",
        "TABLE transitions",
        "VALUES (1)",
    ],
)
def test_an_honest_select_is_answered(database: duckdb.DuckDBPyConnection, statement: str) -> None:
    assert isinstance(answer(database, statement), list)


@pytest.mark.parametrize("name", NAMES)
def test_every_table_and_view_can_be_selected_from_by_unquoted_names(
    database: duckdb.DuckDBPyConnection, name: str
) -> None:
    with answering(database, f"SELECT * FROM {name}", timeout_sec=30) as found:
        columns = ", ".join(found.schema.names)
        batches = list(found.batches)
    rows = sum(batch.num_rows for batch in batches)
    assert len(answer(database, f"SELECT {columns} FROM {name}")) == rows


def test_admission_tells_which_tables_are_needed(database: duckdb.DuckDBPyConnection) -> None:
    assert admit(database, "SELECT 1") == set()
    named = admit(database, "SELECT * FROM Episodes WHERE state IN (SELECT state FROM windows)")
    assert named == {"episodes", "windows"}
