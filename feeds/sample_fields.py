"""
The fields of one message, read leniently: any that is odd is found and named.

This is the slow way through, for ready KPIs and for all raw messages that aren't as documented.

Source: DESIGN.md section 5; docs/feeds.md.
"""

import math
from typing import Any, Final

from domain.kpis import KPI_BY_NAME, Defect, Reading
from feeds.kpi_rows import fills_of, notional_of, reading_of_json
from feeds.sample_times import parse_ts
from feeds.sample_types import *

def _parse_object(fields: Any) -> Parsed:
    """Return the samples of one message, its values as JSON gives them."""
    parsed: Parsed = []
    try:
        if not isinstance(fields, dict):
            raise MalformedSample("not an object", f"expected an object, was {_shown(fields)}")
        kind = fields.get("type")
        add = _KINDS.get(kind if isinstance(kind, str | None) else "")
        if add is None:
            raise MalformedSample(
                "unknown type", f"expected kpi, fill, latency or position, was {_shown(kind)}"
            )
        add(fields, _symbol(fields), _ts(fields), parsed)
    except MalformedSample as malformed:
        parsed.append(_detached(malformed))
    return parsed


def _add_kpis(fields: dict[str, Any], symbol: str, ts_ms: int, parsed: Parsed) -> None:
    names = [name for name in KPI_BY_NAME if name in fields]
    if not names:
        raise MalformedSample("no KPI", f"expected one of {', '.join(KPI_BY_NAME)}, was none")
    readings = {name: _reading(fields[name]) for name in names}
    known: dict[str, Any] = {"notional": None, "fills": None}
    malformed: Parsed = []
    for name, parse in (("notional", notional_of), ("fills", fills_of)):
        try:
            known[name] = parse(_reading(fields.get(name)))
        except ValueError as error:
            detail = f"expected {error} for {name}, was {_shown(fields[name])}"
            malformed.append(MalformedSample("bad number", detail))
    kpis = {name: reading for name, reading in readings.items() if reading is not None}
    parsed.append(KpiSample(ts_ms, symbol, kpis, **known))
    parsed.extend(malformed)


def _add_fill(fields: dict[str, Any], symbol: str, ts_ms: int, parsed: Parsed) -> None:
    side, maker = _present(fields, "side"), _present(fields, "maker")
    if not isinstance(side, str) or side not in _SIDES:
        raise MalformedSample("bad side", f"expected buy or sell, was {_shown(side)}")
    if not isinstance(maker, bool):
        raise MalformedSample("bad maker", f"expected true or false, was {_shown(maker)}")
    wire = _WireFill(
        ts=ts_ms,
        symbol=symbol,
        side="buy" if side == "buy" else "sell",
        price=_positive(fields, "price"),
        quantity=_positive(fields, "quantity"),
        maker=maker,
        mid=_positive(fields, "mid"),
    )
    parsed.append(_fill(wire, ts_ms))
    try:
        if not _is_absent(fields.get("latency_ms")):
            parsed.append(Latency(ts_ms, symbol, _not_negative(fields, "latency_ms")))
    except MalformedSample as malformed:
        parsed.append(_detached(malformed))
    position = ("position_notional", "limit_notional")
    if any(not _is_absent(fields.get(name)) for name in position):
        parsed.append(
            Position(ts_ms, symbol, _number(fields, position[0]), _positive(fields, position[1]))
        )


def _add_latency(fields: dict[str, Any], symbol: str, ts_ms: int, parsed: Parsed) -> None:
    parsed.append(Latency(ts_ms, symbol, _not_negative(fields, "ms")))


def _add_position(fields: dict[str, Any], symbol: str, ts_ms: int, parsed: Parsed) -> None:
    parsed.append(
        Position(ts_ms, symbol, _number(fields, "notional"), _positive(fields, "limit"))
    )


_KINDS: Final = {
    None: _add_kpis,
    "kpi": _add_kpis,
    "fill": _add_fill,
    "latency": _add_latency,
    "position": _add_position,
}


def _symbol(fields: dict[str, Any]) -> str:
    symbol = fields.get("symbol")
    if _is_absent(symbol):
        raise MalformedSample("no symbol", "expected a symbol, was nothing")
    if not isinstance(symbol, str):
        raise MalformedSample("bad symbol", f"expected text, was {_shown(symbol)}")
    return symbol


def _ts(fields: dict[str, Any]) -> int:
    ts = fields.get("ts")
    if _is_absent(ts):
        raise MalformedSample("no ts", "expected a ts, was nothing")
    return parse_ts(ts)


def _is_absent(value: Any) -> bool:
    return value is None or value == ""


def _present(fields: dict[str, Any], name: str) -> Any:
    value = fields.get(name)
    if _is_absent(value):
        raise MalformedSample("no field", f"expected {name}, was nothing")
    return value


def _number(fields: dict[str, Any], name: str, expected: str = "a finite number") -> float:
    value = _present(fields, name)
    if not isinstance(value, float) or not math.isfinite(value):
        raise MalformedSample("bad number", f"expected {expected} for {name}, was {_shown(value)}")
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
    """Return the reading of a JSON value; what is no number is a defect of this one KPI."""
    try:
        return reading_of_json(value)
    except ValueError:
        return Defect.MALFORMED


_NUMBERS: Final = frozenset(KPI_BY_NAME) | {
    "notional", "fills", "price", "quantity", "mid", "ms", "limit", "latency_ms",
    "position_notional", "limit_notional",
}  # fmt: skip
_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}


def _untexted(name: str, text: str) -> Any:
    """Return a field's text as the JSON value that it stands for; what stands for none stays."""
    if text == "null":
        return None
    if name == "maker":
        return _BOOLEANS.get(text.lower(), text)
    # Python reads 1_000, padding and other scripts' digits as numbers; whoever writes them doesn't.
    if name in _NUMBERS and text.isascii() and "_" not in text and text.strip() == text:
        try:
            return float(text)
        except ValueError:
            return text
    return text
