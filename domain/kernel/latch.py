"""
The latch, 64 windows a step: FROZEN and COOLDOWN as the carry of an addition.

    t = D + C + carry;  F = C | (D & ~t);  carry = F >> 63

C starts a freeze, D keeps one going. Where both are 0 the carry ends; where D alone is set it runs
on; so it is the state itself, and from word to word one bit of it is handed on.
Source: KERNEL_NOTES, steps 4 to 6.
"""

from typing import Any, Final

import numpy as np

from domain.kernel.compiling import highest_bit, lowest_bit, popcount
from domain.kernel.outcomes import NEVER
from domain.kernel.tally import (
    CHANGES,
    COOLDOWN_WINDOWS,
    FIRST_FREEZE,
    FLAPS,
    FREEZES,
    FROZEN_WINDOWS,
    FURTHER_CHANGES,
)
from domain.kernel.words import FULL, LAST, ONE, ZERO, count_bits, find_words

NEAR: Final = 64
"""Flaps that are nearer than this are counted without looking at each freeze."""


def latch_freezes(crit: Any, ill: Any, further_ill: Any, frozen: Any) -> None:
    """
    Write the windows after which the state is FROZEN.

    Args:
        crit: CRIT windows; all of them are in the next two.
        ill, further_ill: together, windows that were not OK within the last so many.
        frozen: written.
    """
    carry = ZERO
    for word in range(len(frozen)):
        starts = crit[word]
        goes_on = ill[word] | further_ill[word]
        total = goes_on + starts
        frozen[word] = starts | (goes_on & ~(total + carry))
        # The same as frozen[word] >> 63, but all that waits for the last carry is one AND, one OR.
        carry = np.uint64(total < goes_on) | (np.uint64(total == FULL) & carry)


def count_freezes(
    frozen: Any, origin: Any, last_word: Any, flap_windows: int, ends: Any, counts: Any
) -> None:
    """
    Count a freeze task's windows, freezes and flaps.

    Args:
        frozen: the windows; what lies after the last one is cleared here.
        origin: the true number of each word's first window.
        last_word: which bits of the last word are windows.
        flap_windows: how soon after one freeze ended another is a flap.
        ends: room for a row.
        counts: written, by the names in `tally`.
    """
    size = len(frozen)
    counts[FIRST_FREEZE] = NEVER
    frozen[size - 1] &= last_word
    first = 0
    while first < size and frozen[first] == ZERO:
        first += 1
    if first < size:
        counts[FIRST_FREEZE] = origin[first] + lowest_bit(frozen[first])
    counts[FROZEN_WINDOWS] = count_bits(frozen)
    counts[FREEZES] = count_starts(frozen)
    # Every freeze ends but one that lasts to the end of the series.
    lasts = frozen[size - 1] != ZERO and highest_bit(frozen[size - 1]) == highest_bit(last_word)
    counts[CHANGES] = 2 * counts[FREEZES] - lasts
    if flap_windows < NEAR:
        counts[FLAPS] = count_near_flaps(frozen, origin, flap_windows, ends)
    else:
        counts[FLAPS] = count_flaps(frozen, origin, flap_windows)


def count_starts(frozen: Any) -> int:
    """Return how many freezes there are."""
    here, total = frozen[1:], popcount(frozen[0] & ~(frozen[0] << ONE))
    for word in range(len(here)):
        total += popcount(here[word] & ~((here[word] << ONE) | (frozen[word] >> LAST)))
    return total


def count_flaps(frozen: Any, origin: Any, flap_windows: int) -> int:
    """Return how many freezes began at most so many windows after the one before them ended."""
    flaps, ended, before = 0, -1 - flap_windows, ZERO
    for word in range(len(frozen)):
        held = frozen[word]
        last = (held << ONE) | before
        before = held >> LAST
        starts, ends = held & ~last, last & ~held
        while starts != ZERO:
            start = starts & (ZERO - starts)
            starts ^= start
            ends_before = ends & (start - ONE)
            end = ended if ends_before == ZERO else origin[word] + highest_bit(ends_before)
            flaps += origin[word] + lowest_bit(start) - end <= flap_windows
        if ends != ZERO:
            ended = origin[word] + highest_bit(ends)
    return flaps


