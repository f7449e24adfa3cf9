"""
Lengths of time in words.
"""

from typing import Final

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def duration_text(duration_ms: int) -> str:
    """Return a duration in its two largest units: `2 h 5 min`, `3 d`, `40 s`, `250 ms`."""
    if 0 < duration_ms < 1_000:
        return f"{duration_ms} ms"
    left_sec, parts = duration_ms // 1000, []
    for seconds, unit in _UNITS:
        count, left_sec = divmod(left_sec, seconds)
        if count:
            parts.append(f"{count} {unit}")
        if len(parts) == 2 or (parts and not count):
            break
    return " ".join(parts) or "0 s"


def age_text(seconds: float) -> str:
    """Return an age in its natural unit: `42 s ago`, `7 min ago`, `3 h in the future`."""
    tense = "in the future" if seconds < 0 else "ago"
    for limit, divisor, unit in ((120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h")):
        if abs(seconds) < limit:
            return f"{abs(seconds) / divisor:.0f} {unit} {tense}"
    return f"{abs(seconds) / 86_400:.0f} days {tense}"


def count_text(count: int, noun: str) -> str:
    """Return a number of things: `1 window`, `2 windows`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
