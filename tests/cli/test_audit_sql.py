"""`live audit sql`: answers in every form, and within bounds of memory, time and access."""

import csv
import io
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support import ROOT, live, row, write_jsonl

COLUMNS = "SELECT symbol, kpi, value, verdict FROM kpis ORDER BY ledger_version, symbol, kpi"


@pytest.fixture(autouse=True)
def desk(folder: Path) -> Path:
    """A ledger with a freeze, and its history."""
    rows = [row(i, risk_ratio=0.45 if i == 9 else 0.2) for i in range(40)]
    series = write_jsonl(folder / "series.jsonl", rows)
    told = live("run", "--feed", f"file:{series}", "--ledger", "desk.sqlite", "--quiet")
    assert told.code == 0, told.err
    return folder / "desk.sqlite"


def sql(statement: str, *options: str) -> str:
    told = live("audit", "sql", statement, "--ledger", "desk.sqlite", *options)
    assert told.code == 0, told.err
    return told.out


def spawn_sql(folder: Path, statement: str, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "cli.main", "audit", "sql", statement),
            *(() if "--history" in options else ("--ledger", "desk.sqlite")),
            *options,
        ],
        cwd=folder,
        # Tests that run in the background are started with it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_table_for_people_tells_the_freeze() -> None:
    told = sql("SELECT started_at, state, triggered_by, reasons FROM episodes")
    assert told.splitlines()[0].split() == ["started_at", "state", "triggered_by", "reasons"]
    assert told.splitlines()[2].split() == [
        "2026-01-05T22:10:00Z", "FROZEN", "BTCUSDT", "risk=0.45", ">", "0.40"
    ]  # fmt: skip


def test_all_forms_hold_the_same() -> None:
    by_json = [json.loads(line) for line in sql(COLUMNS, "--json").splitlines()]
    by_csv = list(csv.DictReader(io.StringIO(sql(COLUMNS, "--csv"))))
    assert sql(COLUMNS, "--parquet", "--output", "o.parquet") == ""
    by_parquet = pq.read_table("o.parquet").to_pylist()
    assert by_json == by_parquet
    assert len(by_json) == 200
    assert [{**one, "value": float(one["value"])} for one in by_csv] == by_json


def test_any_type_of_sql_is_told_in_every_form() -> None:
    statement = (
        "SELECT NULL AS nothing, true AS flag, 1.5::DECIMAL(9,3) AS fixed, "
        "0.12345678901234567890::DECIMAL(38,20) AS exact, 12::HUGEINT AS whole, "
        "170141183460469231731687303715884105727::HUGEINT AS huge, 'nan'::DOUBLE AS nan, "
        "'-inf'::DOUBLE AS least, DATE '2026-01-05' AS day, TIME '14:07:00' AS hour, "
        "TIMESTAMPTZ '2026-01-05 14:07:00.25+02' AS moment, INTERVAL '1 month 2 days' AS span, "
        "'A'::BLOB AS bytes, [1, NULL] AS list, {'a': [1.5]} AS struct, MAP {'k': 2} AS map, "
        "'x' AS x, 'y' AS x"
    )
    (found,) = [json.loads(line) for line in sql(statement, "--json").splitlines()]
    assert found == {
        "nothing": None, "flag": True, "fixed": 1.5, "exact": "0.12345678901234567890", "whole": 12,
        "huge": "170141183460469231731687303715884105727", "nan": "nan", "least": "-inf",
        "day": "2026-01-05", "hour": "14:07:00", "moment": "2026-01-05T12:07:00.250Z",
        "span": "1 months 2 days 0 s", "bytes": "41", "list": [1, None], "struct": {"a": [1.5]},
        "map": [["k", 2]], "x": "x", "x_2": "y",
    }  # fmt: skip
    assert len(sql(statement, "--csv").splitlines()) == 2
    assert len(sql(statement).splitlines()) == 3
    refused = live("audit", "sql", statement, "--ledger", "desk.sqlite", "--parquet")
    assert refused.code == 2
    assert "month_day_nano_interval; cast the column to VARCHAR" in refused.err
    statement = statement.replace("INTERVAL '1 month 2 days'", "''")
    sql(statement, "--parquet", "--output", "o.parquet")
    assert pq.read_table("o.parquet").num_rows == 1


@pytest.mark.parametrize(
    "text", ['=HYPERLINK("x")', "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\uff1d1"]
)
def test_no_cell_and_no_heading_of_csv_is_a_formula(text: str) -> None:
    quoted, named = text.replace("'", "''"), text.replace('"', '""')
    told = sql(f"SELECT '{quoted}' AS a, 1 AS \"{named}\", ['{quoted}'] AS b, -1 AS c", "--csv")
    heading, cells = csv.reader(io.StringIO(told, newline=""))
    assert heading == ["a", f"'{text}", "b", "c"]
    assert cells == [f"'{text}", "1", f"'{text}", "-1"]


def test_a_terminal_obeys_nothing_that_a_row_holds() -> None:
    told = sql("SELECT 'a' || chr(27) || '[2J' || chr(10) || 'b' AS \"c\x1b[0m\"")
    assert "\x1b" not in told
    assert len(told.splitlines()) == 3


