"""
Rows of 64-bit words: filling them, spreading bits over the windows after them, finding runs.

All of it is plain Python over arrays, to be compiled. Signed and unsigned numbers are never mixed:
numba makes a float of that. Source: KERNEL_NOTES, Dilate once.
"""

from typing import Any, Final

import numpy as np

from domain.kernel.compiling import popcount

ZERO: Final = np.uint64(0)
ONE: Final = np.uint64(1)
FULL: Final = np.uint64(2**64 - 1)
LAST: Final = np.uint64(63)
"""The place of a word's last bit, and how far its carry is shifted."""


def fill_heads(bits: Any, counts: Any, rows: Any) -> None:
    """Set in each row the bits that lie at the first so many places."""
    for number in range(len(counts)):
        for place in range(counts[number]):
            bit = bits[place]
            rows[number, bit >> 6] |= ONE << np.uint64(bit & 63)


def spread_further(source: Any, reach: int, windows: int, target: Any, spare: Any) -> None:
    """
    Write which windows have a bit in them or in the `windows` - 1 before them.

    Args:
        source: bits that have been spread over `reach` windows already.
        reach, windows: from 1 on, ascending.
        target, spare: both are written; `target` has the result.
    """
    target[:] = source
    while reach < windows:
        step = min(reach, windows - reach)
        spare[:] = target
        join_later(spare, step, target)
        reach += step


def find_longer_runs(source: Any, reach: int, windows: int, target: Any, spare: Any) -> None:
    """
    Write which windows have a bit, as have the `windows` - 1 before them.

    Args:
        source: windows of which this is known of `reach` windows.
        reach, windows: from 1 on, ascending.
        target, spare: both are written; `target` has the result.
    """
    target[:] = ~source
    while reach < windows:
        step = min(reach, windows - reach)
        spare[:] = target
        join_later(spare, step, target)
        # Before the first window there was none.
        set_first(target, step)
        reach += step
    target[:] = ~target


def join_later(source: Any, by: int, target: Any) -> None:
    """Add to the target every bit of the source, so many windows later."""
    whole, rest = by >> 6, np.uint64(by & 63)
    back = np.uint64(64) - rest
    if whole >= len(source):
        return
    here, size = target[whole:], len(source) - whole
    if rest == ZERO:
        for word in range(size):
            here[word] |= source[word]
        return
    here[0] |= source[0] << rest
    after, above = here[1:], source[1:]
    for word in range(size - 1):
        after[word] |= (above[word] << rest) | (source[word] >> back)


def set_first(row: Any, windows: int) -> None:
    """Set the bits of the first so many windows."""
    for word in range(min(windows >> 6, len(row))):
        row[word] = ~ZERO
    if windows >> 6 < len(row):
        row[windows >> 6] |= (ONE << np.uint64(windows & 63)) - ONE


def count_bits(row: Any) -> int:
    """Return how many bits a row has."""
    total = 0
    for word in range(len(row)):
        total += popcount(row[word])
    return total
