"""Rows for machines: JSON lines, CSV in which nothing is a formula, Parquet with types."""

import csv
import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.junit import Case, write_junit
from cli.tables import Column, Form, Kind, Table, harmless, write_table
from domain.errors import BadInput
from domain.kpis import Verdict

COLUMNS = tuple(
    Column(kind.value, kind, lambda row, name=kind.value: row[name])  # type: ignore[misc]
    for kind in Kind
)
ROW: dict[str, Any] = {
    "time": 1_767_571_200_500,
    "text": Verdict.WARN,
    "texts": ("a", 'b "c", d'),
    "number": -0.1,
    "count": 7,
    "flag": True,
    "json": {"a": [1.5]},
}
NOTHING: dict[str, Any] = dict.fromkeys(ROW)


def written(form: Form, rows: list[dict[str, Any]], folder: Path) -> bytes:
    path = folder / "out"
    write_table(Table("rows", COLUMNS, rows), form, path)
    assert [found.name for found in folder.iterdir()] == ["out"]
    return path.read_bytes()


def test_json_is_an_object_a_line(tmp_path: Path) -> None:
    first, second = map(json.loads, written(Form.JSON, [ROW, NOTHING], tmp_path).splitlines())
    assert first == {
        "time": "2026-01-05T00:00:00.500Z", "text": "WARN", "texts": ["a", 'b "c", d'],
        "number": -0.1, "count": 7, "flag": True, "json": {"a": [1.5]},
    }  # fmt: skip
    assert second == NOTHING


def test_csv_has_a_heading_and_reads_back(tmp_path: Path) -> None:
    text = written(Form.CSV, [ROW, NOTHING], tmp_path).decode()
    heading, first, second = csv.reader(io.StringIO(text))
    assert heading == list(ROW)
    assert first == [
        "2026-01-05T00:00:00.500Z", "WARN", 'a; b "c", d', "-0.1", "7", "true", '{"a":[1.5]}',
    ]  # fmt: skip
    assert second == [""] * 7


def test_parquet_has_types_and_reads_back(tmp_path: Path) -> None:
    table = pq.read_table(io.BytesIO(written(Form.PARQUET, [ROW, NOTHING], tmp_path)))
    assert table.schema.field("time").type == pa.timestamp("ms", tz="UTC")
    assert table.schema.field("texts").type == pa.list_(pa.string())
    assert [table.schema.field(name).type for name in ("number", "count", "flag")] == [
        pa.float64(), pa.int64(), pa.bool_(),
    ]  # fmt: skip
    first, second = table.to_pylist()
    assert first["time"].isoformat() == "2026-01-05T00:00:00.500000+00:00"
    assert (first["text"], first["texts"], first["json"]) == (
        "WARN", ["a", 'b "c", d'], '{"a":[1.5]}',
    )  # fmt: skip
    assert second["time"] is second["text"] is second["number"] is None


@pytest.mark.parametrize("form", Form)
def test_no_rows_are_a_table_too(tmp_path: Path, form: Form) -> None:
    content = written(form, [], tmp_path)
    if form is Form.PARQUET:
        assert pq.read_table(io.BytesIO(content)).num_rows == 0
    else:
        assert content.decode().splitlines() == ([",".join(ROW)] if form is Form.CSV else [])


@pytest.mark.parametrize(
    "text",
    [
        '=HYPERLINK("http://evil","x")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "  =1",
        "\n@x", "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20x", "=", "-",
    ],
)  # fmt: skip
def test_what_a_spreadsheet_takes_for_a_formula_is_made_harmless(text: str, tmp_path: Path) -> None:
    assert harmless(text) == f"'{text}"
    row = {**ROW, "text": text, "texts": (text, "x")}
    _, cells = csv.reader(io.StringIO(written(Form.CSV, [row], tmp_path).decode(), newline=""))
    assert cells[1] == f"'{text}"
    assert cells[2] == f"'{text}; x"


@pytest.mark.parametrize("text", ["", "plain", "a=b", "2026-01-05", "edge_bps=2.0 < 2.5", "1-2"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert harmless(text) == text


def test_negative_numbers_stay_numbers(tmp_path: Path) -> None:
    _, cells = csv.reader(io.StringIO(written(Form.CSV, [ROW], tmp_path).decode()))
    assert cells[3] == "-0.1"


def test_a_file_that_cant_be_written_is_told_and_the_old_one_stays(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^--output: .*/nowhere/out can't be written: No such file"):
        write_table(Table("rows", COLUMNS, [ROW]), Form.CSV, tmp_path / "nowhere" / "out")
    path = tmp_path / "out"
    path.write_text("old")

    def failing() -> Any:
        yield ROW
        raise BadInput("the rows ended early")

    with pytest.raises(BadInput, match="ended early"):
        write_table(Table("rows", COLUMNS, failing()), Form.CSV, path)
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["out"]


def test_a_ledger_is_never_replaced_by_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "desk.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE events (position)")
    before = path.read_bytes()
    with pytest.raises(BadInput, match=r"^--output: .*desk\.sqlite is a SQLite file, perhaps a"):
        write_table(Table("rows", COLUMNS, [ROW]), Form.CSV, path)
    with pytest.raises(BadInput, match=r"^--junit: .*desk\.sqlite is a SQLite file, perhaps a"):
        write_junit(path, {"gate": [Case("one")]}, option="--junit")
    assert path.read_bytes() == before


def test_an_empty_name_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"^--output: expected a file's name, was '\.'$"):
        write_table(Table("rows", COLUMNS, [ROW]), Form.CSV, Path())
    assert list(tmp_path.iterdir()) == []
