"""How windows and symbols are named, aligned, hashed and counted."""

import pytest
from decider_spec import BTC, ETH, MINUTE_MS, NOTHING, OK, START_MS, readings

from domain.errors import BadInput
from domain.kpis import Defect
from domain.windows import (
    SYMBOLS_MAX,
    SymbolReadings,
    check_interval,
    check_symbols,
    content_hash,
    format_minute,
    format_time,
    parse_time,
)


@pytest.mark.parametrize(
    ("time_ms", "text", "minute"),
    [
        (START_MS, "2026-01-05T14:00:00Z", "2026-01-05T14:00Z"),
        (START_MS + 1000, "2026-01-05T14:00:01Z", "2026-01-05T14:00:01Z"),
        (START_MS + 1, "2026-01-05T14:00:00.001Z", "2026-01-05T14:00:00.001Z"),
        (0, "1970-01-01T00:00:00Z", "1970-01-01T00:00Z"),
        (-1, "1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_told_in_utc_as_short_as_they_are_exact(
    time_ms: int, text: str, minute: str
) -> None:
    assert format_time(time_ms) == text
    assert format_minute(time_ms) == minute
    assert parse_time(text) == time_ms


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-05T14:00:00Z",
        "2026-01-05T14:00:00",
        "2026-01-05 14:00",
        "2026-01-05T15:00:00+01:00",
    ],
)
def test_a_time_without_an_offset_is_utc_and_one_with_an_offset_is_converted(text: str) -> None:
    assert parse_time(text) == START_MS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("yesterday", "Invalid isoformat"),
        ("2026-01-05T14:00:00.000001Z", "expected whole milliseconds"),
        ("0001-01-01T00:00:00+23:00", "expected a time of the years 1 to 9999"),
    ],
)
def test_what_is_no_time_in_whole_milliseconds_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_time(text)


@pytest.mark.parametrize("symbol", ["BTCUSDT", "1INCHUSDT", "BTC-PERP", "A.B_C-D", "A1", "X" * 32])
def test_well_formed_symbols_are_taken_as_they_are(symbol: str) -> None:
    assert check_symbols([symbol], source="--symbols") == (symbol,)


@pytest.mark.parametrize(
    "symbol", ["", "B", "btcusdt", "BTC USDT", "BTC/USDT", "-BTC", "X" * 33, "BTCUSDT\n", "ÄÖ"]
)
def test_malformed_symbols_are_refused(symbol: str) -> None:
    with pytest.raises(BadInput, match="--symbols: malformed symbol"):
        check_symbols([BTC, symbol], source="--symbols")


@pytest.mark.parametrize(
    ("symbols", "told"),
    [
        ([], "--symbols: expected at least one symbol, was none"),
        ([BTC, ETH, BTC], "--symbols: symbol BTCUSDT is there twice; name it once"),
        (
            [f"S{number}" for number in range(SYMBOLS_MAX + 10)],
            "--symbols: expected at most 500 symbols, was 510",
        ),
    ],
)
def test_none_too_many_or_one_symbol_twice_are_refused(symbols: list[str], told: str) -> None:
    with pytest.raises(BadInput) as refusal:
        check_symbols(symbols, source="--symbols")
    assert str(refusal.value) == told


def test_an_interval_is_from_a_millisecond_to_a_day() -> None:
    for interval_ms in (1, MINUTE_MS, 86_400_000):
        assert check_interval(interval_ms, source="--interval-sec") == interval_ms
    for interval_ms in (0, -1, 86_400_001):
        with pytest.raises(BadInput, match=r"--interval-sec: expected an interval from 0\.001"):
            check_interval(interval_ms, source="--interval-sec")


def test_a_windows_content_has_one_name_whatever_order_it_arrived_in() -> None:
    turned = SymbolReadings(kpis=dict(reversed(OK.kpis.items())))
    name = content_hash(START_MS, {BTC: OK, ETH: OK})
    assert len(name) == 32
    assert name == content_hash(START_MS, {ETH: turned, BTC: OK})
    assert name == content_hash(START_MS, {ETH: turned, "SOLUSDT": NOTHING, BTC: OK})


@pytest.mark.parametrize(
    "other",
    [
        readings(edge_bps=3.6),
        readings(edge_bps=None),
        readings(edge_bps=Defect.NAN),
        readings(edge_bps=Defect.STALE),
        SymbolReadings(kpis=OK.kpis, fills=1),
        SymbolReadings(kpis=OK.kpis, notional=1.0),
        NOTHING,
    ],
)
def test_other_content_has_another_name(other: SymbolReadings) -> None:
    assert content_hash(START_MS, {BTC: other}) != content_hash(START_MS, {BTC: OK})
    assert content_hash(START_MS + 1, {BTC: other}) != content_hash(START_MS, {BTC: other})
