"""A KPI file with a fault anywhere is refused when it is opened, naming the file and the place."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.errors import BadInput
from domain.kpis import KPIS
from feeds import kpi_survey
from feeds.kpi_file import open_kpi_file

NAMES = tuple(kpi.name for kpi in KPIS)
HEADER = "window_start,symbol," + ",".join(NAMES)
VALUES = "3.5,0.9,0.2,180,0.5"
Row = dict[str, Any]


def row(time: Any = "14:00:00", symbol: Any = "BTCUSDT", **values: Any) -> Row:
    """Return a healthy row; a `time` without a date is on 2026-01-05."""
    is_clock = isinstance(time, str) and time[2:3] == ":"
    healthy = dict(zip(NAMES, (3.5, 0.9, 0.2, 180.0, 0.5), strict=True))
    start = f"2026-01-05T{time}Z" if is_clock else time
    return {"window_start": start, "symbol": symbol, **healthy, **values}


def write_parquet(folder: Path, *rows: Row) -> Path:
    path = folder / "x.parquet"
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def write_csv(folder: Path, *rows: Row) -> Path:
    lines = [",".join(rows[0])]
    lines += [",".join("" if cell is None else str(cell) for cell in one.values()) for one in rows]
    return write_text(folder, "x.csv", "\n".join(lines))


def write_jsonl(folder: Path, *rows: Row) -> Path:
    return write_text(folder, "x.jsonl", "\n".join(map(json.dumps, rows)))


def write_text(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(path: Path, **options: Any) -> str:
    """Return what the user is told, without the folder."""
    with pytest.raises(BadInput) as refused:
        open_kpi_file(path, **options)
    assert refused.value.exit_code == 2
    return str(refused.value).replace(f"{path.parent}{os.sep}", "")


# The second row is the one with the fault: line 3 of a CSV file, line 2 of JSON Lines, row 2.
WRITERS = [
    pytest.param(write_parquet, "x.parquet row 2: ", id="parquet"),
    pytest.param(write_csv, "x.csv line 3: ", id="csv"),
    pytest.param(write_jsonl, "x.jsonl line 2: ", id="jsonl"),
]
TEXT_WRITERS = WRITERS[1:]
Writer = Callable[..., Path]


@pytest.mark.parametrize(("write", "place"), WRITERS)
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (row("13:59:00"), "expected windows in order, was 2026-01-05T13:59:00Z after "),
        (row("14:00:00"), "BTCUSDT in window 2026-01-05T14:00:00Z is there twice"),
        (row("14:01:00", "btcusdt"), "malformed symbol 'btcusdt'"),
        (row("14:01:00", "BTC:USDT"), "malformed symbol 'BTC:USDT'"),
        (row("14:01:00", None), "expected a symbol for symbol, was nothing"),
        (row("14:01:00", ""), "expected a symbol for symbol, was nothing"),
        (row("noon"), "expected a time such as 2026-01-05T14:00:00Z for window_start, was 'noon'"),
        (row(None), "expected a time such as 2026-01-05T14:00:00Z for window_start, was nothing"),
        (row("1969-12-31T23:59:00Z"), "expected a time from 1970 to 9998 for window_start, was "),
        (row("9999-01-01T00:00:00"), "expected a time from 1970 to 9998 for window_start, was "),
        (row("0001-01-01T00:00:00+05:00"), "expected a time such as 2026-01-05T14:00:00Z"),
        (row("14:01:00.0005"), "expected a time such as 2026-01-05T14:00:00Z"),
        (row("14:01:00", notional=-1.0), "of at least 0 for notional, was -1.0"),
        (row("14:01:00", notional=float("inf")), "a finite number of at least 0 for notional"),
        (row("14:01:00", notional=float("nan")), "a finite number of at least 0 for notional"),
        (row("14:01:00", fills=1.5), "expected a whole number of at least 0 for fills, was 1.5"),
        (row("14:01:00", fills=-1.0), "expected a whole number of at least 0 for fills, was -1.0"),
        (row("14:01:00", fills=1e300), "expected a whole number of at least 0 for fills"),
        (row("14:01:00", fills=float("nan")), "expected a whole number of at least 0 for fills"),
    ],
)
def test_a_faulty_row_is_named(
    tmp_path: Path, write: Writer, place: str, fault: Row, told: str
) -> None:
    # Every row of a CSV file has the same fields.
    first = {**fault, **row(), "notional": 1.0, "fills": 1.0}
    first = {name: first[name] for name in fault}
    path = write(tmp_path, first, fault)

    message = refusal(path)

    assert message.startswith(place)
    # A CSV cell is shown as the text it is.
    assert told in message or told in message.replace("'", "")


@pytest.mark.parametrize(("write", "place"), TEXT_WRITERS)
@pytest.mark.parametrize("text", ["abc", "1_000", "0x1F", "N/A", "None", "٣", "1,5", " ", "1 2"])
def test_text_that_is_no_number_is_refused(
    tmp_path: Path, write: Writer, place: str, text: str
) -> None:
    cell = f'"{text}"' if write is write_csv else text

    message = refusal(write(tmp_path, row(), row("14:01:00", edge_bps=cell)))

    assert message == f"{place}expected a number for edge_bps, was {text!r}"


@pytest.mark.parametrize("value", [True, "3.5", [3.5], {"value": 3.5}])
def test_a_json_value_that_is_no_number_is_refused(tmp_path: Path, value: Any) -> None:
    message = refusal(write_jsonl(tmp_path, row(), row("14:01:00", risk_ratio=value)))

    assert message == f"x.jsonl line 2: expected a number for risk_ratio, was {value!r}"


@pytest.mark.parametrize("start", [1_767_621_660, 1_767_621_660_000.0, True, ["14:01"]])
def test_a_json_time_that_is_no_text_is_refused(tmp_path: Path, start: Any) -> None:
    message = refusal(write_jsonl(tmp_path, row(), row(start)))

    assert message.startswith("x.jsonl line 2: expected a time such as 2026-01-05T14:00:00Z")


@pytest.mark.parametrize("key", ["window_start", "symbol"])
def test_a_json_line_needs_a_window_and_a_symbol(tmp_path: Path, key: str) -> None:
    broken = row("14:01:00")
    del broken[key]

    message = refusal(write_jsonl(tmp_path, row(), broken))

    assert message.startswith("x.jsonl line 2: expected a ")
    assert message.endswith(f"for {key}, was nothing")


def test_a_long_cell_is_cut_in_the_message(tmp_path: Path) -> None:
    message = refusal(write_csv(tmp_path, row(edge_bps="x" * 5000)))

    assert message == f"x.csv line 2: expected a number for edge_bps, was '{'x' * 59}..."


def test_a_fault_behind_many_rows_is_found_before_the_first_window(tmp_path: Path) -> None:
    rows = [row(f"{14 + n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}") for n in range(9000)]
    rows[8765]["anomaly_score"] = "?"

    message = refusal(write_csv(tmp_path, *rows))

    assert message == "x.csv line 8767: expected a number for anomaly_score, was '?'"


@pytest.mark.parametrize(("write", "place"), WRITERS)
def test_a_window_that_is_not_aligned_to_the_interval_is_named(
    tmp_path: Path, write: Writer, place: str
) -> None:
    rows = [row(f"14:0{minute}:00") for minute in (0, 1, 2, 3, 4)]
    rows[1] = row("14:01:30")

    message = refusal(write(tmp_path, *rows))

    assert message == (
        f"{place}expected a window aligned to the interval of 60 s, was 2026-01-05T14:01:30Z; "
        "give another interval with --interval-sec"
    )


@pytest.mark.parametrize(("write", "place"), WRITERS)
def test_a_window_that_is_not_aligned_to_the_given_interval_is_named(
    tmp_path: Path, write: Writer, place: str
) -> None:
    path = write(tmp_path, row(), row("14:01:00"))

    message = refusal(path, interval_ms=120_000)

    assert message.startswith(f"{place}expected a window aligned to the interval of 120 s")


def test_windows_of_skipped_symbols_need_not_be_aligned(tmp_path: Path) -> None:
    path = write_csv(tmp_path, row(), row("14:00:10", "ETHUSDT"), row("14:01:00"))

    assert open_kpi_file(path, symbols=["BTCUSDT"]).interval_ms == 60_000


def test_rows_of_skipped_symbols_are_checked_all_the_same(tmp_path: Path) -> None:
    path = write_csv(tmp_path, row(), row("14:00:00", "ETHUSDT"), row("14:00:00", "ETHUSDT"))

    message = refusal(path, symbols=["BTCUSDT"])

    assert message == "x.csv line 4: ETHUSDT in window 2026-01-05T14:00:00Z is there twice"


@pytest.mark.parametrize(("write", "place"), WRITERS)
def test_a_file_without_any_of_the_selected_symbols_is_refused(
    tmp_path: Path, write: Writer, place: str
) -> None:
    message = refusal(write(tmp_path, row()), symbols=["ETHUSDT", "XRPUSDT"])

    assert message == f"{place.split(maxsplit=1)[0]}: expected one of ETHUSDT, XRPUSDT, was BTCUSDT"


def test_a_malformed_selection_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path, row())

    assert "--symbols: malformed symbol 'btc'" in refusal(path, symbols=["btc"])
    assert "--symbols: symbol BTCUSDT is there twice" in refusal(path, symbols=["BTCUSDT"] * 2)
    assert "--interval-sec: expected an interval" in refusal(path, interval_ms=0)


def test_a_commonest_step_of_more_than_a_day_is_no_interval(tmp_path: Path) -> None:
    path = write_csv(tmp_path, row("2026-01-05T00:00:00"), row("2026-01-12T00:00:00"))

    message = refusal(path)

    assert message.startswith("x.csv: the commonest step between windows (see --interval-sec)")


def test_windows_without_a_common_step_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kpi_survey, "STEPS_MAX", 2)
    path = write_csv(tmp_path, *(row(f"14:{minute:02}:00") for minute in (0, 1, 3, 6)))

    message = refusal(path)

    assert message.startswith("x.csv line 5: expected windows of one interval, was the 3th")
    assert open_kpi_file(path, interval_ms=60_000).window_count == 4


def test_more_symbols_than_can_be_decided_for_are_refused_unless_selected(tmp_path: Path) -> None:
    path = write_csv(tmp_path, *(row("14:00:00", f"S{number}") for number in range(100, 601)))

    assert refusal(path).startswith("x.csv line 502: expected at most 500 symbols")
    assert open_kpi_file(path, symbols=["S600"]).symbols == ("S600",)


@pytest.mark.parametrize("name", ["window_start", "symbol", *NAMES])
@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_a_missing_column_is_named(tmp_path: Path, write: Writer, name: str) -> None:
    narrow = row()
    del narrow[name]
    path = write(tmp_path, narrow)

    message = refusal(path)

    assert message.startswith(f"{path.name}: expected a column {name}, was ")


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    text = f"{HEADER},edge_bps\n2026-01-05T14:00:00Z,BTCUSDT,{VALUES},3"

    message = refusal(write_text(tmp_path, "x.csv", text))

    assert message == "x.csv: column 'edge_bps' is there twice; name each column once"


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "ndjson", "parquet"])
def test_an_empty_file_is_refused(tmp_path: Path, suffix: str) -> None:
    message = refusal(write_text(tmp_path, f"x.{suffix}", ""))

    assert message == f"x.{suffix}: expected rows, was an empty file"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("x.csv", HEADER + "\n", "x.csv: expected rows, was none"),
        ("x.csv", "\n", "x.csv: expected a header and rows, was nothing"),
        ("x.jsonl", "\n\n", "x.jsonl: expected rows, was none"),
    ],
)
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str, text: str, told: str) -> None:
    assert refusal(write_text(tmp_path, name, text)) == told


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.Table.from_pylist([row()]).slice(0, 0), path)

    assert refusal(path) == "x.parquet: expected rows, was none"


GOOD_LINE = f"2026-01-05T14:00:00Z,BTCUSDT,{VALUES}"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([GOOD_LINE + ",9"], "x.csv line 2: expected 7 fields, was 8"),
        ([GOOD_LINE, "2026-01-05T14:01:00Z,BTCUSDT"], "x.csv line 3: expected 7 fields, was 2"),
        (["", GOOD_LINE], "x.csv line 2: expected 7 fields, was 0"),
        ([GOOD_LINE.replace("3.5", '"3.5"x')], "x.csv line 2: expected CSV, was broken"),
        ([GOOD_LINE, '"2026'], "x.csv line 3: expected CSV, was broken: unexpected end of data"),
        ([GOOD_LINE, GOOD_LINE.replace("BTC", "B\0C")], "x.csv line 3: expected text, was a NUL"),
        ([GOOD_LINE.replace("BTC", '"A\n\nB"')], "x.csv line 4: "),
        ([GOOD_LINE, "x" * (1 << 20)], "x.csv line 3: expected at most 1048576 bytes, was more"),
    ],
)
def test_a_broken_line_of_csv_is_named(tmp_path: Path, lines: list[str], told: str) -> None:
    path = write_text(tmp_path, "x.csv", "\n".join([HEADER, *lines, ""]))

    assert refusal(path).startswith(told)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"symbol": "BTC', "expected a JSON object, was broken: "),
        ("{} {}", "expected a JSON object, was broken: "),
        ("[1, 2]", "expected a JSON object, was list"),
        ("NaN", "expected a JSON object, was float"),
        ("null", "expected a JSON object, was NoneType"),
        ('{"edge_bps": ' + "9" * 5000 + "}", "expected a JSON object, was broken: "),
        ("[" * 100_000, "expected a JSON object, was broken: "),
        ('{"venue": ' + "[" * 100_000, "expected a JSON object, was broken: "),
        ("\0", "expected text, was a NUL byte"),
        ("x" * ((1 << 20) + 1), "expected at most 1048576 bytes, was more"),
        ("\n" + json.dumps(row("14:01:00")), "expected a JSON object, was a blank line"),
    ],
)
def test_a_broken_line_of_json_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = write_text(tmp_path, "x.jsonl", f"{json.dumps(row())}\n{line}\n")

    assert refusal(path).startswith(f"x.jsonl line 2: {told}")


@pytest.mark.parametrize(("write", "place"), TEXT_WRITERS)
def test_a_line_that_is_not_utf_8_is_named(tmp_path: Path, write: Writer, place: str) -> None:
    path = write(tmp_path, row(), row("14:01:00", venue="Z") | {"symbol": "BTCUSDT"})
    path.write_bytes(path.read_bytes().replace(b"14:01:00", b"14:01:0\xff"))

    assert refusal(path) == f"{place}expected UTF-8, was invalid start byte"


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_parquet_file_is_refused(tmp_path: Path, kept: float) -> None:
    path = write_parquet(tmp_path, *(row(f"14:{minute:02}:00") for minute in range(60)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])

    assert refusal(path).startswith("x.parquet: expected a whole Parquet file, was broken: ")


def test_a_parquet_file_with_damaged_pages_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    table = pa.Table.from_pylist([row(f"14:{minute:02}:00") for minute in range(60)])
    pq.write_table(table, path, write_page_checksum=True, compression="none")
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 10] ^= 0xFF
    path.write_bytes(whole)

    assert refusal(path).startswith("x.parquet: expected a whole Parquet file, was broken: ")


def test_a_text_file_named_parquet_is_refused(tmp_path: Path) -> None:
    path = write_text(tmp_path, "x.parquet", f"{HEADER}\n{GOOD_LINE}\n")

    assert refusal(path).startswith("x.parquet: expected a whole Parquet file, was broken: ")


@pytest.mark.parametrize(
    ("name", "column", "told"),
    [
        ("edge_bps", pa.array(["3.5"]), "expected numbers in column edge_bps, was string"),
        ("edge_bps", pa.array([True]), "expected numbers in column edge_bps, was bool"),
        ("fills", pa.array([[1]]), "expected numbers in column fills, was list"),
        ("symbol", pa.array([7]), "expected text in column symbol, was int64"),
        (
            "window_start",
            pa.array([1_767_621_600]),
            "expected timestamps or ISO text in column window_start, was int64",
        ),
    ],
)
def test_a_parquet_column_of_the_wrong_type_is_named(
    tmp_path: Path, name: str, column: Any, told: str
) -> None:
    path = tmp_path / "x.parquet"
    columns = {key: pa.array([value]) for key, value in row().items()}
    pq.write_table(pa.table({**columns, name: column}), path)

    assert refusal(path).startswith(f"x.parquet: {told}")


@pytest.mark.parametrize(
    ("ticks", "told"),
    [
        (None, "expected a time for window_start, was nothing"),
        (-60_000_000, "expected a time from 1970 to 9998 for window_start, was -60000000"),
        (2**62, "expected a time from 1970 to 9998 for window_start, was "),
        (60_000_001, "expected a time of whole milliseconds for window_start, was 60000001"),
    ],
)
def test_a_parquet_timestamp_that_is_no_window_is_named(
    tmp_path: Path, ticks: int | None, told: str
) -> None:
    path = tmp_path / "x.parquet"
    columns = {key: pa.array([value, value]) for key, value in row().items()}
    columns["window_start"] = pa.array([0, ticks], pa.timestamp("us"))
    pq.write_table(pa.table(columns), path)

    assert refusal(path).startswith(f"x.parquet row 2: {told}")


def test_a_parquet_symbol_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    columns = {key: pa.array([value]) for key, value in row().items()}
    symbol = pa.array([b"\xff\xfe"]).view(pa.string())
    pq.write_table(pa.table({**columns, "symbol": symbol}), path)

    assert refusal(path).startswith("x.parquet row 1: expected UTF-8 in column symbol")


@pytest.mark.parametrize("name", ["x.txt", "x", "x.csv.gz", "x.json"])
def test_an_unknown_suffix_is_refused_naming_those_known(tmp_path: Path, name: str) -> None:
    message = refusal(write_text(tmp_path, name, "x"))

    assert message.startswith(f"{name}: expected a KPI file ending in .parquet, .csv, .jsonl, ")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "x.csv") == (
        "x.csv: expected a file that can be read, was: No such file or directory"
    )


def test_a_path_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    assert "expected a file that can be read" in refusal(tmp_path / "a\0b.csv")
    assert "expected a file that can be read" in refusal(tmp_path / f"{'a' * 5000}.csv")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "x.parquet"
    folder.mkdir()

    assert refusal(folder) == "x.parquet: expected a file, was a directory"


def test_a_pipe_is_refused_because_it_can_be_read_only_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.csv")

    assert refusal(tmp_path / "x.csv") == "x.csv: expected a file, was neither file nor directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path, row())
    path.chmod(0)

    assert refusal(path) == "x.csv: expected a file that can be read, was: Permission denied"
