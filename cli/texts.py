"""
From the text of an option to its value, and from a value to JSON text.
"""

import msgspec

from domain.errors import BadInput
from domain.windows import check_interval, check_symbols


def split_symbols(text: str) -> tuple[str, ...]:
    """
    Return the symbols of `A,B,...`.

    Raises:
        BadInput: if one is malformed or there twice.
    """
    return check_symbols([part.strip() for part in text.split(",")], source="--symbols")


def interval_ms_of(interval_sec: float) -> int:
    """
    Return an interval in milliseconds.

    Raises:
        BadInput: if it isn't a whole number of them, from 1 ms to a day.
    """
    interval_ms = interval_sec * 1000
    if interval_ms != interval_ms // 1:
        raise BadInput(f"--interval-sec: expected whole milliseconds, was {interval_sec}")
    return check_interval(int(interval_ms), source="--interval-sec")


def to_json(value: object) -> str:
    """Return a value as JSON for people to read, without a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
