"""Messages become samples; what can't be read is named by its kind, and nothing is ever raised."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain.kpis import Defect
from feeds.sample_fields import samples_of_object
from feeds.samples import (
    MALFORMED_KINDS,
    MESSAGE_BYTES_MAX,
    MESSAGE_ENTRIES_MAX,
    Fill,
    KpiSample,
    Latency,
    MalformedSample,
    Parsed,
    Position,
    parse_fields,
    parse_message,
    parse_ts,
)

TS_MS = 1_767_621_600_123
FILL = {
    "type": "fill", "ts": TS_MS, "symbol": "BTCUSDT", "side": "buy", "price": 100.0,
    "quantity": 2.0, "maker": True, "mid": 100.5,
}  # fmt: skip
LATENCY = {"type": "latency", "ts": TS_MS, "symbol": "BTCUSDT", "ms": 12.5}
POSITION = {
    "type": "position", "ts": TS_MS, "symbol": "BTCUSDT", "notional": -40.0, "limit": 100.0,
}  # fmt: skip
KPIS = {"ts": TS_MS, "symbol": "BTCUSDT", "edge_bps": 3.0, "risk_ratio": 0.2}

A_FILL = Fill(TS_MS, "BTCUSDT", 1, 100.0, 2.0, True, 100.5)


def parsed(message: object) -> Parsed:
    return parse_message(json.dumps(message))


def without(message: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in message.items() if key != name}


def as_text(message: dict[str, Any]) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in message.items()
    }


def comparable(samples: Parsed) -> list[object]:
    return [one.kind if isinstance(one, MalformedSample) else one for one in samples]


def only_kind(samples: Parsed) -> str:
    (malformed,) = samples
    assert isinstance(malformed, MalformedSample)
    assert malformed.kind in MALFORMED_KINDS
    assert 0 < len(malformed.detail) < 300
    return malformed.kind


def kpis_of(samples: Parsed) -> dict[str, Any]:
    (sample,) = samples
    assert isinstance(sample, KpiSample)
    return sample.kpis


def test_a_fill_is_read_with_its_side_as_a_sign() -> None:
    assert parsed(FILL) == [A_FILL]
    assert parsed({**FILL, "side": "sell"}) == [Fill(TS_MS, "BTCUSDT", -1, 100.0, 2.0, True, 100.5)]


def test_a_latency_and_a_position_are_read() -> None:
    assert parsed(LATENCY) == [Latency(TS_MS, "BTCUSDT", 12.5)]
    assert parsed(POSITION) == [Position(TS_MS, "BTCUSDT", -40.0, 100.0)]


def test_a_fill_brings_its_latency_and_the_position_after_it() -> None:
    message = {**FILL, "latency_ms": 67.0, "position_notional": -100.5, "limit_notional": 500.0}
    expected = [A_FILL, Latency(TS_MS, "BTCUSDT", 67.0), Position(TS_MS, "BTCUSDT", -100.5, 500.0)]
    assert parsed(message) == expected
    assert parse_fields(as_text(message)) == expected


def test_extras_of_a_fill_that_are_null_are_absent() -> None:
    message = {**FILL, "latency_ms": None, "position_notional": None, "limit_notional": None}
    assert parsed(message) == [A_FILL]
    assert parse_fields(as_text(message)) == [A_FILL]
    assert parse_fields({**as_text(FILL), "latency_ms": "", "limit_notional": ""}) == [A_FILL]


@pytest.mark.parametrize(
    ("extras", "rest"),
    [
        ({"latency_ms": -1.0}, ["bad number"]),
        ({"latency_ms": "12"}, ["bad number"]),
        ({"latency_ms": math.nan}, ["bad number"]),
        ({"position_notional": 5.0}, ["no field"]),
        ({"limit_notional": 5.0}, ["no field"]),
        ({"position_notional": 5.0, "limit_notional": 0.0}, ["bad number"]),
        ({"position_notional": math.inf, "limit_notional": 5.0}, ["bad number"]),
        (
            {"latency_ms": -1.0, "position_notional": 5.0, "limit_notional": 10.0},
            ["bad number", Position(TS_MS, "BTCUSDT", 5.0, 10.0)],
        ),
    ],
)
def test_extras_that_cant_be_read_dont_take_the_fill_with_them(
    extras: dict[str, Any], rest: list[object]
) -> None:
    assert comparable(parsed({**FILL, **extras})) == [A_FILL, *rest]


def test_ready_kpis_are_read_with_or_without_a_type() -> None:
    expected = [KpiSample(TS_MS, "BTCUSDT", {"edge_bps": 3.0, "risk_ratio": 0.2})]
    assert parsed(KPIS) == expected
    assert parsed({**KPIS, "type": "kpi"}) == expected
    assert parsed({**KPIS, "type": None}) == expected
    assert parse_fields(as_text(KPIS)) == expected


def test_ready_kpis_bring_notional_and_fills_where_known() -> None:
    expected = [
        KpiSample(TS_MS, "BTCUSDT", {"edge_bps": 3.0, "risk_ratio": 0.2}, notional=5.5, fills=3)
    ]
    assert parsed({**KPIS, "notional": 5.5, "fills": 3}) == expected
    assert parse_fields({**as_text(KPIS), "notional": "5.5", "fills": "3"}) == expected
    bad = parsed({**KPIS, "notional": -1, "fills": 2.5})
    assert comparable(bad) == [
        KpiSample(TS_MS, "BTCUSDT", {"edge_bps": 3.0, "risk_ratio": 0.2}),
        "bad number",
        "bad number",
    ]


def test_a_null_kpi_is_absent_and_a_message_of_nulls_says_so() -> None:
    assert kpis_of(parsed({**KPIS, "edge_bps": None})) == {"risk_ratio": 0.2}
    assert kpis_of(parsed({**KPIS, "edge_bps": None, "risk_ratio": None})) == {}
    assert kpis_of(parse_fields({**as_text(KPIS), "edge_bps": "", "risk_ratio": "null"})) == {}


@pytest.mark.parametrize(
    ("token", "defect"),
    [
        ("NaN", Defect.NAN),
        ('"nan"', Defect.NAN),
        ("Infinity", Defect.INFINITE),
        ("-Infinity", Defect.INFINITE),
        ('"-inf"', Defect.INFINITE),
        ("1e999", Defect.INFINITE),
        ("9" * 5000, Defect.INFINITE),
        ('"2.5"', Defect.MALFORMED),
        ('"high"', Defect.MALFORMED),
        ("true", Defect.MALFORMED),
        ("[2.5]", Defect.MALFORMED),
        ('{"value": 2.5}', Defect.MALFORMED),
    ],
)
def test_a_kpi_that_is_no_number_is_a_defect_of_its_own(token: str, defect: Defect) -> None:
    message = f'{{"ts": {TS_MS}, "symbol": "BTCUSDT", "edge_bps": {token}, "risk_ratio": 0.2}}'
    assert kpis_of(parse_message(message)) == {"edge_bps": defect, "risk_ratio": 0.2}


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("2.5", 2.5),
        ("-3", -3.0),
        ("nan", Defect.NAN),
        ("inf", Defect.INFINITE),
        ("-Infinity", Defect.INFINITE),
        ("1e999", Defect.INFINITE),
        ("None", Defect.MALFORMED),
        ("1_000", Defect.MALFORMED),
        (" 2.5", Defect.MALFORMED),
        ("٢", Defect.MALFORMED),
    ],
)
def test_a_kpi_written_as_text_in_a_flat_map(text: str, reading: object) -> None:
    got = kpis_of(parse_fields({**as_text(KPIS), "edge_bps": text}))
    assert got == {"edge_bps": reading, "risk_ratio": 0.2}


@pytest.mark.parametrize(
    ("text", "maker"),
    [("true", True), ("True", True), ("1", True), ("false", False), ("0", False)],
)
def test_maker_written_as_text_in_a_flat_map(text: str, maker: bool) -> None:
    expected = [Fill(TS_MS, "BTCUSDT", 1, 100.0, 2.0, maker, 100.5)]
    assert parse_fields({**as_text(FILL), "maker": text}) == expected
    # With a number in another form than the typed way takes, the lenient way has to agree.
    assert parse_fields({**as_text(FILL), "maker": text, "latency_ms": ""}) == expected


def test_several_messages_in_one_keep_their_order() -> None:
    assert comparable(parsed([FILL, KPIS, 5, LATENCY])) == [
        A_FILL,
        KpiSample(TS_MS, "BTCUSDT", {"edge_bps": 3.0, "risk_ratio": 0.2}),
        "not an object",
        Latency(TS_MS, "BTCUSDT", 12.5),
    ]
    assert parsed([FILL, {**FILL, "ts": -1}, POSITION])[2] == parsed(POSITION)[0]
    assert parse_message(b"[]") == []


def test_unknown_fields_are_passed_over() -> None:
    message = {**FILL, "venue": {"name": "x", "deep": [[[1]]]}}
    assert parsed(message) == [A_FILL]
    assert parsed({**KPIS, "comment": [1, {"a": None}]}) == parsed(KPIS)


@pytest.mark.parametrize("raw", [b"\xff\xfe", b'{"ts": 1', b"", b"{}}", b"nope", "\ud800", "﻿{}"])
def test_what_is_no_json_is_named_so(raw: bytes | str) -> None:
    assert only_kind(parse_message(raw)) == "not JSON"


@pytest.mark.parametrize("raw", ["5", '"text"', "null", "true", "NaN", "[7]", "[[]]"])
def test_what_is_no_object_is_named_so(raw: str) -> None:
    assert only_kind(parse_message(raw)) == "not an object"


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({**FILL, "type": "trade"}, "unknown type"),
        ({**FILL, "type": 5}, "unknown type"),
        ({**FILL, "type": ["fill"]}, "unknown type"),
        (without(FILL, "type"), "no KPI"),
        (without(without(KPIS, "edge_bps"), "risk_ratio"), "no KPI"),
        (without(FILL, "symbol"), "no symbol"),
        ({**FILL, "symbol": ""}, "no symbol"),
        ({**KPIS, "symbol": None}, "no symbol"),
        ({**FILL, "symbol": 5}, "bad symbol"),
        ({**KPIS, "symbol": ["BTCUSDT"]}, "bad symbol"),
        (without(FILL, "ts"), "no ts"),
        ({**KPIS, "ts": None}, "no ts"),
        ({**KPIS, "ts": ""}, "no ts"),
        ({**FILL, "ts": "yesterday"}, "bad ts"),
        ({**FILL, "ts": True}, "bad ts"),
        ({**KPIS, "ts": {"s": 1}}, "bad ts"),
        (without(FILL, "price"), "no field"),
        (without(FILL, "side"), "no field"),
        ({**FILL, "maker": None}, "no field"),
        (without(LATENCY, "ms"), "no field"),
        (without(POSITION, "limit"), "no field"),
        ({**FILL, "price": 0}, "bad number"),
        ({**FILL, "price": "100"}, "bad number"),
        ({**FILL, "quantity": -2.0}, "bad number"),
        ({**FILL, "mid": math.nan}, "bad number"),
        ({**FILL, "mid": math.inf}, "bad number"),
        ({**FILL, "price": True}, "bad number"),
        ({**FILL, "price": 1e308, "quantity": 1e308}, "bad number"),
        ({**FILL, "price": 1e-308, "quantity": 1e-308}, "bad number"),
        ({**FILL, "mid": 1e308, "quantity": 1e10}, "bad number"),
        ({**LATENCY, "ms": -0.1}, "bad number"),
        ({**LATENCY, "ms": math.inf}, "bad number"),
        ({**POSITION, "notional": math.nan}, "bad number"),
        ({**POSITION, "limit": 0}, "bad number"),
        ({**POSITION, "limit": -5}, "bad number"),
        ({**FILL, "side": "BUY"}, "bad side"),
        ({**FILL, "side": 1}, "bad side"),
        ({**FILL, "maker": 1}, "bad maker"),
        ({**FILL, "maker": "true"}, "bad maker"),
    ],
)
def test_every_kind_of_malformed_message_is_named(message: dict[str, Any], kind: str) -> None:
    assert only_kind(parsed(message)) == kind


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "no symbol"),
        ({"symbol": "BTCUSDT", "edge_bps": "1"}, "no ts"),
        ({**as_text(FILL), "price": "nan"}, "bad number"),
        ({**as_text(FILL), "price": "inf"}, "bad number"),
        ({**as_text(FILL), "price": "a lot"}, "bad number"),
        ({**as_text(FILL), "price": ""}, "no field"),
        ({**as_text(FILL), "maker": "yes"}, "bad maker"),
        ({**as_text(FILL), "side": "long"}, "bad side"),
        ({**as_text(FILL), "ts": "null"}, "bad ts"),
        ({**as_text(LATENCY), "ms": "-1"}, "bad number"),
        ({**as_text(POSITION), "limit": "0"}, "bad number"),
        ({**as_text(KPIS), "type": "fills"}, "unknown type"),
    ],
)
def test_a_flat_map_that_is_malformed_is_named_likewise(fields: dict[str, str], kind: str) -> None:
    assert only_kind(parse_fields(fields)) == kind


def test_a_message_above_a_mebibyte_isnt_looked_into() -> None:
    fill = json.dumps(FILL)
    assert parse_message(fill + " " * (MESSAGE_BYTES_MAX - len(fill))) == [A_FILL]
    assert only_kind(parse_message(fill + " " * MESSAGE_BYTES_MAX)) == "too large"


def test_an_array_above_ten_thousand_entries_is_too_large() -> None:
    latency = '{"type":"latency","ts":1767621600123,"symbol":"BTCUSDT","ms":1}'
    many = ",".join([latency] * MESSAGE_ENTRIES_MAX)
    assert len(parse_message(f"[{many}]")) == MESSAGE_ENTRIES_MAX
    assert only_kind(parse_message(f"[{many},{latency}]")) == "too large"
    assert only_kind(parse_message("[" + "0," * 400_000 + "0]")) == "too large"


@pytest.mark.parametrize(
    "raw",
    [
        "[" * 500_000,
        "[" * 500_000 + "]" * 500_000,
        '{"a":' * 100_000,
        '{"type":"fill","x":' + "[" * 500_000,
        '{"ts":1767621600123,"symbol":' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_a_nesting_bomb_is_one_malformed_message(raw: str) -> None:
    assert only_kind(parse_message(raw)) == "too deep"


def test_details_stay_short_and_printable_whatever_arrived() -> None:
    for message in (
        {**FILL, "side": "x" * 100_000},
        {**FILL, "ts": "\ud800" * 500},
        {**FILL, "type": "\x00" * 1000},
        {**FILL, "symbol": [["deep"] * 1000] * 100},
    ):
        (malformed,) = parsed(message)
        assert isinstance(malformed, MalformedSample)
        assert len(malformed.detail) < 500
        malformed.detail.encode()
        assert str(malformed) == f"{malformed.kind}: {malformed.detail}"
        assert malformed.__traceback__ is None


@pytest.mark.parametrize(
    ("value", "ts_ms"),
    [
        (1_767_621_600_123, 1_767_621_600_123),
        (1_767_621_600_123.9, 1_767_621_600_123),
        (1_767_621_600, 1_767_621_600_000),
        (1_767_621_600.123, 1_767_621_600_123),
        (1_767_621_600.9996, 1_767_621_600_999),
        (99_999_999_999, 99_999_999_999_000),
        (100_000_000_000, 100_000_000_000),
        (0, 0),
        (0.25, 250),
        ("1767621600123", 1_767_621_600_123),
        ("1767621600", 1_767_621_600_000),
        ("1767621600.5", 1_767_621_600_500),
        ("1.7676216e9", 1_767_621_600_000),
        ("2026-01-05T14:00:00Z", 1_767_621_600_000),
        ("2026-01-05t14:00:00.5z", 1_767_621_600_500),
        ("2026-01-05 14:00:00", 1_767_621_600_000),
        ("2026-01-05T15:00:00.123456+01:00", 1_767_621_600_123),
        ("2026-01-05T14:00:00.123999999Z", 1_767_621_600_123),
    ],
)
def test_a_ts_is_seconds_milliseconds_or_iso_text(value: float | str, ts_ms: int) -> None:
    assert parse_ts(value) == ts_ms


@pytest.mark.parametrize(
    "value",
    [
        -1, -0.5, True, math.nan, math.inf, 100_000_000_000_000, 1_767_621_600_123_456,
        1_767_621_600_123_456_789.0, 10**400, "", "now", "-5", "nan", "inf", "1_767_621_600", "١٢",
        "1767621600123456", "1969-12-31T23:59:59Z", "9999-12-31T00:00:00Z",
        "0001-01-01T00:00:00+14:00", "2026-13-05T14:00:00Z", "1" * 5000, None, [1],
    ],
)  # fmt: skip
def test_any_other_ts_is_refused(value: Any) -> None:
    with pytest.raises(MalformedSample) as caught:
        parse_ts(value)
    assert caught.value.kind == "bad ts"


NUMBER_NAMES = (
    "price", "quantity", "mid", "ms", "notional", "limit", "latency_ms", "position_notional",
    "limit_notional", "edge_bps", "risk_ratio", "fills",
)  # fmt: skip
DOCS = Path(__file__).parents[2] / "docs" / "feeds.md"


def test_the_documented_examples_are_read_and_every_kind_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    examples = "".join(re.findall(r"```json\n(.*?)```", text, re.DOTALL))
    objects = re.findall(r"\{.*?\}", examples, re.DOTALL)
    samples = [sample for one in objects for sample in parse_message(one)]
    kinds = [KpiSample, Fill, Latency, Position, Latency, Position]
    assert [type(sample) for sample in samples] == kinds
    assert [kind for kind in MALFORMED_KINDS if f"`{kind}`" not in text] == []


ODD: st.SearchStrategy[Any] = st.sampled_from([None, "", "5", True, 10**400, 1e-320, -3, 7, [], {}])


def messages(other: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Messages of every type, some of their fields out of range or something else."""
    numbers = st.one_of(st.floats(), st.floats(1e-3, 1e6), other)
    times = st.one_of(st.sampled_from([float(TS_MS), "2026-01-05T14:00:00Z", "x"]), st.floats())
    changes = st.fixed_dictionaries(
        {},
        optional={
            "type": st.one_of(st.sampled_from(["fill", "fill", "latency", "position", "x"]), other),
            "ts": st.one_of(times, other),
            "symbol": st.one_of(st.sampled_from(["BTCUSDT", "null"]), other),
            "side": st.one_of(st.sampled_from(["buy", "sell", "both"]), other),
            "maker": st.one_of(st.booleans(), other),
            **dict.fromkeys(NUMBER_NAMES, numbers),
        },
    )
    bases = st.sampled_from([FILL, LATENCY, POSITION, KPIS, {}])
    return st.builds(lambda base, change: {**base, **change}, bases, changes)


@given(messages(ODD))
@example(FILL)
@example({**FILL, "ts": 9_000_000_001})
@example({**FILL, "ts": ""})
def test_the_typed_and_the_lenient_way_agree(message: dict[str, Any]) -> None:
    text = json.dumps(message)
    lenient = samples_of_object(json.loads(text, parse_int=float))
    assert repr(comparable(parse_message(text))) == repr(comparable(lenient))


@given(messages(st.nothing()))
@example(FILL)
def test_a_flat_map_says_what_the_same_message_in_json_says(message: dict[str, Any]) -> None:
    got = comparable(parse_fields(as_text(message)))
    assert repr(got) == repr(comparable(parsed(message)))


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
def test_nothing_that_arrives_raises(data: bytes | str) -> None:
    for sample in parse_message(data):
        assert isinstance(sample, MalformedSample)


@given(st.dictionaries(st.sampled_from([*FILL, *KPIS, "ms", "x"]), st.text(max_size=20)))
def test_no_flat_map_raises(fields: dict[str, str]) -> None:
    assert parse_fields(fields)
