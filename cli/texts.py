"""
From the text of an option to its value, and from a value to JSON text.
"""

import os
import re
import sys
from typing import Final

import click
import msgspec

from domain.errors import BadInput
from domain.windows import check_interval, check_symbols

_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd])")
_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


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


def seconds_ms_of(option: str, seconds: float | None) -> int | None:
    """
    Return seconds in milliseconds, None for None.

    Raises:
        BadInput: if it isn't a number from 0 to a day.
    """
    if seconds is None:
        return None
    if not 0 <= seconds <= _UNIT_MS["d"] / 1000:
        raise BadInput(f"{option}: expected 0 to {_UNIT_MS['d'] // 1000} seconds, was {seconds}")
    return round(seconds * 1000)


def duration_ms_of(text: str) -> int:
    """
    Return a duration such as `90s`, `30m`, `2h` or `1d` in milliseconds.

    Raises:
        BadInput: if it is none, or longer than a year.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise BadInput(f"expected a duration such as 90s, 30m, 2h or 1d, was {text!r}")
    duration_ms = int(found[1]) * _UNIT_MS[found[2]]
    if not 0 < duration_ms <= 366 * _UNIT_MS["d"]:
        raise BadInput(f"expected a duration of up to a year, was {text!r}")
    return duration_ms


def warn(text: str | None) -> None:
    """Tell a warning on stderr, if there is one; see `tell`."""
    if text:
        tell(click.style(f"WARNING: {text}", fg="yellow"))


def tell(text: str) -> None:
    """Say something beside the answer, on stderr; nobody has to be there to read it."""
    try:
        click.echo(text, err=True)
    except BrokenPipeError:
        # What is left in the buffer goes nowhere, so that Python doesn't complain as it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    except OSError:
        # A full disk under a log: it may have room again.
        return
