"""
Python integers as bitmaps: a sweep without a compiler, and the readable second implementation.

A Python integer holds a year as well as a word: its addition carries through all of it, and the
carry is the latch. A freeze goes on from bit to bit where D is set (something was not OK within the
last so many windows) and starts where C is (CRIT): adding the two makes a carry run from each start
to the end of its D. Source: KERNEL_NOTES, The way.
"""

from bisect import bisect_left

import msgspec
import numpy as np

from domain.kernel.bitmaps import WORD, as_integer, as_positions, packed
from domain.kernel.money import Halves, Till, halves_of
from domain.kernel.outcomes import NEVER
from domain.kernel.plan import CRIT_ROW, EXCUSED_ROW, IN_ROW, OUT_ROW, Batch
from domain.kernel.series import Integers
from domain.kernel.tally import Counts, new_counts


class _Side(msgspec.Struct, frozen=True):
    """
    What one side of the thresholds says, as bitmaps.

    Attributes:
        crit: CRIT windows by a breach, and by NO_DATA.
        no_data_crit: the latter alone.
        breaches: those by a breach alone.
        ill: by span, windows that were not OK within the last so many, out of a freeze.
        ill_inside: the same in a freeze, where waivers work.
        enough: by run, so many WARN windows in a row.
        excused: by span, windows within the last so many of which a waiver excused something.
    """

    crit: int
    no_data_crit: int
    breaches: int
    ill: tuple[int, ...]
    ill_inside: tuple[int, ...]
    enough: tuple[int, ...]
    excused: tuple[int, ...]


class _Freeze(msgspec.Struct, frozen=True):
    """
    One freeze task, for its cooldowns to begin from.

    Attributes:
        frozen: the windows after which the state is FROZEN.
        ends, helped: with waivers at work, the windows that lead out of FROZEN, and those of them
            that lead into COOLDOWN, on probation.
    """

    frozen: int
    ends: int = 0
    helped: int = 0


def decide_by_integers(batch: Batch, flap_windows: int, till: Till | None = None) -> Counts:
    """
    Return what the batch's tasks come to, for `global_freeze_symbols` 1.

    Money is added up where there is a till, which there must not be if waivers work.
    """
    return _Integers(batch, flap_windows, till).counts()


