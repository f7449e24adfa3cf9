"""
The `ts` of a sample: epoch seconds, epoch milliseconds or ISO text, told apart by themselves.

Source: DESIGN.md section 5; docs/feeds.md.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from feeds.sample_types import MalformedSample, shown_briefly

TS_SECONDS_END: Final = 100_000_000_000
"""A number below this is in seconds (up to the year 5138), from it on in ms (from March 1973)."""
TS_MS_END: Final = 100_000_000_000_000
"""No time is this late (the year 5138): so large a number is in micro- or nanoseconds."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ONE_MS: Final = timedelta(milliseconds=1)


def parse_ts(value: int | float | str) -> int:
    """
    Return a time in milliseconds since the epoch, cut to the whole one.

    Args:
        value: epoch seconds if below 1e11, else epoch milliseconds; either of them as text; or ISO
            8601 text, which is UTC where it has no offset.

    Raises:
        MalformedSample: "bad ts", if it is none of these, before 1970 or after the year 5138.
    """
    ts_ms = _ms_of_text(value) if isinstance(value, str) else _ms_of_number(value)
    if ts_ms is None or not 0 <= ts_ms < TS_MS_END:
        raise MalformedSample(
            "bad ts", f"expected epoch seconds or ms, or ISO time, was {_shown(value)}"
        )
    return ts_ms


def _ms_of_number(value: Any) -> int | None:
    if type(value) is int:
        return value if value >= TS_SECONDS_END else value * 1000
    # A float of seconds holds about a quarter of a microsecond; cut at ms, 0.123 could become 122.
    if type(value) is not float or not 0 <= value < TS_MS_END:
        return None
    return int(value) if value >= TS_SECONDS_END else round(value * 1_000_000) // 1000


def _ms_of_text(text: str) -> int | None:
    if len(text) > 40 or not text.isascii() or "_" in text:
        return None
    if text.isdigit():
        return _ms_of_number(int(text))
    try:
        return _ms_of_number(float(text))
    except ValueError:
        pass
    try:
        time = datetime.fromisoformat(text.upper())
        return ((time.replace(tzinfo=UTC) if time.tzinfo is None else time) - _EPOCH) // _ONE_MS
    except (ValueError, OverflowError):
        return None