def test_rows_are_cut_and_it_is_said() -> None:
    told = live("audit", "sql", "FROM range(3000)", "--ledger", "desk.sqlite")
    assert len(told.out.splitlines()) == 1_002
    assert "only the first 1000 rows" in told.err
    assert len(sql("FROM range(3000)", "--json").splitlines()) == 3_000
    assert len(sql("FROM range(30000)", "--json", "--rows", "12345").splitlines()) == 12_345
    assert sql("FROM range(0)", "--csv") == "range\r\n"


def test_a_statement_may_come_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"SELECT count(*) AS windows\nFROM windows;\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert sql("-", "--json") == '{"windows":40}\n'


def test_tables_lists_every_column() -> None:
    told = live("audit", "sql", "--tables")
    assert told.code == 0
    for name in ("windows", "kpis", "incidents", "happened_at", "episodes", "kpi_stats"):
        assert name in told.out


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("SELECT * FROM read_csv('/etc/passwd')", "the table function read_csv is refused"),
        ("COPY windows TO '/tmp/x'", "was a COPY statement"),
        ("SELECT nosuch FROM windows", "Binder Error"),
    ],
)
def test_what_is_refused_ends_with_2_and_one_line(statement: str, told: str) -> None:
    outcome = live("audit", "sql", statement, "--ledger", "desk.sqlite")
    assert outcome.code == 2
    assert outcome.out == ""
    assert told in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_without_a_statement_it_says_what_is_expected() -> None:
    assert live("audit", "sql").code == 2


def test_a_history_alone_says_how_far_it_goes(folder: Path) -> None:
    told = live("audit", "sql", "SELECT count(*) AS n FROM windows", "--history", "desk.history")
    assert told.code == 0
    assert "dev:bybit: up to version" in told.err
    assert "2026-01-05T22:40:00Z; without --ledger, that is all" in told.err


def test_what_the_history_lacks_comes_from_the_ledger(folder: Path) -> None:
    rows = [row(i) for i in range(55)]
    series = write_jsonl(folder / "more.jsonl", rows)
    live(
        "run", "--feed", f"file:{series}", "--ledger", "desk.sqlite", "--quiet", "--no-history"
    )  # fmt: skip
    assert sql("SELECT count(*) AS n FROM windows", "--json") == '{"n":55}\n'


def test_no_history_is_needed_for_a_short_ledger(folder: Path) -> None:
    assert sql("SELECT count(*) AS n FROM windows", "--json", "--history", "none") == '{"n":40}\n'


def test_a_damaged_file_ends_with_5_and_is_named(folder: Path) -> None:
    damaged = next((folder / "desk.history/windows").rglob("*.parquet"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 3] ^= 0x20
    damaged.write_bytes(content)
    outcome = live("audit", "sql", "SELECT * FROM windows", "--ledger", "desk.sqlite")
    assert outcome.code == 5
    assert str(damaged) in outcome.err
    # Another table's answer doesn't depend on it.
    assert sql("SELECT count(*) AS n FROM transitions", "--json") == '{"n":2}\n'


def test_no_history_at_all_cannot_tell(folder: Path) -> None:
    outcome = live("audit", "sql", "SELECT 1", "--history", "nowhere")
    assert outcome.code == 3
    assert "there is no history at nowhere" in outcome.err


@pytest.mark.parametrize(
    ("statement", "options", "told"),
    [
        # What DuckDB's own limit doesn't see: one value of gigabytes.
        ("SELECT repeat('x', 3000000000)", ("--memory-mb", "64"), "more memory than it may have"),
        ("SELECT list(i) FROM range(9999999999) t(i)", ("--memory-mb", "64"), "more memory"),
        ("SELECT * FROM range(999999999999)", ("--csv", "--timeout-sec", "1"), "longer than 1 s"),
        (
            "SELECT * FROM range(999999999999)",
            ("--csv", "--timeout-sec", "1", "--output", "rows.csv"),
            "longer than 1 s",
        ),
    ],
)
def test_a_process_stays_within_its_bounds(
    folder: Path, statement: str, options: tuple[str, ...], told: str
) -> None:
    with spawn_sql(folder, statement, *options) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert told in err
    assert "Traceback" not in err
    assert not list(folder.glob("*rows.csv*"))


def test_a_query_that_does_not_heed_its_interruption_ends_with_the_process(folder: Path) -> None:
    statement = "SELECT list_sum(list_transform(range(20000000), lambda x: x % 7))"
    options = ("--timeout-sec", "0.1", "--memory-mb", "8192")
    with spawn_sql(folder, statement, *options) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "stopped: " in err


def test_ctrl_c_ends_a_query_at_once(folder: Path) -> None:
    statement = "SELECT sum(length(md5(i::VARCHAR))) FROM range(99999999999) t(i)"
    with spawn_sql(folder, statement, "--history", "desk.history") as process:
        try:
            assert process.stderr is not None
            assert "that is all" in process.stderr.readline()
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            # Well before the query would be stopped for taking too long.
            _, err = process.communicate(timeout=25)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err


def test_bounds_end_with_the_command() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    sql("SELECT 1")
    assert resource.getrlimit(resource.RLIMIT_AS) == before
