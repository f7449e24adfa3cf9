"""
Bitmaps: a bit a window, 64 to a word, the first window in the lowest bit.

What is asked of a window is yes or no once a threshold is given, so a year of minutes is 8,213
words, and a machine decides 64 windows in the time of one. Here is also the time that the bits
stand for: words in which nothing can happen are left out. Source: DECISIONS.md 90.
"""

from typing import Final, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from domain.kernel.series import Flags, Integers, Series

Bits: TypeAlias = npt.NDArray[np.uint64]

WORD: Final = 64


class Timeline(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """
    The windows that bits stand for: all but whole words deep within a gap.

    Once a gap has lasted for `no_data_freeze_windows` and two windows more, every policy is FROZEN
    and nothing changes until it ends.

    Attributes:
        origin: shape (words,), the true number of each word's first window.
        rows: shape (rows,), where the observed windows lie, in bits.
        missing: where missing windows lie, in bits, those left out excepted.
        windows: how many windows there are in the bits.
        left_out: how many were left out, all of them FROZEN.
    """

    origin: Integers
    rows: Integers
    missing: Integers
    windows: int
    left_out: int

    @property
    def words(self) -> int:
        """How many words the bits fill."""
        return len(self.origin)


def timeline_of(series: Series, no_data_freeze: int) -> Timeline:
    """Return the bits' time for policies with this `no_data_freeze_windows`."""
    index = series.index
    before = np.append(np.flatnonzero(np.diff(index) > 1), series.rows - 1)
    begins = index[before] + 1
    ends = np.append(index[before[:-1] + 1], series.windows)
    first = -(-(begins + no_data_freeze + 2) // WORD)
    last = ends // WORD
    deep = last > first
    first, last = first[deep], last[deep]
    cut = np.concatenate([[0], np.cumsum((last - first) * WORD)])
    windows = series.windows - int(cut[-1])
    origin = np.arange(-(-windows // WORD), dtype=np.int64) * WORD
    rows = index
    if len(first):
        rows = index - cut[np.searchsorted(first * WORD, index, side="right")]
        origin += cut[np.searchsorted(first * WORD - cut[:-1], origin, side="right")]
    missing = np.zeros(0, np.int64)
    if windows > series.rows:
        is_missing = np.ones(windows, np.bool_)
        is_missing[rows] = False
        missing = np.flatnonzero(is_missing)
    return Timeline(
        origin=origin, rows=rows, missing=missing, windows=windows, left_out=int(cut[-1])
    )


class Kept(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """
    The words in which some policy could be other than at rest.

    Attributes:
        place: shape (words,), where each word of the timeline is among the kept ones; -1 if not.
        words: shape (kept,), the kept words' numbers.
        origin: shape (kept,), the true number of each kept word's first window.
    """

    place: Integers
    words: Integers
    origin: Integers

    def positions(self, bits: Integers) -> Integers:
        """Return where bits of the timeline lie among the kept words; all must be in some."""
        found: Integers = self.place[bits // WORD] * WORD + bits % WORD
        return found

    def holds(self, bits: Integers) -> Flags:
        """Return which bits of the timeline lie in a kept word."""
        held: Flags = self.place[bits // WORD] >= 0
        return held

    def row(self, positions: Integers) -> Bits:
        """Return a row with the bits at these places among the kept words."""
        return packed(positions, len(self.words))


def keep_around(timeline: Timeline, bits: Integers, windows: int) -> Kept:
    """
    Return the words that hold one of the bits or a window up to so many after it.

    `windows` is the longest that a policy needs to come to rest, and one more, so that the window
    in which it does is there too.
    """
    begins = bits // WORD
    ends = np.minimum((bits + windows) // WORD, timeline.words - 1)
    steps = np.zeros(timeline.words + 1, np.int64)
    np.add.at(steps, begins, 1)
    np.subtract.at(steps, ends + 1, 1)
    is_kept = np.cumsum(steps[:-1]) > 0
    is_kept[0] = True  # so that a row is never empty
    place = np.where(is_kept, np.cumsum(is_kept) - 1, -1)
    words = np.flatnonzero(is_kept)
    return Kept(place=place, words=words, origin=timeline.origin[words])


def packed(positions: Integers, words: int) -> Bits:
    """Return a row of so many words with the bits at these positions set."""
    flags = np.zeros(words * WORD, np.bool_)
    flags[positions] = True
    row: Bits = np.packbits(flags, bitorder="little").view(np.uint64)
    return row


def as_integer(row: Bits) -> int:
    """Return a row as one Python integer."""
    return int.from_bytes(row.astype("<u8", copy=False).tobytes(), "little")


def as_positions(bits: int, words: int) -> Integers:
    """Return where a Python integer of so many words has bits, in order."""
    if not bits:
        return np.zeros(0, np.int64)
    octets = np.frombuffer(bits.to_bytes(words * 8, "little"), np.uint8)
    filled = np.flatnonzero(octets)
    places = np.flatnonzero(np.unpackbits(octets[filled], bitorder="little"))
    found: Integers = filled[places // 8] * 8 + places % 8
    return found
