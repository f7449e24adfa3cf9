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

from domain.kernel.bitmaps import as_integer, as_positions, packed
from domain.kernel.plan import CRIT_ROW, EXCUSED_ROW, IN_ROW, OUT_ROW, Batch
from domain.kernel.series import Integers
from domain.kernel.tally import COOLDOWN_COUNTS, FREEZE_COUNTS, Counts


class _Side(msgspec.Struct, frozen=True):
    """What one side of the thresholds says: C, W and not OK, the last in and out of a freeze."""

    crit: int
    no_data_crit: int
    warn: int
    ill_outside: int
    ill_inside: int
    excused: int


def decide_by_integers(batch: Batch, flap_windows: int) -> Counts:
    """Return what the batch's tasks come to, for `global_freeze_symbols` 1."""
    return _Integers(batch, flap_windows).counts()


class _Integers:
    def __init__(self, batch: Batch, flap_windows: int) -> None:
        self._batch = batch
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
        freezes, cooldowns = [], []
        batch = self._batch
        for number, (crit, warn, span) in enumerate(batch.freezes.tolist()):
            freeze = self._freeze(self._crit[crit], self._warn[warn], batch.spans[span])
            freezes.append(self._count_freezes(freeze.frozen))
            for cooldown in range(batch.begins[number], batch.begins[number + 1]):
                run, rest = batch.cooldowns[cooldown].tolist()
                cooling = freeze.cooling(batch.runs[run], batch.spans[rest])
                cooldowns.append(self._count_cooldowns(cooling, freeze.frozen))
        return Counts(
            freezes=np.array(freezes, np.int64).reshape(-1, FREEZE_COUNTS),
            cooldowns=np.array(cooldowns, np.int64).reshape(-1, COOLDOWN_COUNTS),
        )

    def _side(
        self, rows: list[int], no_data: list[list[int]], side: Integers, *, crit: bool
    ) -> _Side:
        *numbers, variant = side.tolist()
        breaches = 0
        for number in numbers:
            breaches |= rows[number]
        unknown = no_data[variant]
        return _Side(
            crit=breaches if crit else 0,
            no_data_crit=unknown[CRIT_ROW],
            warn=unknown[OUT_ROW] if crit else breaches | unknown[OUT_ROW],
            ill_outside=breaches | unknown[OUT_ROW],
            ill_inside=breaches | unknown[IN_ROW],
            excused=unknown[EXCUSED_ROW],
        )

    def _freeze(self, crit: _Side, warn: _Side, span: int) -> "_Freeze":
        ill_outside = crit.ill_outside | warn.ill_outside
        if not self._batch.ground.waivers_work:
            frozen = latched(crit.crit | crit.no_data_crit, within(ill_outside, span)) & self._mask
            return _Freeze(frozen, 0, 0, warn.warn, ill_outside, self._mask)
        frozen, ends, helped = self._stepped(crit, crit.ill_inside | warn.ill_inside, span)
        return _Freeze(frozen, ends, helped, warn.warn, ill_outside, self._mask)

    def _stepped(self, crit: _Side, ill_inside: int, span: int) -> tuple[int, int, int]:
        """
        Step from event to event where waivers are at work; see `domain.kernel.stepping`.

        Return FROZEN, the windows that lead out of it, and which of those a waiver helped to.
        """
        words, no_data_freeze = self._words, self._batch.ground.frame.no_data_freeze_windows
        breaches = as_positions(crit.crit, words).tolist()
        no_data = as_positions(crit.no_data_crit, words).tolist()
        open_windows = as_positions(~within(ill_inside, span) & self._mask, words).tolist()
        excused = within(crit.excused, span)
        frozen = ends = helped = 0
        end, begin = -no_data_freeze - 1, -1
        while True:
            begin = min(
                _from(breaches, end + 1, self._windows),
                _from(no_data, end + no_data_freeze, self._windows),
            )
            if begin >= self._windows:
                return frozen, ends, helped
            end = _from(open_windows, begin + span, self._windows)
            frozen |= (1 << end) - (1 << begin)
            if end < self._windows:
                ends |= 1 << end
                helped |= excused & 1 << end

    def _count_freezes(self, frozen: int) -> list[int]:
        starts = as_positions(frozen & ~(frozen << 1), self._words)
        ends = as_positions(~frozen & (frozen << 1) & self._mask, self._words)
        origin = self._batch.ground.kept.origin
        began, ended = (origin[at // 64] + at % 64 for at in (starts, ends))
        flaps = int(np.count_nonzero(began[1:] - ended[: len(began) - 1] <= self._flap_windows))
        first = int(began[0]) if len(began) else -1
        return [frozen.bit_count(), len(starts), flaps, first, len(starts) + len(ends)]

    def _count_cooldowns(self, cooling: int, frozen: int) -> list[int]:
        changes = changed(cooling) & ~changed(frozen) & self._mask
        return [cooling.bit_count(), changes.bit_count()]


class _Freeze(msgspec.Struct, frozen=True):
    """
    One freeze task, for its cooldowns to begin from.

    Attributes:
        frozen: the windows after which the state is FROZEN.
        ends, helped: with waivers at work, the windows that lead out of FROZEN, and those of them
            that lead into COOLDOWN, on probation.
        warn, ill: windows that count as WARN, and those that are not OK, out of a freeze.
        mask: the windows that there are.
    """

    frozen: int
    ends: int
    helped: int
    warn: int
    ill: int
    mask: int

    def cooling(self, run: int, span: int) -> int:
        """Return the windows after which the state is COOLDOWN."""
        # What was excused in a freeze is not a WARN window that counts after it.
        enough = in_a_row(self.warn, run) & ~within(self.ends, run) | self.helped
        goes_on = within(self.ill, span) | within(self.helped, span)
        return latched(enough & ~self.frozen, goes_on & ~self.frozen) & self.mask


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
