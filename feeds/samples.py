"""
Messages of live feeds, read into samples.

A message is ready KPIs (`KpiSample`) or raw (`Fill`, `Latency`, `Position`). Reading never raises
and never guesses: what can't be read is returned as a `MalformedSample` among the samples, so that
it is counted and named, and never passes for data.

There are two ways through. Typed decoders take the raw messages that are as documented, which is
nearly all that ever comes; the lenient way of `feeds/sample_fields.py` takes the rest and finds out
what exactly is wrong. Both give the same samples.

Source: DESIGN.md section 5; docs/feeds.md.
"""

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec

from feeds.sample_fields import check_notional, samples_of_object, value_of_text
from feeds.sample_times import parse_ts
from feeds.sample_types import (
    MALFORMED_KINDS,
    SIDES,
    Fill,
    KpiSample,
    Latency,
    MalformedKind,
    MalformedSample,
    Parsed,
    Position,
    Sample,
    shown_briefly,
)

__all__ = [
    "MALFORMED_KINDS",
    "MESSAGE_BYTES_MAX",
    "MESSAGE_ENTRIES_MAX",
    "Fill",
    "KpiSample",
    "Latency",
    "MalformedKind",
    "MalformedSample",
    "Parsed",
    "Position",
    "Sample",
    "parse_fields",
    "parse_message",
    "parse_ts",
]

MESSAGE_BYTES_MAX: Final = 1 << 20
MESSAGE_ENTRIES_MAX: Final = 10_000

_FLOAT_MAX: Final = sys.float_info.max
# NaN and infinity are outside every bound, so that these let finite numbers through only.
_Positive = Annotated[float, msgspec.Meta(gt=0, le=_FLOAT_MAX)]
_NotNegative = Annotated[float, msgspec.Meta(ge=0, le=_FLOAT_MAX)]
_Finite = Annotated[float, msgspec.Meta(ge=-_FLOAT_MAX, le=_FLOAT_MAX)]
_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Time = int | float | _Text


class _FillMessage(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="fill"):
    ts: _Time
    symbol: _Text
    side: Literal["buy", "sell"]
    price: _Positive
    quantity: _Positive
    maker: bool
    mid: _Positive
    latency_ms: _NotNegative | None = None
    position_notional: _Finite | None = None
    limit_notional: _Positive | None = None


class _LatencyMessage(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="latency"):
    ts: _Time
    symbol: _Text
    ms: _NotNegative


class _PositionMessage(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="position"):
    ts: _Time
    symbol: _Text
    notional: _Finite
    limit: _Positive


_RawMessage = _FillMessage | _LatencyMessage | _PositionMessage
_RawMessages = Annotated[list[_RawMessage], msgspec.Meta(max_length=MESSAGE_ENTRIES_MAX)]
_DECODER: Final = msgspec.json.Decoder[_RawMessage | _RawMessages](_RawMessage | _RawMessages)


def parse_message(data: bytes | str) -> Parsed:
    """
    Return what a JSON message holds: an object, or an array of at most 10,000 of them.

    A fill may come with its latency and the position after it, and so give three samples. Where one
    of these can't be read, the fill itself stands. An empty array holds nothing. Never raises; what
    is over 1 MiB isn't looked into.
    """
    if len(data) > MESSAGE_BYTES_MAX:
        return [_too_large(f"at most {MESSAGE_BYTES_MAX} bytes", len(data))]
    try:
        message = _DECODER.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _parse_leniently(data)
    parsed: Parsed = []
    if isinstance(message, list):
        for entry in message:
            _add_samples(entry, parsed)
    else:
        _add_samples(message, parsed)
    return parsed


def parse_fields(fields: Mapping[str, str]) -> Parsed:
    """
    Return what a flat map of text holds: a Redis hash, or an entry of a Redis stream.

    The fields are those of one JSON message. Numbers are written plainly, or as `nan` and `inf`;
    `maker` is true, false, 1 or 0; an empty text, or `null` for a number, is absent. Never raises.
    """
    if fields.get("type") == "fill":
        try:
            message = msgspec.convert(fields, _FillMessage, strict=False)
        except (msgspec.MsgspecError, ValueError):
            pass  # The lenient way names what is wrong.
        else:
            parsed: Parsed = []
            _add_samples(message, parsed)
            return parsed
    return samples_of_object({name: value_of_text(name, text) for name, text in fields.items()})


def _add_samples(message: _RawMessage, parsed: Parsed) -> None:
    """Add the samples of a message whose fields are right one by one."""
    try:
        ts_ms = parse_ts(message.ts)
        if type(message) is _FillMessage:
            _add_fill(message, ts_ms, parsed)
        elif type(message) is _LatencyMessage:
            parsed.append(Latency(ts_ms, message.symbol, message.ms))
        elif type(message) is _PositionMessage:
            parsed.append(Position(ts_ms, message.symbol, message.notional, message.limit))
    except MalformedSample as malformed:
        parsed.append(malformed.detached())


def _add_fill(message: _FillMessage, ts_ms: int, parsed: Parsed) -> None:
    symbol, price, quantity, mid = message.symbol, message.price, message.quantity, message.mid
    check_notional(price, quantity, mid)
    side = SIDES[message.side]
    parsed.append(Fill(ts_ms, symbol, side, price, quantity, message.maker, mid))
    if message.latency_ms is not None:
        parsed.append(Latency(ts_ms, symbol, message.latency_ms))
    notional, limit = message.position_notional, message.limit_notional
    if notional is not None and limit is not None:
        parsed.append(Position(ts_ms, symbol, notional, limit))
    elif notional is not None or limit is not None:
        missing = "position_notional" if notional is None else "limit_notional"
        raise MalformedSample("no field", f"expected {missing}, was nothing")


def _parse_leniently(data: bytes | str) -> Parsed:
    """Return what any JSON text holds, the tokens NaN and Infinity included."""
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        # As floats, whole numbers of any length are harmless.
        message = json.loads(text, parse_int=float)
    except RecursionError:
        return [MalformedSample("too deep", "expected a flat object, was a deeply nested one")]
    except ValueError as error:
        # The error itself would keep the whole message alive.
        return [MalformedSample("not JSON", f"expected JSON, was {shown_briefly(str(error))}")]
    if not isinstance(message, list):
        return samples_of_object(message)
    if len(message) > MESSAGE_ENTRIES_MAX:
        return [_too_large(f"at most {MESSAGE_ENTRIES_MAX} entries", len(message))]
    return [sample for entry in message for sample in samples_of_object(entry)]


def _too_large(expected: str, size: int) -> MalformedSample:
    return MalformedSample("too large", f"expected {expected}, was {size}")
