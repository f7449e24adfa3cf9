"""
Samples: what a message of a live feed says, told apart from what is none.

A message is ready KPIs (`KpiSample`) or raw (`Fill`, `Latency`, `Position`). Parsing never raises
and never guesses: what can't be read is returned as a `MalformedSample` among the samples, so that
it is counted and named, and never passes for data. Fields and units: docs/feeds.md.

There are two ways through. Typed decoders take the raw messages that are as documented, which is
nearly all that ever comes; all else goes the lenient way, which finds out what exactly is wrong.
Both give the same samples.

Source: DESIGN.md section 5.
"""

import json
import math
import sys
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec

MESSAGE_BYTES_MAX: Final = 1 << 20
MESSAGE_ENTRIES_MAX: Final = 10_000

_FLOAT_MAX: Final = sys.float_info.max
# Nothing is equal to NaN or within bounds of it, so these let through finite numbers only.
_Positive = Annotated[float, msgspec.Meta(gt=0, le=_FLOAT_MAX)]
_NotNegative = Annotated[float, msgspec.Meta(ge=0, le=_FLOAT_MAX)]
_Finite = Annotated[float, msgspec.Meta(ge=-_FLOAT_MAX, le=_FLOAT_MAX)]
_Symbol = Annotated[str, msgspec.Meta(min_length=1)]

_SIDES: Final = {"buy": 1, "sell": -1}


class _Wire(msgspec.Struct, frozen=True, gc=False, tag_field="type"):
    ts: int | float | str
    symbol: _Symbol


class _WireFill(_Wire, frozen=True, gc=False, tag="fill"):
    side: Literal["buy", "sell"]
    price: _Positive
    quantity: _Positive
    maker: bool
    mid: _Positive
    latency_ms: _NotNegative | None = None
    position_notional: _Finite | None = None
    limit_notional: _Positive | None = None


class _WireLatency(_Wire, frozen=True, gc=False, tag="latency"):
    ms: _NotNegative


class _WirePosition(_Wire, frozen=True, gc=False, tag="position"):
    notional: _Finite
    limit: _Positive


_AnyWire = _WireFill | _WireLatency | _WirePosition
_DECODER: Final = msgspec.json.Decoder[_AnyWire | list[_AnyWire]](
    _AnyWire | Annotated[list[_AnyWire], msgspec.Meta(max_length=MESSAGE_ENTRIES_MAX)]
)


def _add_wire(wire: _AnyWire, parsed: Parsed) -> None:
    """Add the samples of a message whose fields are right, but for its time and what they make."""
    try:
        ts_ms = parse_ts(wire.ts)
        if type(wire) is _WireFill:
            parsed.append(_fill(wire, ts_ms))
            if wire.latency_ms is not None:
                parsed.append(Latency(ts_ms, wire.symbol, wire.latency_ms))
            if wire.position_notional is not None or wire.limit_notional is not None:
                parsed.append(_position_after(wire, ts_ms))
        elif type(wire) is _WireLatency:
            parsed.append(Latency(ts_ms, wire.symbol, wire.ms))
        elif type(wire) is _WirePosition:
            parsed.append(Position(ts_ms, wire.symbol, wire.notional, wire.limit))
    except MalformedSample as malformed:
        parsed.append(_detached(malformed))


def _fill(wire: _WireFill, ts_ms: int) -> Fill:
    # Both are finite, but their product needn't be, and what it is divided by must not be 0.
    if not (0 < wire.price * wire.quantity < math.inf and wire.mid * wire.quantity < math.inf):
        raise MalformedSample(
            "bad number",
            f"expected a finite notional above 0, was {wire.price} x {wire.quantity}",
        )
    side = _SIDES[wire.side]
    return Fill(ts_ms, wire.symbol, side, wire.price, wire.quantity, wire.maker, wire.mid)


def _position_after(wire: _WireFill, ts_ms: int) -> Position:
    if wire.position_notional is None or wire.limit_notional is None:
        missing = "limit" if wire.limit_notional is None else "position"
        raise MalformedSample("no field", f"expected {missing}_notional, was nothing")
    return Position(ts_ms, wire.symbol, wire.position_notional, wire.limit_notional)


def parse_message(data: bytes | str) -> Parsed:
    """
    Return what a JSON message holds: an object, or an array of at most 10,000 of them.

    A fill may come with its latency and the position after it, and so give three samples. Extras
    that can't be read are malformed on their own and don't take the fill with them. An empty array
    holds nothing. Never raises; what is over 1 MiB isn't looked into.
    """
    if len(data) > MESSAGE_BYTES_MAX:
        return [_too_large(f"at most {MESSAGE_BYTES_MAX} bytes", len(data))]
    try:
        message = _DECODER.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _parse_leniently(data)
    parsed: Parsed = []
    if isinstance(message, list):
        for wire in message:
            _add_wire(wire, parsed)
    else:
        _add_wire(message, parsed)
    return parsed


def parse_fields(fields: Mapping[str, str]) -> Parsed:
    """
    Return what a flat map of text holds: a Redis hash, or an entry of a Redis stream.

    The fields are those of a JSON message. Numbers are written plainly or as `nan` and `inf`,
    `maker` as true, false, 1 or 0; an empty text or `null` is absent. Never raises.
    """
    if fields.get("type") == "fill":
        try:
            wire = msgspec.convert(fields, _WireFill, strict=False)
        except (msgspec.MsgspecError, ValueError):
            pass
        else:
            parsed: Parsed = []
            _add_wire(wire, parsed)
            return parsed
    return _parse_object({name: _untexted(name, text) for name, text in fields.items()})


def _parse_leniently(data: bytes | str) -> Parsed:
    """Return what any JSON text holds, NaN and infinity included."""
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        # As floats, whole numbers of any length are harmless.
        message = json.loads(text, parse_int=float)
    except RecursionError:
        return [MalformedSample("too deep", "expected a flat object, was a deeply nested one")]
    except ValueError as error:
        # The error's text is short, but it holds on to the whole message.
        return [MalformedSample("not JSON", f"expected JSON, was {_shown(str(error))}")]
    if not isinstance(message, list):
        return _parse_object(message)
    if len(message) > MESSAGE_ENTRIES_MAX:
        return [_too_large(f"at most {MESSAGE_ENTRIES_MAX} entries", len(message))]
    return [sample for entry in message for sample in _parse_object(entry)]


def _too_large(expected: str, size: int) -> MalformedSample:
    return MalformedSample("too large", f"expected {expected}, was {size}")


