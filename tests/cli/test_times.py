"""Times as people type them."""

import pytest

from cli.times import parse_moment
from domain.errors import BadInput
from domain.windows import format_time, parse_time

NOW_MS = parse_time("2026-03-01T01:30:15.250Z")


def moment(text: str) -> str:
    return format_time(parse_moment(text, now_ms=NOW_MS, option="--from"))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("now", "2026-03-01T01:30:15.250Z"),
        ("NOW ", "2026-03-01T01:30:15.250Z"),
        ("-0s", "2026-03-01T01:30:15.250Z"),
        ("-15s", "2026-03-01T01:30:00.250Z"),
        ("-30m", "2026-03-01T01:00:15.250Z"),
        ("-2h", "2026-02-28T23:30:15.250Z"),
        ("-1d", "2026-02-28T01:30:15.250Z"),
        ("-1w", "2026-02-22T01:30:15.250Z"),
        ("-1d12h", "2026-02-27T13:30:15.250Z"),
        ("-1h30m15s", "2026-03-01T00:00:00.250Z"),
        ("today", "2026-03-01T00:00:00Z"),
        ("yesterday", "2026-02-28T00:00:00Z"),
        ("yesterday 14:00", "2026-02-28T14:00:00Z"),
        ("Yesterday  9:05", "2026-02-28T09:05:00Z"),
        ("yesterdayT14:00:30.5Z", "2026-02-28T14:00:30.500Z"),
        ("today 01:00", "2026-03-01T01:00:00Z"),
        # In New York it is still the last day of February.
        ("today 20:00-05:00", "2026-03-01T01:00:00Z"),
        ("today -05:00", "2026-02-28T05:00:00Z"),
        ("yesterday 00:00 +0530", "2026-02-27T18:30:00Z"),
        ("2026-01-05", "2026-01-05T00:00:00Z"),
        ("20260105", "2026-01-05T00:00:00Z"),
        ("2026-01-05 14:00", "2026-01-05T14:00:00Z"),
        ("2026-01-05T14:00", "2026-01-05T14:00:00Z"),
        ("2026-01-05T14:00Z", "2026-01-05T14:00:00Z"),
        ("2026-01-05T14:00:00.123Z", "2026-01-05T14:00:00.123Z"),
        ("2026-01-05 14:00 +02:00", "2026-01-05T12:00:00Z"),
        ("2026-01-05T14:00-0530", "2026-01-05T19:30:00Z"),
        ("2024-02-29", "2024-02-29T00:00:00Z"),
    ],
)
def test_a_time_means(text: str, meant: str) -> None:
    assert moment(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        "", "-", "2h", "-2", "-2y", "-2h-3h", "-h", "-30m2h", "-2h2h", "- 2h", "tomorrow",
        "last week", "01/05/2026", "2026", "2026-01", "2026-13-01", "2026-02-29",
        "2026-01-05T25:00", "2026-01-05T14:00 CET", "yesterday noon", "yesterday 25:00",
        "yesterday 14", "14h",
        "today 14:00+99:00", "1767571200000", "NaN", "-99999999w", "\uff10",
        "2026-01-05T14:00Z; DROP",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(BadInput, match=r"^--from: expected a time such as 2026") as told:
        moment(text)
    assert told.value.exit_code == 2
    assert str(told.value).endswith(f"was {text!r}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("14:00", "--from: expected a day too, such as 'today 14:00', was '14:00'"),
        ("+2h", "--from: expected a time that has been, was '+2h'"),
        (
            "2026-01-05T14:00:00.1234Z",
            "--from: expected whole milliseconds, was '2026-01-05T14:00:00.1234Z'",
        ),
    ],
)
def test_what_is_nearly_a_time_is_told_what_is_wrong(text: str, told: str) -> None:
    with pytest.raises(BadInput) as error:
        moment(text)
    assert str(error.value) == told
