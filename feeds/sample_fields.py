"""
The fields of one message, read leniently: whatever is odd about them is found and named.

This is the slow way through, for ready KPIs and for raw messages that aren't as documented.

Source: DESIGN.md section 5; docs/feeds.md.
"""

import math
from typing import Any, Final

from domain.kpis import KPI_BY_NAME, Defect, Reading
from feeds.kpi_rows import fills_of, notional_of, reading_of_json
from feeds.sample_times import parse_ts
from feeds.sample_types import (
    SIDES,
    Fill,
    KpiSample,
    Latency,
    MalformedSample,
    Parsed,
    Position,
    shown_briefly,
)


def samples_of_object(fields: Any) -> Parsed:
    """Return the samples of one message, its values as JSON gives them, numbers as floats."""
    parsed: Parsed = []
    try:
        _add_samples(fields, parsed)
    except MalformedSample as malformed:
        parsed.append(malformed.detached())
    return parsed


def value_of_text(name: str, text: str) -> Any:
    """Return a field's text as the JSON value it stands for; text that stands for none stays."""
    if name != "maker" and name not in _NUMBERS:
        return text
    if text == "null":
        return None
    if name == "maker":
        return _BOOLEANS.get(text.lower(), text)
    # Python reads 1_000, padding and other scripts' digits as numbers; whoever writes them doesn't.
    if text.isascii() and "_" not in text and text.strip() == text:
        try:
            return float(text)
        except ValueError:
            return text
    return text


def check_notional(price: float, quantity: float, mid: float) -> None:
    """
    Check that a fill's notional is finite and above 0, which two such factors don't make sure of.

    Raises:
        MalformedSample: "bad number".
    """
    if not (0 < price * quantity < math.inf and mid * quantity < math.inf):
        raise MalformedSample(
            "bad number", f"expected a finite notional above 0, was {price} x {quantity}"
        )


def _add_samples(fields: Any, parsed: Parsed) -> None:
    if not isinstance(fields, dict):
        raise MalformedSample("not an object", f"expected an object, was {shown_briefly(fields)}")
    kind = fields.get("type")
    add = _KINDS.get(kind) if kind is None or isinstance(kind, str) else None
    if add is None:
        raise MalformedSample(
            "unknown type", f"expected kpi, fill, latency or position, was {shown_briefly(kind)}"
        )
    add(fields, _symbol(fields), _ts(fields), parsed)


def _add_kpis(fields: dict[str, Any], symbol: str, ts_ms: int, parsed: Parsed) -> None:
    readings = {name: _reading(fields[name]) for name in KPI_BY_NAME if name in fields}
    if not readings:
        raise MalformedSample("no KPI", f"expected one of {', '.join(KPI_BY_NAME)}, was none")
    known: dict[str, Any] = {"notional": None, "fills": None}
    malformed: Parsed = []
    for name, parse in (("notional", notional_of), ("fills", fills_of)):
        try:
            known[name] = parse(_reading(fields.get(name)))
        except ValueError as error:
            detail = f"expected {error} for {name}, was {shown_briefly(fields[name])}"
            malformed.append(MalformedSample("bad number", detail))
    kpis = {name: reading for name, reading in readings.items() if reading is not None}
    parsed.append(KpiSample(ts_ms, symbol, kpis, **known))
    parsed.extend(malformed)


def _add_fill(fields: dict[str, Any], symbol: str, ts_ms: int, parsed: Parsed) -> None:
    side, maker = _present(fields, "side"), _present(fields, "maker")
    if not isinstance(side, str) or side not in SIDES:
        raise MalformedSample("bad side", f"expected buy or sell, was {shown_briefly(side)}")
    if not isinstance(maker, bool):
        raise MalformedSample("bad maker", f"expected true or false, was {shown_briefly(maker)}")
    price, quantity, mid = (_positive(fields, name) for name in ("price", "quantity", "mid"))
    check_notional(price, quantity, mid)
    parsed.append(Fill(ts_ms, symbol, SIDES[side], price, quantity, maker, mid))
    try:
        if not _is_absent(fields, "latency_ms"):
            parsed.append(Latency(ts_ms, symbol, _not_negative(fields, "latency_ms")))
    except MalformedSample as malformed:
        parsed.append(malformed.detached())
    if not (_is_absent(fields, "position_notional") and _is_absent(fields, "limit_notional")):
        notional = _number(fields, "position_notional")
        parsed.append(Position(ts_ms, symbol, notional, _positive(fields, "limit_notional")))


def _add_latency(fields: dict[str, Any], symbol: str, ts_ms: int, parsed: Parsed) -> None:
    parsed.append(Latency(ts_ms, symbol, _not_negative(fields, "ms")))


def _add_position(fields: dict[str, Any], symbol: str, ts_ms: int, parsed: Parsed) -> None:
    parsed.append(Position(ts_ms, symbol, _number(fields, "notional"), _positive(fields, "limit")))


_KINDS: Final = {
    None: _add_kpis,
    "kpi": _add_kpis,
    "fill": _add_fill,
    "latency": _add_latency,
    "position": _add_position,
}
_NUMBERS: Final = frozenset(KPI_BY_NAME) | {
    "notional", "fills", "price", "quantity", "mid", "ms", "limit", "latency_ms",
    "position_notional", "limit_notional",
}  # fmt: skip
_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}


def _symbol(fields: dict[str, Any]) -> str:
    if _is_absent(fields, "symbol"):
        raise MalformedSample("no symbol", "expected a symbol, was nothing")
    symbol = fields["symbol"]
    if not isinstance(symbol, str):
        raise MalformedSample("bad symbol", f"expected text, was {shown_briefly(symbol)}")
    return symbol


def _ts(fields: dict[str, Any]) -> int:
    if _is_absent(fields, "ts"):
        raise MalformedSample("no ts", "expected a ts, was nothing")
    return parse_ts(fields["ts"])


def _is_absent(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name)
    return value is None or value == ""


def _present(fields: dict[str, Any], name: str) -> Any:
    if _is_absent(fields, name):
        raise MalformedSample("no field", f"expected {name}, was nothing")
    return fields[name]


def _number(fields: dict[str, Any], name: str, expected: str = "a finite number") -> float:
    value = _present(fields, name)
    if not isinstance(value, float) or not math.isfinite(value):
        raise MalformedSample(
            "bad number", f"expected {expected} for {name}, was {shown_briefly(value)}"
        )
    return value


def _positive(fields: dict[str, Any], name: str) -> float:
    expected = "a finite number above 0"
    value = _number(fields, name, expected)
    if value <= 0:
        raise MalformedSample("bad number", f"expected {expected} for {name}, was {value}")
    return value


def _not_negative(fields: dict[str, Any], name: str) -> float:
    expected = "a finite number of at least 0"
    value = _number(fields, name, expected)
    if value < 0:
        raise MalformedSample("bad number", f"expected {expected} for {name}, was {value}")
    return value


def _reading(value: Any) -> Reading | None:
    """Return the reading of a JSON value; what is no number is a defect of this KPI alone."""
    try:
        return reading_of_json(value)
    except ValueError:
        return Defect.MALFORMED
