"""A KPI file of each format yields its windows: symbols, interval, defects and absent values."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import BadInput
from domain.kpis import KPIS, Defect, Reading
from domain.windows import SymbolReadings, WindowReadings, format_time
from feeds import kpi_file
from feeds.base import SeriesFeed
from feeds.kpi_file import open_kpi_file

MINUTE_MS = 60_000
START_MS = 1_767_621_600_000  # 2026-01-05T14:00:00Z
NAMES = tuple(kpi.name for kpi in KPIS)
FORMATS = ("parquet", "csv", "jsonl")

Row = dict[str, Any]


def row(minute: float, symbol: str = "BTCUSDT", **values: Any) -> Row:
    """Return a row with the five KPIs; `minute` counts from 14:00."""
    healthy = dict(zip(NAMES, (3.5, 0.9, 0.2, 180.0, 0.5), strict=True))
    start_ms = START_MS + round(minute * MINUTE_MS)
    return {"window_start": format_time(start_ms), "symbol": symbol, **healthy, **values}


def write(folder: Path, suffix: str, rows: Sequence[Row]) -> Path:
    """Write the rows as any other tool would: Parquet timestamps, CSV and JSON ISO text."""
    path = folder / f"kpis.{suffix}"
    if suffix == "parquet":
        table = pa.Table.from_pylist(list(rows))
        times = pa.array([one["window_start"].rstrip("Z") for one in rows])
        index = table.schema.get_field_index("window_start")
        times = times.cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
        pq.write_table(table.set_column(index, "window_start", times), path, row_group_size=3)
    elif suffix == "csv":
        names = list(rows[0])
        cells = [["" if one[name] is None else str(one[name]) for name in names] for one in rows]
        path.write_text("\n".join(map(",".join, [names, *cells])) + "\n")
    else:
        path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


@pytest.fixture(params=FORMATS)
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_file_yields_its_windows_in_order(tmp_path: Path, suffix: str) -> None:
    rows = [
        row(0, edge_bps=3.25),
        row(0, "ETHUSDT", edge_bps=3.75),
        row(2, "ETHUSDT", risk_ratio=0.45),
    ]

    windows = list(open_kpi_file(write(tmp_path, suffix, rows)).windows())

    healthy = dict(zip(NAMES, (3.5, 0.9, 0.2, 180.0, 0.5), strict=True))
    assert windows == [
        WindowReadings(
            start_ms=START_MS,
            symbols={
                "BTCUSDT": SymbolReadings(kpis={**healthy, "edge_bps": 3.25}),
                "ETHUSDT": SymbolReadings(kpis={**healthy, "edge_bps": 3.75}),
            },
        ),
        WindowReadings(
            start_ms=START_MS + 2 * MINUTE_MS,
            symbols={"ETHUSDT": SymbolReadings(kpis={**healthy, "risk_ratio": 0.45})},
        ),
    ]


def test_a_file_says_what_it_holds(tmp_path: Path, suffix: str) -> None:
    rows = [row(0, "ETHUSDT"), row(0), row(1), row(2), row(4, "ETHUSDT")]

    feed: SeriesFeed = open_kpi_file(write(tmp_path, suffix, rows))

    assert feed.description == f"file:kpis.{suffix}"
    assert feed.kind == "file"
    assert feed.symbols == ("ETHUSDT", "BTCUSDT")
    assert feed.interval_ms == MINUTE_MS
    assert feed.window_count == 4


def test_windows_can_be_asked_for_again(tmp_path: Path, suffix: str) -> None:
    feed = open_kpi_file(write(tmp_path, suffix, [row(0), row(1)]))

    assert list(feed.windows()) == list(feed.windows())


def test_null_is_absent_and_nan_and_infinity_are_defects(tmp_path: Path, suffix: str) -> None:
    values = (None, float("nan"), float("inf"), float("-inf"), -1.5)
    rows = [row(0) | dict(zip(NAMES, values, strict=True))]

    (window,) = open_kpi_file(write(tmp_path, suffix, rows)).windows()

    assert window.symbols["BTCUSDT"].kpis == {
        "maker_taker_ratio": Defect.NAN,
        "risk_ratio": Defect.INFINITE,
        "p95_latency_ms": Defect.INFINITE,
        "anomaly_score": -1.5,
    }


def test_a_value_outside_its_domain_stays_a_number(tmp_path: Path, suffix: str) -> None:
    rows = [row(0, maker_taker_ratio=1.5, risk_ratio=-0.25)]

    (window,) = open_kpi_file(write(tmp_path, suffix, rows)).windows()

    assert window.symbols["BTCUSDT"].kpis["maker_taker_ratio"] == 1.5
    assert window.symbols["BTCUSDT"].kpis["risk_ratio"] == -0.25


def test_notional_and_fills_are_read_where_they_are(tmp_path: Path, suffix: str) -> None:
    rows = [
        row(0, notional=1250.5, fills=12),
        row(1, notional=None, fills=None),
        row(2, notional=0.0, fills=0),
    ]

    got = [
        window.symbols["BTCUSDT"]
        for window in open_kpi_file(write(tmp_path, suffix, rows)).windows()
    ]

    assert [(one.notional, one.fills) for one in got] == [(1250.5, 12), (None, None), (0.0, 0)]
    assert [type(one.fills) for one in got] == [int, type(None), int]


def test_fills_stored_as_floats_are_whole_numbers(tmp_path: Path, suffix: str) -> None:
    (window,) = open_kpi_file(write(tmp_path, suffix, [row(0, fills=12.0)])).windows()

    assert window.symbols["BTCUSDT"].fills == 12


def test_whole_numbers_are_numbers_and_other_columns_are_ignored(
    tmp_path: Path, suffix: str
) -> None:
    rows = [row(0, p95_latency_ms=180, venue="bybit"), row(1, p95_latency_ms=181, venue="bybit")]

    first, second = open_kpi_file(write(tmp_path, suffix, rows)).windows()

    assert first.symbols["BTCUSDT"].kpis["p95_latency_ms"] == 180.0
    assert second.symbols["BTCUSDT"].kpis["p95_latency_ms"] == 181.0


def test_selected_symbols_are_read_in_the_order_given(tmp_path: Path, suffix: str) -> None:
    rows = [row(minute, symbol) for minute in (0, 1) for symbol in ("AAUSDT", "BBUSDT", "CCUSDT")]
    rows.append(row(2, "BBUSDT"))

    feed = open_kpi_file(write(tmp_path, suffix, rows), symbols=["CCUSDT", "AAUSDT"])

    assert feed.symbols == ("CCUSDT", "AAUSDT")
    assert feed.window_count == 2
    assert [set(window.symbols) for window in feed.windows()] == [{"AAUSDT", "CCUSDT"}] * 2


def test_a_selected_symbol_that_is_nowhere_has_no_data(tmp_path: Path, suffix: str) -> None:
    feed = open_kpi_file(write(tmp_path, suffix, [row(0)]), symbols=["XRPUSDT", "BTCUSDT"])

    assert feed.symbols == ("XRPUSDT", "BTCUSDT")
    assert [set(window.symbols) for window in feed.windows()] == [{"BTCUSDT"}]


def test_the_interval_is_that_of_the_selected_symbols(tmp_path: Path, suffix: str) -> None:
    fast = [row(minute / 2, "ETHUSDT") for minute in range(8)]
    rows = sorted([*fast, row(0), row(2)], key=lambda one: str(one["window_start"]))
    path = write(tmp_path, suffix, rows)

    assert open_kpi_file(path).interval_ms == 30_000
    assert open_kpi_file(path, symbols=["BTCUSDT"]).interval_ms == 120_000


def test_of_two_steps_as_common_the_smaller_is_the_interval(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix, [row(minute) for minute in (0, 4, 5, 9, 10)])

    assert open_kpi_file(path).interval_ms == MINUTE_MS


def test_a_single_window_lasts_a_minute(tmp_path: Path, suffix: str) -> None:
    assert open_kpi_file(write(tmp_path, suffix, [row(0)])).interval_ms == MINUTE_MS


def test_a_given_interval_is_taken_instead_of_the_step(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix, [row(0), row(1), row(2)])

    assert open_kpi_file(path, interval_ms=20_000).interval_ms == 20_000


def test_a_column_that_is_mostly_nan_is_warned_about(tmp_path: Path, suffix: str) -> None:
    nan = float("nan")
    rows = [row(0, edge_bps=nan, risk_ratio=nan), row(1, edge_bps=nan), row(2)]
    path = write(tmp_path, suffix, rows)

    feed = open_kpi_file(path)

    assert feed.nan_counts == {**dict.fromkeys(NAMES, 0), "edge_bps": 2, "risk_ratio": 1}
    assert feed.warnings == (
        f"{path}: column edge_bps is mostly NaN (2 of 3 rows): NaN is malformed, not absent; "
        "leave the cell empty for no value",
    )


def test_a_symbol_that_was_not_selected_causes_no_warning(tmp_path: Path, suffix: str) -> None:
    rows = [row(0), row(0, "ETHUSDT", edge_bps=float("nan")), row(1), row(1, "XRPUSDT")]
    path = write(tmp_path, suffix, rows)

    assert open_kpi_file(path, symbols=["BTCUSDT"]).warnings == ()
    assert "(1 of 1 rows)" in open_kpi_file(path, symbols=["ETHUSDT"]).warnings[0]


def test_windows_are_read_as_they_are_asked_for(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, suffix, [row(minute) for minute in range(10_000)])
    feed = open_kpi_file(path)
    read = 0
    batches = vars(kpi_file)["_batches"]

    def counted(path: Path) -> Iterator[Any]:
        nonlocal read
        for batch in batches(path):
            read += len(batch.numbers)
            yield batch

    monkeypatch.setattr(kpi_file, "_batches", counted)
    windows = feed.windows()

    assert read == 0
    assert len(list(islice(windows, 100))) == 100
    assert read < 5_000
    assert len(list(windows)) == 9_900
    assert read == 10_000


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_parquet_timestamps_of_any_unit_and_zone_are_read(
    tmp_path: Path, unit: str, zone: str | None
) -> None:
    path = tmp_path / "kpis.parquet"
    per_second = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[unit]
    ticks = [start_ms // 1000 * per_second for start_ms in (START_MS, START_MS + MINUTE_MS)]
    columns = {
        "window_start": pa.array(ticks, pa.timestamp(unit, zone)),
        "symbol": pa.array(["BTCUSDT"] * 2),
        **{name: pa.array([1.0, 2.0]) for name in NAMES},
    }
    pq.write_table(pa.table(columns), path)

    assert [window.start_ms for window in open_kpi_file(path).windows()] == [
        START_MS,
        START_MS + MINUTE_MS,
    ]


def test_parquet_columns_may_be_text_dictionaries_decimals_floats_and_null(tmp_path: Path) -> None:
    path = tmp_path / "kpis.parquet"
    values = {
        "window_start": pa.array(["2026-01-05T15:00+01:00"]).dictionary_encode(),
        "symbol": pa.array(["BTCUSDT"]).dictionary_encode(),
        "edge_bps": pa.array([3.5], pa.float32()),
        "maker_taker_ratio": pa.array([1], pa.decimal128(5, 2)),
        "risk_ratio": pa.array([0.25], pa.float16()),
        "p95_latency_ms": pa.array([180], pa.uint8()),
        "anomaly_score": pa.nulls(1),
    }
    pq.write_table(pa.table(values), path)

    (window,) = open_kpi_file(path).windows()

    kpis: dict[str, Reading] = dict(zip(NAMES[:4], (3.5, 1.0, 0.25, 180.0), strict=True))
    assert window == WindowReadings(
        start_ms=START_MS, symbols={"BTCUSDT": SymbolReadings(kpis=kpis)}
    )


@pytest.mark.parametrize("text", ["nan", "NaN", "-nan", "NAN"])
def test_nan_may_be_spelled_out_in_text(tmp_path: Path, text: str) -> None:
    assert list(readings_of_text(tmp_path, text)) == [Defect.NAN] * 2


@pytest.mark.parametrize("text", ["inf", "-Infinity", "+INF", "infinity", "1e999"])
def test_infinity_may_be_spelled_out_in_text(tmp_path: Path, text: str) -> None:
    assert list(readings_of_text(tmp_path, text)) == [Defect.INFINITE] * 2


def readings_of_text(folder: Path, text: str) -> Iterator[Any]:
    for suffix in ("csv", "jsonl"):
        path = write(folder, suffix, [row(0, edge_bps=text)])
        (window,) = open_kpi_file(path).windows()
        yield window.symbols["BTCUSDT"].kpis["edge_bps"]


@pytest.mark.parametrize(
    ("token", "reading"),
    [
        ("NaN", Defect.NAN),
        ("-Infinity", Defect.INFINITE),
        ("1e999", Defect.INFINITE),
        ("1" + "0" * 400, Defect.INFINITE),
        ("3", 3.0),
    ],
)
def test_json_lines_may_hold_what_pythons_json_writes(
    tmp_path: Path, token: str, reading: Any
) -> None:
    path = tmp_path / "kpis.jsonl"
    path.write_text(json.dumps(row(0, edge_bps=0)).replace('"edge_bps": 0', f'"edge_bps": {token}'))

    (window,) = open_kpi_file(path).windows()

    assert window.symbols["BTCUSDT"].kpis["edge_bps"] == reading


def test_a_kpi_that_is_no_key_of_a_json_line_is_absent(tmp_path: Path) -> None:
    path = tmp_path / "kpis.ndjson"
    path.write_text('{"symbol": "BTCUSDT", "window_start": "2026-01-05T14:00:00"}')

    (window,) = open_kpi_file(path).windows()

    assert window.symbols == {"BTCUSDT": SymbolReadings()}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_byte_order_mark_carriage_returns_and_blank_last_lines_are_fine(
    tmp_path: Path, suffix: str
) -> None:
    path = write(tmp_path, suffix, [row(0), row(1)])
    expected = list(open_kpi_file(path).windows())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")

    assert list(open_kpi_file(path).windows()) == expected


def test_the_suffix_is_read_in_any_case(tmp_path: Path) -> None:
    path = write(tmp_path, "csv", [row(0)])

    assert open_kpi_file(path.rename(tmp_path / "KPIS.CSV")).description == "file:KPIS.CSV"


def test_the_columns_of_a_csv_file_may_be_in_any_order(tmp_path: Path) -> None:
    path = write(tmp_path, "csv", [dict(reversed(row(0, fills=3).items()))])

    (window,) = open_kpi_file(path).windows()

    assert window.symbols["BTCUSDT"].kpis["edge_bps"] == 3.5
    assert window.symbols["BTCUSDT"].fills == 3


@pytest.mark.parametrize("change", ["rows", "time", "gone"])
def test_a_file_that_changes_after_it_was_opened_is_refused(
    tmp_path: Path, suffix: str, change: str
) -> None:
    path = write(tmp_path, suffix, [row(0), row(1)])
    feed = open_kpi_file(path)
    if change == "rows":
        write(tmp_path, suffix, [row(0), row(1), row(2)])
    elif change == "time":
        os.utime(path, ns=(0, 0))
    else:
        path.unlink()

    with pytest.raises(BadInput, match=f"kpis.{suffix}"):
        next(feed.windows())


def test_a_file_that_changes_between_two_windows_is_refused(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix, [row(minute) for minute in range(10_000)])
    windows = open_kpi_file(path).windows()
    next(windows)
    os.utime(path, ns=(0, 0))

    with pytest.raises(BadInput, match="was changed while it was read"):
        list(windows)


def test_the_feed_imports_pyarrow_only_for_parquet(tmp_path: Path) -> None:
    path = write(tmp_path, "csv", [row(0)])
    code = (
        "import sys; from feeds.kpi_file import open_kpi_file\n"
        f"list(open_kpi_file({str(path)!r}).windows()); print('pyarrow' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "False"


numbers = st.none() | st.floats() | st.integers(-(2**53), 2**53).map(float)
cells = st.fixed_dictionaries(
    dict.fromkeys(NAMES, numbers)
    | {
        "notional": st.none() | st.floats(0, 1e300),
        "fills": st.none() | st.integers(0, 2**53 - 1),
    }
)
tables = st.dictionaries(
    st.tuples(st.integers(0, 30), st.sampled_from(["BTC-USD.X", "ETHUSDT", "1INCH_PERP"])),
    cells,
    min_size=1,
    max_size=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(table=tables)
def test_the_same_rows_in_each_format_are_the_same_windows(
    tmp_path: Path, table: dict[tuple[int, str], Row]
) -> None:
    rows = [row(minute, symbol, **values) for (minute, symbol), values in sorted(table.items())]

    # The interval is given, as the commonest step of windows this sparse is often not aligned.
    files = [write(tmp_path, suffix, rows) for suffix in FORMATS]
    feeds = [open_kpi_file(path, interval_ms=MINUTE_MS) for path in files]

    parquet, *others = [(feed.symbols, list(feed.windows())) for feed in feeds]
    assert len(parquet[1]) == feeds[0].window_count == len({minute for minute, _ in table})
    assert all(other == parquet for other in others)


def real_files() -> list[Path]:
    folder = os.environ.get("LIVE_REAL_DATA")
    return sorted(Path(folder, "kpi").glob("*.parquet")) if folder else []


@pytest.mark.skipif(not real_files(), reason="LIVE_REAL_DATA names no folder with kpi/*.parquet")
@pytest.mark.parametrize("path", real_files(), ids=lambda path: path.stem)
def test_real_data_is_read_as_pyarrow_reads_it(path: Path) -> None:
    table = pq.read_table(path)
    starts = table["window_start"].cast(pa.timestamp("ms", "UTC")).cast(pa.int64()).to_pylist()
    first = [
        one for one, start in zip(table.to_pylist(), starts, strict=True) if start == starts[0]
    ]

    feed = open_kpi_file(path)
    windows = list(feed.windows())

    assert feed.row_count == table.num_rows
    assert feed.interval_ms == (10_000 if path.stem.endswith("10s") else 60_000)
    assert feed.symbols == tuple(dict.fromkeys(table["symbol"].to_pylist()))
    assert [window.start_ms for window in windows] == sorted(set(starts))
    assert feed.window_count == len(windows)
    assert sum(len(window.symbols) for window in windows) == table.num_rows
    assert windows[0].symbols == {
        one["symbol"]: SymbolReadings(
            kpis={name: one[name] for name in NAMES if one[name] is not None}
        )
        for one in first
    }
