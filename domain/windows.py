"""
Windows and symbols: how they are named, aligned and counted.

All times are integer milliseconds since the epoch, UTC. A window is known by its start; windows
tumble and are aligned to the epoch. Source: DESIGN.md section 1, Windows.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import isfinite, isnan
from typing import Final

import msgspec

from domain.errors import BadInput
from domain.kpis import KPIS, Defect, Reading

SYMBOL_PATTERN: Final = re.compile(r"[A-Z0-9][A-Z0-9._-]{1,31}")
SYMBOLS_MAX: Final = 500
INTERVAL_MS_MAX: Final = 86_400_000
TIME_MS_MAX: Final = 253_000_000_000_000
"""A time of the year 9987: what lies beyond it is a mistaken unit."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST: Final = datetime(1, 1, 1, tzinfo=UTC) - _EPOCH
_LAST: Final = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC) - _EPOCH


class SymbolReadings(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    What arrived for one symbol in one window.

    Attributes:
        kpis: a reading per KPI that arrived; a KPI that isn't here is absent.
        notional: traded notional in the window, quote currency, where known.
        fills: number of fills in the window, where known.
    """

    kpis: dict[str, Reading] = {}
    notional: float | None = None
    fills: int | None = None


def without_unwritable(readings: SymbolReadings) -> SymbolReadings:
    """Return the readings with what no event can hold, NaN and infinities, named as defects."""
    notional = readings.notional
    is_known = notional is not None and isfinite(notional)
    if (is_known or notional is None) and all(map(_is_writable, readings.kpis.values())):
        return readings
    kpis = {name: _writable(reading) for name, reading in readings.kpis.items()}
    return SymbolReadings(kpis, notional if is_known else None, readings.fills)


def _is_writable(reading: Reading) -> bool:
    return isinstance(reading, Defect) or isfinite(reading)


def _writable(reading: Reading) -> Reading:
    if isinstance(reading, Defect) or isfinite(reading):
        return reading
    return Defect.NAN if isnan(reading) else Defect.INFINITE


NOTHING: Final = SymbolReadings()
"""A symbol that nothing arrived for."""


class RiskFill(msgspec.Struct, frozen=True):
    """A fill that added risk; notional in quote currency."""

    ts_ms: int
    notional: float


class WindowReadings(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    What a feed delivered for one window.

    Attributes:
        start_ms: the window's start.
        symbols: readings by symbol; a symbol that isn't here had nothing.
        feed_position: up to where a durable feed was read, as that feed writes it.
        feed_counts: what the feed counted since its last window: `late`, `malformed`, ...
        risk_fills: by symbol, the window's last fill that added risk, where fills are known.
    """

    start_ms: int
    symbols: dict[str, SymbolReadings] = {}
    feed_position: str | None = None
    feed_counts: dict[str, int] = {}
    risk_fills: dict[str, RiskFill] = {}


def content_hash(start_ms: int, symbols: Mapping[str, SymbolReadings]) -> str:
    """
    Return 32 hex digits that name a window's content, whatever order it arrived in.

    Two windows have the same hash if they have the same start and, for every symbol that anything
    arrived for, the same readings, notional and fills.
    """
    content = [
        (
            symbol,
            [(kpi.name, got.kpis[kpi.name]) for kpi in KPIS if kpi.name in got.kpis],
            got.notional,
            got.fills,
        )
        for symbol, got in sorted(symbols.items())
        if got != NOTHING
    ]
    encoded = msgspec.json.encode((start_ms, content))
    return hashlib.blake2b(encoded, digest_size=16).hexdigest()


def check_symbols(symbols: Iterable[str], *, source: str) -> tuple[str, ...]:
    """
    Return the symbols as given, each well formed and none twice.

    Raises:
        BadInput: naming the source and the symbol.
    """
    seen: dict[str, None] = {}
    for symbol in symbols:
        if not SYMBOL_PATTERN.fullmatch(symbol):
            raise BadInput(
                f"{source}: malformed symbol {symbol!r}: expected 2 to 32 of A-Z 0-9 . _ -, "
                "the first a letter or a digit"
            )
        if symbol in seen:
            raise BadInput(f"{source}: symbol {symbol} is there twice; name it once")
        seen[symbol] = None
    if not seen:
        raise BadInput(f"{source}: expected at least one symbol, was none")
    if len(seen) > SYMBOLS_MAX:
        raise BadInput(f"{source}: expected at most {SYMBOLS_MAX} symbols, was {len(seen)}")
    return tuple(seen)


def check_interval(interval_ms: int, *, source: str) -> int:
    """
    Return the interval if it is from 1 ms to a day.

    Raises:
        BadInput: naming the source.
    """
    if not 1 <= interval_ms <= INTERVAL_MS_MAX:
        raise BadInput(
            f"{source}: expected an interval from 0.001 to {INTERVAL_MS_MAX // 1000} seconds, "
            f"was {interval_ms / 1000:g}"
        )
    return interval_ms


@lru_cache(maxsize=256)
def format_time(time_ms: int) -> str:
    """Return ISO text in UTC to the second, or to the millisecond where there is a fraction."""
    time = _EPOCH + timedelta(milliseconds=time_ms)
    precision = "milliseconds" if time_ms % 1000 else "seconds"
    return time.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def format_minute(time_ms: int) -> str:
    """Return ISO text in UTC as reasons show it: to the minute, if it is a whole one."""
    return format_time(time_ms) if time_ms % 60_000 else format_time(time_ms)[:-4] + "Z"


def parse_time(text: str) -> int:
    """
    Return the milliseconds of an ISO 8601 time; text without an offset is UTC.

    Raises:
        ValueError: if the text is no ISO time, or has a fraction finer than a millisecond.
    """
    time = datetime.fromisoformat(text)
    elapsed = (time.replace(tzinfo=UTC) if time.tzinfo is None else time) - _EPOCH
    if not _FIRST <= elapsed <= _LAST:
        raise ValueError(f"expected a time of the years 1 to 9999 in UTC, was {text!r}")
    if elapsed.microseconds % 1000:
        raise ValueError(f"expected whole milliseconds, was {text!r}")
    return (elapsed.days * 86_400 + elapsed.seconds) * 1000 + elapsed.microseconds // 1000
