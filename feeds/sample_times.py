"""
The `ts` of a sample: epoch seconds, epoch milliseconds or ISO text, told apart by themselves.

Source: DESIGN.md section 5; docs/feeds.md.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from feeds.sample_types import MalformedSample, shown_briefly

TS_SECONDS_END: Final = 100_000_000_000
"""A number below this is in seconds (up to the year 5138), from it on in ms (from March 1973)."""
TS_MS_END: Final = 100_000_000_000_000
"""No time is this late (the year 5138): so large a number is in micro- or nanoseconds."""

_TEXT_CHARACTERS_MAX: Final = 40
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ONE_MS: Final = timedelta(milliseconds=1)


def parse_ts(value: object) -> int:
    """
    Return a time in milliseconds since the epoch; what is finer is cut off.

    Args:
        value: epoch seconds if below 1e11, else epoch milliseconds; either of them as text; or ISO
            8601 text, which is UTC where it has no offset.

    Raises:
        MalformedSample: "bad ts", if it is none of these, before 1970 or after the year 5138.
    """
    ts_ms = _ms_of_text(value) if isinstance(value, str) else _ms_of_number(value)
    if ts_ms is None or not 0 <= ts_ms < TS_MS_END:
        raise MalformedSample(
            "bad ts", f"expected epoch seconds or ms, or an ISO time, was {shown_briefly(value)}"
        )
    return ts_ms


def _ms_of_number(value: object) -> int | None:
    if type(value) is int:
        return value if value >= TS_SECONDS_END else value * 1000
    if type(value) is not float or not 0 <= value < TS_MS_END:
        return None
    if value >= TS_SECONDS_END:
        return int(value)
    if value.is_integer():
        return int(value) * 1000
    # 0.123 s may be held as 0.12299999: to the microsecond first, or it would be cut to 122 ms.
    return round(value * 1_000_000) // 1000


def _ms_of_text(text: str) -> int | None:
    # Python reads 1_000 and other scripts' digits as numbers; whoever writes them doesn't.
    if len(text) > _TEXT_CHARACTERS_MAX or not text.isascii() or "_" in text:
        return None
    if text.isdigit():
        return _ms_of_number(int(text))
    try:
        return _ms_of_number(float(text))
    except ValueError:
        return _ms_of_iso(text.upper())


def _ms_of_iso(text: str) -> int | None:
    try:
        time = datetime.fromisoformat(text)
        return ((time.replace(tzinfo=UTC) if time.tzinfo is None else time) - _EPOCH) // _ONE_MS
    except (ValueError, OverflowError):
        return None