class _Integers:
    def __init__(self, batch: Batch, flap_windows: int, till: Till | None) -> None:
        self._batch = batch
        self._till = till
        self._flap_windows = flap_windows
        ground = batch.ground
        self._words = ground.words
        self._windows = max(0, (self._words - 1) * 64 + ground.last_word.bit_length())
        self._mask = (1 << self._windows) - 1
        rows = [
            as_integer(packed(ranked.bits[:count], self._words))
            for ranked, counts in zip(ground.ranked, batch.heads, strict=True)
            for count in counts.tolist()
        ]
        no_data = [[as_integer(row) for row in variant] for variant in batch.no_data]
        self._crit = [self._side(rows, no_data, side, crit=True) for side in batch.crit_sides]
        self._warn = [self._side(rows, no_data, side, crit=False) for side in batch.warn_sides]

    def counts(self) -> Counts:
        batch, till = self._batch, self._till
        counts = new_counts(
            len(batch.freezes), len(batch.cooldowns), 0 if till is None else till.columns
        )
        halves = None if till is None else halves_of(batch, till)
        for number, (crit, warn, span) in enumerate(batch.freezes.tolist()):
            sides = self._crit[crit], self._warn[warn]
            freeze = self._freeze(*sides, span)
            counts.freezes[number] = self._count_freezes(freeze.frozen)
            if halves is not None:
                counts.frozen_money[number] = self._money(freeze.frozen, halves, warn)
                counts.halved_money[number] = halves.sums[halves.ends[warn]]
            for cooldown in range(batch.begins[number], batch.begins[number + 1]):
                cooling = self._cooling(freeze, *sides, *batch.cooldowns[cooldown].tolist())
                counts.cooldowns[cooldown] = self._count_cooldowns(cooling, freeze.frozen)
                if halves is not None:
                    counts.cooling_money[cooldown] = self._money(cooling, halves, warn)
        return counts

    def _side(
        self, rows: list[int], no_data: list[list[int]], side: Integers, *, crit: bool
    ) -> _Side:
        *numbers, variant = side.tolist()
        breaches = 0
        for number in numbers:
            breaches |= rows[number]
        unknown = no_data[variant]
        spans, waivers_work = self._batch.spans, self._batch.ground.waivers_work
        ill, inside = breaches | unknown[OUT_ROW], breaches | unknown[IN_ROW]
        return _Side(
            crit=breaches | unknown[CRIT_ROW],
            no_data_crit=unknown[CRIT_ROW],
            breaches=breaches,
            ill=tuple(within(ill, span) for span in spans),
            ill_inside=tuple(within(inside, span) for span in spans if waivers_work),
            enough=() if crit else tuple(in_a_row(ill, run) for run in self._batch.runs),
            excused=tuple(within(unknown[EXCUSED_ROW], span) for span in spans if waivers_work),
        )

    def _freeze(self, crit: _Side, warn: _Side, span: int) -> _Freeze:
        if self._batch.ground.waivers_work:
            return self._stepped(crit, crit.ill_inside[span] | warn.ill_inside[span], span)
        return _Freeze(latched(crit.crit, crit.ill[span] | warn.ill[span]) & self._mask)

    def _stepped(self, crit: _Side, ill_inside: int, span: int) -> _Freeze:
        """Step from event to event where waivers are at work; see `domain.kernel.stepping`."""
        words, no_data_freeze = self._words, self._batch.ground.frame.no_data_freeze_windows
        breaches = as_positions(crit.breaches, words).tolist()
        no_data = as_positions(crit.no_data_crit, words).tolist()
        open_windows = as_positions(~ill_inside & self._mask, words).tolist()
        frozen = ends = helped = 0
        end = -no_data_freeze - 1
        while True:
            begin = min(
                _from(breaches, end + 1, self._windows),
                _from(no_data, end + no_data_freeze, self._windows),
            )
            if begin >= self._windows:
                return _Freeze(frozen, ends, helped)
            end = _from(open_windows, begin + self._batch.spans[span], self._windows)
            frozen |= (1 << end) - (1 << begin)
            if end < self._windows:
                ends |= 1 << end
                helped |= crit.excused[span] & 1 << end

    def _cooling(self, freeze: _Freeze, crit: _Side, warn: _Side, run: int, rest: int) -> int:
        """Return the windows after which the state is COOLDOWN."""
        starts, goes_on = warn.enough[run], crit.ill[rest] | warn.ill[rest]
        if freeze.ends:
            # What was excused in a freeze is not a WARN window that counts after it.
            starts &= ~within(freeze.ends, self._batch.runs[run])
            starts |= freeze.helped
            goes_on |= within(freeze.helped, self._batch.spans[rest])
        starts &= ~freeze.frozen
        return latched(starts, goes_on & ~freeze.frozen) & self._mask if starts else 0

    def _count_freezes(self, frozen: int) -> list[int]:
        starts = as_positions(frozen & ~(frozen << 1), self._words)
        ends = as_positions(~frozen & (frozen << 1) & self._mask, self._words)
        origin = self._batch.ground.kept.origin
        began, ended = (origin[at // WORD] + at % WORD for at in (starts, ends))
        flaps = int(np.count_nonzero(began[1:] - ended[: len(began) - 1] <= self._flap_windows))
        first = int(began[0]) if len(began) else NEVER
        return [frozen.bit_count(), len(starts), flaps, first, len(starts) + len(ends)]

    def _count_cooldowns(self, cooling: int, frozen: int) -> list[int]:
        if not cooling:
            return [0, 0]
        changes = changed(cooling) & ~changed(frozen) & self._mask
        return [cooling.bit_count(), changes.bit_count()]

    def _money(self, held: int, halves: Halves, warn: int) -> Integers:
        """Return what was at stake where a state holds, all of it and the halved part."""
        till = self._till
        assert till is not None
        words = self._batch.ground.kept.words
        row, ranks, base = halves.rows[warn], halves.ranks[warn], int(halves.ends[warn])
        both = np.zeros(2 * till.columns, np.int64)
        edges = held & ~(held << 1), ~held & (held << 1) & self._mask
        for sign, bits in zip((-1, 1), edges, strict=True):
            at = as_positions(bits, self._words)
            word, bit = at // WORD, (at % WORD).astype(np.uint64)
            below = (np.uint64(1) << bit) - np.uint64(1)
            rank = ranks[word] + np.bitwise_count(row[word] & below)
            both[: till.columns] += sign * till.sums.prefix[words[word] * WORD + at % WORD].sum(
                axis=0
            )
            both[till.columns :] += sign * halves.sums[rank].sum(axis=0)
        if held >> max(self._windows - 1, 0):
            both[: till.columns] += till.sums.prefix[-1]
            both[till.columns :] += halves.sums[base]
        return both


def latched(starts: int, goes_on: int) -> int:
    """
    Return where a latch holds that each start sets and that holds from bit to bit of `goes_on`.

    Every start is in `goes_on`.
    """
    carried = goes_on + starts
    return starts | (goes_on & ~carried)


def within(bits: int, windows: int) -> int:
    """Return the windows that have a bit in them or in the `windows` - 1 before them."""
    reach = 1
    while reach < windows:
        step = min(reach, windows - reach)
        bits |= bits << step
        reach += step
    return bits


def in_a_row(bits: int, windows: int) -> int:
    """Return the windows that have a bit, as have the `windows` - 1 before them."""
    reach = 1
    while reach < windows:
        step = min(reach, windows - reach)
        bits &= bits << step
        reach += step
    return bits


def changed(bits: int) -> int:
    """Return the windows that differ from the one before them; before the first all is 0."""
    return bits ^ (bits << 1)


def _from(positions: list[int], first: int, none: int) -> int:
    """Return the first position from `first` on, `none` if there is none."""
    at = bisect_left(positions, first)
    return positions[at] if at < len(positions) else none
