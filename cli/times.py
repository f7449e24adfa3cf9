"""
Times as people type them: `2026-01-05T14:00`, `2026-01-05`, `-2h`, `yesterday 14:00`, `now`.

UTC unless an offset is given. What could mean two things is refused rather than guessed: a bare
`14:00`, `01/05/2026`, a month without a day. Source: issue 5; DECISIONS.md 62.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from domain.errors import BadInput
from domain.windows import parse_time

DAY_MS: Final = 86_400_000

EXAMPLES: Final = "2026-01-05T14:00Z, 2026-01-05, -2h, -1d12h, today, yesterday 14:00, now"

_AGO_MS_MAX: Final = 36_525 * DAY_MS
_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}
_AGO: Final = re.compile(r"-((?:[0-9]{1,9}[smhdw])+)")
_PART: Final = re.compile(r"([0-9]+)([smhdw])")
_NAMED_DAY: Final = re.compile(r"(today|yesterday)(?:[ T]+(.+))?", re.IGNORECASE)
_OFFSET: Final = re.compile(r"(.*?) *(Z|[+-][0-9]{2}:?[0-9]{2})?", re.IGNORECASE)
_CLOCK: Final = re.compile(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,3})?)?")
_ISO: Final = re.compile(r"[0-9]{4}-?[0-9W].*")
_SPACED_OFFSET: Final = re.compile(r" +(?=Z$|[+-][0-9:]+$)", re.IGNORECASE)
_DAYS_BACK: Final = {"today": 0, "yesterday": 1}


def parse_moment(text: str, *, now_ms: int, option: str) -> int:
    """
    Return the moment that a text means, in ms UTC.

    Args:
        text: an ISO date or time, a time ago (`-90s`, `-1d12h`), `now`, `today` or `yesterday`
            with or without a time of day. A date is its beginning.
        now_ms: what time it is.
        option: the option's name, for errors.

    Raises:
        BadInput: if the text is none of these, naming the option and giving examples.
    """
    text = text.strip()
    if text.lower() == "now":
        return now_ms
    try:
        ago = _AGO.fullmatch(text)
        if ago is not None:
            return now_ms - _duration_ms(ago[1])
        named = _NAMED_DAY.fullmatch(text)
        if named is not None:
            return _on_named_day(named[1].lower(), named[2], now_ms)
        return _iso(text)
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{option}: {_problem(text, error)}") from None


def is_time_ago(text: str) -> bool:
    """Return whether a text is a time ago, such as `-2h`."""
    return _AGO.fullmatch(text) is not None


def _duration_ms(text: str) -> int:
    """Return the length of `1d12h`; each unit at most once, the larger first."""
    parts = _PART.findall(text)
    units = [_UNIT_MS[unit] for _, unit in parts]
    if units != sorted(set(units), reverse=True):
        raise ValueError(text)
    duration_ms = sum(int(count) * _UNIT_MS[unit] for count, unit in parts)
    if duration_ms > _AGO_MS_MAX:
        raise ValueError(text)
    return duration_ms


def _on_named_day(day: str, rest: str | None, now_ms: int) -> int:
    """Return a time of day today or yesterday, both by the offset that is given, else by UTC."""
    found = _OFFSET.fullmatch(rest or "")
    assert found is not None, "an offset may be absent"
    clock, offset = found[1], found[2]
    if clock and not _CLOCK.fullmatch(clock):
        raise ValueError(rest)
    zone = UTC if offset is None else datetime.fromisoformat(f"2000-01-01T00:00{offset}").tzinfo
    now = datetime.fromtimestamp(now_ms / 1000, tz=zone)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    date = (midnight - timedelta(days=_DAYS_BACK[day])).isoformat()
    return parse_time(f"{date[:11]}{clock.zfill(5)}{date[19:]}" if clock else date)


def _iso(text: str) -> int:
    """Return the moment of an ISO date or time, whose offset may have a space before it."""
    if not _ISO.fullmatch(text):
        raise ValueError(text)
    return parse_time(_SPACED_OFFSET.sub("", text))


def _problem(text: str, error: Exception) -> str:
    told = str(error)
    if _CLOCK.fullmatch(text):
        return f"expected a day too, such as 'today {text}', was {text!r}"
    if text.startswith("+"):
        return f"expected a time that has been, was {text!r}"
    if told.startswith("expected"):
        return told
    return f"expected a time such as {EXAMPLES} (UTC unless it has an offset), was {text!r}"
