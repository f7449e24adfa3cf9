"""
Short notation for a series of readings, in the manner of promtool's: `2.6x10 1.9 _x3 nan`.

    2.6        one window with 2.6            _      the KPI is absent
    2.6x10     ten windows with 2.6           nan    malformed; so inf, stale, malformed, ...
    1+0.5x3    1, 1.5, 2                      gap    nobody decided the window, of any symbol
    2.6x*      as long as the scenario lasts, for the last item

A count is how many windows the item stands for; promtool's `2.6x10` stands for eleven.
"""

import math
import re
from enum import Enum
from typing import Final

import msgspec

from domain.kpis import Defect, Reading

WINDOWS_MAX: Final = 100_000
_DECIMALS: Final = 10
"""To what a ramp's steps are rounded, so that 1-0.1x4 ends in 0.7."""

_NUMBER: Final = r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_ITEM: Final = re.compile(
    rf"(?:(?P<start>{_NUMBER})(?P<step>[+-][0-9]+(?:\.[0-9]+)?)?|(?P<word>[a-z_]+?))"
    r"(?:x(?P<count>[0-9]+|\*))?"
)


class Gap(Enum):
    """Stands in a series for a window that nobody decided."""

    GAP = "gap"


Item = Reading | Gap | None
"""What a series has in a window; None is absent."""

_WORDS: Final[dict[str, Item]] = {
    "_": None,
    "gap": Gap.GAP,
    "inf": Defect.INFINITE,
    **{defect.value: defect for defect in Defect},
}


class Series(msgspec.Struct, frozen=True):
    """
    A series, and what goes on after it.

    Attributes:
        items: a window each.
        has_rest: whether the last item goes on as long as the scenario lasts.
        step: what a last item that goes on grows by each window.
    """

    items: tuple[Item, ...]
    has_rest: bool = False
    rest: Item = None
    step: float = 0.0

    def at(self, index: int) -> Item:
        """Return what is in a window, from 0; the caller knows how long the series is."""
        if index < len(self.items):
            return self.items[index]
        if isinstance(self.rest, float):
            return round(self.rest + self.step * (index - len(self.items)), _DECIMALS)
        return self.rest


def parse_series(text: str) -> Series:
    """
    Return the series of a text.

    Raises:
        ValueError: naming the item that is none.
    """
    items: list[Item] = []
    words = text.split()
    if not words:
        raise ValueError("expected a series such as 2.6x10 1.9 _x3 nan, was nothing")
    for number, word in enumerate(words, start=1):
        start, step, count = _parse_item(word)
        if count is None:
            if number < len(words):
                raise ValueError(f"expected {word} at the end: it goes on for good")
            return Series(tuple(items), has_rest=True, rest=start, step=step)
        if len(items) + count > WINDOWS_MAX:
            raise ValueError(f"expected at most {WINDOWS_MAX} windows, was more at {word}")
        items += [
            round(start + step * index, _DECIMALS) if step and isinstance(start, float) else start
            for index in range(count)
        ]
    return Series(tuple(items))


def _parse_item(word: str) -> tuple[Item, float, int | None]:
    """Return an item's first value, its step, and its count; None for the rest."""
    found = _ITEM.fullmatch(word)
    if found is None or (found["word"] is not None and found["word"] not in _WORDS):
        raise ValueError(
            f"expected a number, _, gap or one of {', '.join(sorted(_WORDS))}, perhaps with a "
            f"count (2.6x10), was {word!r}"
        )
    if found["step"] is not None and found["count"] is None:
        raise ValueError(f"expected a count after a step (1+0.5x3), was {word!r}")
    count = 1 if found["count"] is None else None
    if found["count"] not in (None, "*"):
        count = int(found["count"][:7])
        if not 1 <= count <= WINDOWS_MAX:
            raise ValueError(f"expected a count from 1 to {WINDOWS_MAX}, was {word!r}")
    if found["word"] is not None:
        return _WORDS[found["word"]], 0.0, count
    start = float(found["start"])
    if not math.isfinite(start):
        raise ValueError(f"expected a finite number, was {word!r}; say inf for an infinite one")
    return start, float(found["step"] or 0.0), count