def count_near_flaps(frozen: Any, origin: Any, flap_windows: int, ends: Any) -> int:
    """
    Return the same for fewer than `NEAR` windows, without a branch.

    Every end is spread over the windows after it, within two words, by doubling; a start on one
    of them is a flap. Shifts of 0 are allowed: a word is shifted back in two steps.
    """
    reach, steps = 1, np.zeros(6, np.uint64)
    for step in range(6):
        further = min(reach, flap_windows + 1 - reach)
        steps[step] = np.uint64(further)
        reach += further
    one, two, three, four, five, six = steps
    here, behind, total = frozen[1:], ends[1:], 0
    ends[0] = ~frozen[0] & (frozen[0] << ONE)
    for word in range(len(here)):
        behind[word] = ~here[word] & ((here[word] << ONE) | (frozen[word] >> LAST))
    total += popcount(
        frozen[0]
        & ~(frozen[0] << ONE)
        & spread_near(ends[0], ZERO, one, two, three, four, five, six)
    )
    for word in range(len(here)):
        # A word before one that was left out is too far away to matter.
        low = ends[word] if origin[word + 1] - origin[word] == 64 else ZERO
        near = spread_near(behind[word], low, one, two, three, four, five, six)
        starts = here[word] & ~((here[word] << ONE) | (frozen[word] >> LAST))
        total += popcount(starts & near)
    return total


def spread_near(
    high: Any, low: Any, one: Any, two: Any, three: Any, four: Any, five: Any, six: Any
) -> Any:
    """Return the bits of a word and the one before it, spread in six steps into the word."""
    high |= (high << one) | ((low >> ONE) >> (LAST - one))
    low |= low << one
    high |= (high << two) | ((low >> ONE) >> (LAST - two))
    low |= low << two
    high |= (high << three) | ((low >> ONE) >> (LAST - three))
    low |= low << three
    high |= (high << four) | ((low >> ONE) >> (LAST - four))
    low |= low << four
    high |= (high << five) | ((low >> ONE) >> (LAST - five))
    low |= low << five
    return high | (high << six) | ((low >> ONE) >> (LAST - six))


def latch_cooldowns(
    enough: Any, visits: Any, ill: Any, further_ill: Any, goes_on_helped: Any, frozen: Any,
    last_word: Any, visited: Any, cooling: Any, counts: Any,
) -> int:  # fmt: skip
    """
    Count a cooldown task's windows and changes, in the words where there can be any.

    Args:
        enough: windows in which enough WARN windows have come in a row, or that lead from FROZEN
            into COOLDOWN.
        visits: the words in which there are any, ascending.
        ill, further_ill: together, windows that were not OK within the last so many.
        goes_on_helped: the windows after those that lead from FROZEN into COOLDOWN, too few for
            the way to ACTIVE.
        frozen: the freeze that it belongs to.
        last_word: which bits of the last word are windows.
        visited, cooling: written, words in order and the windows of COOLDOWN in them; there are
            none in any other. How many they are is returned.
        counts: written, by the names in `tally`.
    """
    size, windows, changes, found = len(frozen), 0, 0, 0
    carry = ZERO
    word, visit = 0, 0
    while word < size:
        if carry == ZERO:
            # Most of what could start a COOLDOWN lies within freezes.
            while visit < len(visits) and (
                visits[visit] < word or enough[visits[visit]] & ~frozen[visits[visit]] == ZERO
            ):
                visit += 1
            if visit == len(visits):
                break
            word = visits[visit]
        free = ~frozen[word]
        starts = enough[word] & free
        goes_on = (ill[word] | further_ill[word] | goes_on_helped[word]) & free
        held = starts | (goes_on & ~(goes_on + starts + carry))
        edges = held ^ (held << ONE | carry)
        carry = held >> LAST
        before = frozen[word - 1] >> LAST if word else ZERO
        edges &= ~(frozen[word] ^ (frozen[word] << ONE | before))
        if word == size - 1:
            held &= last_word
            edges &= last_word
        windows += popcount(held)
        changes += popcount(edges)
        visited[found], cooling[found] = word, held
        found += 1
        word += 1
    counts[COOLDOWN_WINDOWS], counts[FURTHER_CHANGES] = windows, changes
    return found


def find_starts(enough: Any, fresh: Any, helped: Any, frozen: Any, starts: Any, visits: Any) -> int:
    """
    Write where a COOLDOWN can start after freezes that can end on probation.

    Args:
        enough: windows in which enough WARN windows have come in a row.
        fresh: windows so soon after a freeze that some of these lie in it, where what they were
            WARN by was excused.
        helped: windows that lead from FROZEN into COOLDOWN.
        frozen: the freeze.
        starts: written.
        visits: written, the words in which there are any. How many they are is returned.
    """
    for word in range(len(frozen)):
        starts[word] = ((enough[word] & ~fresh[word]) | helped[word]) & ~frozen[word]
    return find_words(starts, visits)
