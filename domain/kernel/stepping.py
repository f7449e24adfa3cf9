"""
Stepping from event to event: the freeze where a latch isn't exact, with waivers at work.

A waiver makes a window's verdict depend on whether trading was halted before it, so on the state
itself. But within a freeze, and out of one, it is known beforehand: there are two sets of bitmaps,
and each event is the next bit of one of them with a lower bound.

- Out of a freeze that ended in window e: the next breach that is CRIT, or the next NO_DATA that is
  CRIT by count, from e + `no_data_freeze_windows` on. Window e was OK, so that all counts began
  again there; a longer run that a bitmap knows of reaches back over what was excused.
- In a freeze that began in window b: the first window from b + `unfreeze_after_ok_windows` on that
  has had only windows that are OK in a freeze for so long. What counted before b doesn't matter:
  neither WARN nor CRIT is OK.

If a waiver excused anything in those last windows, the way out is COOLDOWN, on probation.
Source: DESIGN.md section 1, No data is never OK, rule 4, and Global state; KERNEL_NOTES, step 9.
"""

from typing import Any

import numpy as np

from domain.kernel.compiling import highest_bit, lowest_bit
from domain.kernel.words import ONE, ZERO


def step_freezes(
    breaches: Any, no_data: Any, ill: Any, further_ill: Any, excused: Any,
    unfreeze_after: int, no_data_freeze: int, last_word: Any, frozen: Any, ends: Any, helped: Any,
) -> None:  # fmt: skip
    """
    Write the windows after which the state is FROZEN, and those that lead out of it.

    Args:
        breaches: windows that are CRIT by a breach.
        no_data: windows that are CRIT by NO_DATA out of a freeze, however it began.
        ill, further_ill: together, windows that, in a freeze, were not OK within the last
            `unfreeze_after`.
        excused: windows within the last `unfreeze_after` of which a waiver excused a KPI.
        last_word: which bits of the last word are windows.
        frozen, ends, helped: written; `helped` are those of `ends` that lead into COOLDOWN.
    """
    frozen[:] = ZERO
    ends[:] = ZERO
    helped[:] = ZERO
    windows = ((len(frozen) - 1) << 6) + highest_bit(last_word) + 1
    end = -no_data_freeze - 1
    while True:
        begin = next_start(breaches, no_data, max(end + 1, 0), max(end + no_data_freeze, 0))
        if begin >= windows:
            return
        end = next_clear(ill, further_ill, begin + unfreeze_after)
        set_bits(frozen, begin, end)
        if end >= windows:
            return
        bit = ONE << np.uint64(end & 63)
        ends[end >> 6] |= bit
        helped[end >> 6] |= bit & excused[end >> 6]


def next_start(one: Any, other: Any, first_of_one: int, first_of_other: int) -> int:
    """Return the first bit of one row from a window on, or of another from another on."""
    size = len(one)
    word = first_of_one >> 6
    while word < size:
        found = one[word]
        if word == first_of_one >> 6:
            found &= ~ZERO << np.uint64(first_of_one & 63)
        if word >= first_of_other >> 6:
            more = other[word]
            if word == first_of_other >> 6:
                more &= ~ZERO << np.uint64(first_of_other & 63)
            found |= more
        if found != ZERO:
            return (word << 6) + lowest_bit(found)
        word += 1
    return size << 6


def next_clear(one: Any, other: Any, first: int) -> int:
    """Return the first window from this one on in which neither row has a bit."""
    size = len(one)
    word = first >> 6
    while word < size:
        clear = ~(one[word] | other[word])
        if word == first >> 6:
            clear &= ~ZERO << np.uint64(first & 63)
        if clear != ZERO:
            return (word << 6) + lowest_bit(clear)
        word += 1
    return size << 6


def set_bits(row: Any, first: int, last: int) -> None:
    """Set the bits from `first` up to, not including, `last`."""
    last = min(last, len(row) << 6)
    if first >= last:
        return
    low, high = first >> 6, (last - 1) >> 6
    from_first = ~ZERO << np.uint64(first & 63)
    to_last = ~ZERO >> np.uint64(63 - ((last - 1) & 63))
    if low == high:
        row[low] |= from_first & to_last
        return
    row[low] |= from_first
    for word in range(low + 1, high):
        row[word] = ~ZERO
    row[high] |= to_last
