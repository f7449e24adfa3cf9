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
        target, spare: both are written, by turns; `target` has the result.
    """
    turns = count_doublings(reach, windows)
    if turns == 0:
        target[:] = source
    read = source
    for turn in range(turns):
        written = target if (turns - turn) % 2 else spare
        join_later(read, min(reach, windows - reach), written)
        reach += min(reach, windows - reach)
        read = written


def find_longer_runs(source: Any, reach: int, windows: int, target: Any, spare: Any) -> None:
    """
    Write which windows have a bit, as have the `windows` - 1 before them.

    Args:
        source: windows of which this is known of `reach` windows.
        reach, windows: from 1 on, ascending.
        target, spare: both are written, by turns; `target` has the result.
    """
    turns = count_doublings(reach, windows)
    if turns == 0:
        target[:] = source
    read = source
    for turn in range(turns):
        written = target if (turns - turn) % 2 else spare
        meet_later(read, min(reach, windows - reach), written)
        reach += min(reach, windows - reach)
        read = written


def count_doublings(reach: int, windows: int) -> int:
    """Return how often a reach must be doubled, or less at last, to be so many windows."""
    turns = 0
    while reach < windows:
        reach += min(reach, windows - reach)
        turns += 1
    return turns


def join_later(source: Any, by: int, target: Any) -> None:
    """Write the source's bits, and each of them so many windows later too."""
    whole, rest = by >> 6, np.uint64(by & 63)
    if whole >= len(source):
        target[:] = source
        return
    target[:whole] = source[:whole]
    here, there = source[whole:], target[whole:]
    there[0] = here[0] | (source[0] << rest)
    after, written, above = here[1:], there[1:], source[1:]
    for word in range(len(after)):
        # A word is shifted back in two steps, for shifts of 64 are undefined.
        below = (source[word] >> ONE) >> (LAST - rest)
        written[word] = after[word] | (above[word] << rest) | below


def meet_later(source: Any, by: int, target: Any) -> None:
    """Write the source's bits where there is one so many windows before, too."""
    whole, rest = by >> 6, np.uint64(by & 63)
    if whole >= len(source):
        target[:] = ZERO
        return
    target[:whole] = ZERO
    here, there = source[whole:], target[whole:]
    there[0] = here[0] & (source[0] << rest)
    after, written, above = here[1:], there[1:], source[1:]
    for word in range(len(after)):
        below = (source[word] >> ONE) >> (LAST - rest)
        written[word] = after[word] & ((above[word] << rest) | below)


def count_bits(row: Any) -> int:
    """Return how many bits a row has."""
    total = 0
    for word in range(len(row)):
        total += popcount(row[word])
    return total


def find_words(row: Any, found: Any) -> int:
    """Write which words have a bit, ascending; return how many."""
    count = 0
    for word in range(len(row)):
        found[count] = word
        count += row[word] != ZERO
    return count
