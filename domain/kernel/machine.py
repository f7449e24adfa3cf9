"""
A batch decided in machine words: its layers, then every freeze and its cooldowns.

A layer is a row that many tasks read: each side's CRIT and WARN windows, spread over as many
windows as a policy waits, and its runs of WARN. Spreading distributes over OR, so a freeze only
joins two ready rows. Source: KERNEL_NOTES, steps 2 to 6.
"""

from typing import Any, Final

import msgspec
import numpy as np

from domain.kernel import latch, money, stepping, words
from domain.kernel.bitmaps import Bits
from domain.kernel.compiling import compiled
from domain.kernel.money import Halves, Till, halves_of
from domain.kernel.plan import CRIT_ROW, EXCUSED_ROW, IN_ROW, OUT_ROW, Batch
from domain.kernel.series import Flags, Integers
from domain.kernel.tally import Counts, new_counts

_ROW_HELPERS: Final = (
    words.join_later,
    words.meet_later,
    words.count_doublings,
    words.spread_further,
    words.find_longer_runs,
    words.find_words,
)
_LATCH_HELPERS: Final = (
    words.count_bits,
    latch.count_starts,
    latch.count_flaps,
    latch.spread_near,
    latch.count_near_flaps,
    latch.latch_freezes,
    latch.count_freezes,
    latch.latch_cooldowns,
    money.add_stretches,
    money.add_open_stretch,
)


_STEP_HELPERS: Final = (
    *_ROW_HELPERS,
    *_LATCH_HELPERS,
    latch.find_starts,
    stepping.next_start,
    stepping.next_clear,
    stepping.set_bits,
    stepping.step_freezes,
)


GROUP: Final = 64
"""Freezes that wait for their money together."""

BLOCK: Final = 128
"""Words whose prefix sums fit into a core's own cache."""

_NO_PREFIX: Final = np.zeros((0, 0), np.int64)
_NO_HALVES: Final = Halves(
    rows=np.zeros((0, 0), np.uint64),
    ranks=np.zeros((0, 0), np.int64),
    sums=np.zeros((0, 0), np.int64),
    ends=np.zeros(0, np.int64),
)


class Layers(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """
    The rows of a batch, all of so many words.

    Attributes:
        crit: shape (CRIT sides, words): CRIT by a breach, and by NO_DATA too where no waiver works.
        ill: shape (CRIT sides, spans, words): windows that were not OK within the last so many,
            by this side or by NO_DATA, out of a freeze.
        ill_inside: the same in a freeze; `ill` itself where no waiver works.
        further_ill: shape (WARN sides, spans, words): the same by the WARN side.
        excused: shape (variants, spans, words): windows within the last so many of which a waiver
            excused something; empty where no waiver works.
        enough: shape (WARN sides, runs, words): so many WARN windows in a row.
        visits, visit_counts: the words in which `enough` has a bit, shape (WARN sides, runs,
            words), and how many they are.
    """

    crit: Bits
    ill: Bits
    ill_inside: Bits
    further_ill: Bits
    excused: Bits
    enough: Bits
    visits: Integers
    visit_counts: Integers


def decide_by_words(batch: Batch, flap_windows: int, till: Till | None = None) -> Counts:
    """
    Return what the batch's tasks come to, for `global_freeze_symbols` 1.

    Money is added up where there is a till, which there must not be if waivers work.
    """
    layers = layers_of(batch)
    counts = new_counts(len(batch.freezes), len(batch.cooldowns), till.columns if till else 0)
    prefix, halves = _NO_PREFIX, _NO_HALVES
    if till is not None:
        prefix, halves = till.sums.prefix, halves_of(batch, till)
        ends = halves.sums[halves.ends[batch.freezes[:, 1]]]
        counts.halved_money[:] = ends
    ground = batch.ground
    last_word = np.uint64(ground.last_word)
    if ground.waivers_work:
        compiled(_step_all, *_STEP_HELPERS, _spread_all)(
            layers.crit, batch.no_data, layers.ill, layers.ill_inside, layers.further_ill,
            layers.excused, layers.enough, batch.crit_sides, np.array(batch.spans),
            np.array(batch.runs), ground.frame.no_data_freeze_windows, batch.freezes, batch.begins,
            batch.cooldowns, ground.kept.origin, last_word, flap_windows, counts.freezes,
            counts.cooldowns,
        )  # fmt: skip
    else:
        compiled(_latch_all, *_LATCH_HELPERS, _add_frozen)(
            layers.crit, layers.ill, layers.further_ill, layers.enough, layers.visits,
            layers.visit_counts, batch.freezes, batch.begins, batch.cooldowns, ground.kept.origin,
            ground.kept.words, last_word, flap_windows, prefix, halves.rows, halves.ranks,
            halves.sums, halves.ends, counts.freezes, counts.cooldowns, counts.frozen_money,
            counts.cooling_money,
        )  # fmt: skip
    return counts


def layers_of(batch: Batch) -> Layers:
    """Return the batch's rows."""
    size, waivers_work = batch.ground.words, batch.ground.waivers_work
    rows = np.zeros((sum(len(heads) for heads in batch.heads), size), np.uint64)
    first = 0
    for ranked, counts in zip(batch.ground.ranked, batch.heads, strict=True):
        compiled(words.fill_heads)(ranked.bits, counts, rows[first : first + len(counts)])
        first += len(counts)
    spans, runs = np.array(batch.spans), np.array(batch.runs)
    crit, warn = len(batch.crit_sides), len(batch.warn_sides)
    made = Layers(
        crit=np.empty((crit, size), np.uint64),
        ill=np.empty((crit, len(spans), size), np.uint64),
        ill_inside=np.empty((crit if waivers_work else 0, len(spans), size), np.uint64),
        further_ill=np.empty((warn, len(spans), size), np.uint64),
        excused=np.empty((len(batch.no_data) * waivers_work, len(spans), size), np.uint64),
        enough=np.empty((warn, len(runs), size), np.uint64),
        visits=np.empty((warn, len(runs), size), np.int64),
        visit_counts=np.zeros((warn, len(runs)), np.int64),
    )
    compiled(_spread_sides, *_ROW_HELPERS, _spread_all)(
        rows, batch.no_data, batch.crit_sides, batch.warn_sides, spans, runs,
        *_wanted(batch), waivers_work,
        made.crit, made.ill, made.ill_inside, made.further_ill, made.excused, made.enough,
        made.visits, made.visit_counts,
    )  # fmt: skip
    return made


def _wanted(batch: Batch) -> tuple[Flags, Flags, Flags]:
    """Return which spans are asked of each CRIT and WARN side, and which runs of each WARN side."""
    wanted = np.zeros((len(batch.crit_sides), len(batch.spans)), np.bool_)
    further = np.zeros((len(batch.warn_sides), len(batch.spans)), np.bool_)
    runs = np.zeros((len(batch.warn_sides), len(batch.runs)), np.bool_)
    crit, warn, span = batch.freezes.T
    wanted[crit, span] = further[warn, span] = True
    freeze_of = np.repeat(np.arange(len(batch.freezes)), np.diff(batch.begins))
    run, rest = batch.cooldowns.T
    wanted[crit[freeze_of], rest] = further[warn[freeze_of], rest] = True
    runs[warn[freeze_of], run] = True
    return wanted, further, runs


def _spread_sides(
    rows: Any, no_data: Any, crit_sides: Any, warn_sides: Any, spans: Any, runs: Any,
    wanted: Any, further_wanted: Any, runs_wanted: Any, waivers_work: bool,
    crit: Any, ill: Any, ill_inside: Any, further_ill: Any, excused: Any, enough: Any,
    visits: Any, visit_counts: Any,
) -> None:  # fmt: skip
    """Write the layers. See `Layers`."""
    size = rows.shape[1]
    joined, other = np.empty(size, np.uint64), np.empty(size, np.uint64)
    spare = np.empty(size, np.uint64)
    for side in range(len(crit_sides)):
        variant = crit_sides[side, crit_sides.shape[1] - 1]
        joined[:] = words.ZERO
        for part in range(crit_sides.shape[1] - 1):
            joined |= rows[crit_sides[side, part]]
        if waivers_work:
            crit[side] = joined
            other[:] = joined | no_data[variant, IN_ROW]
            _spread_all(other, spans, wanted[side], ill_inside[side], spare)
        else:
            crit[side] = joined | no_data[variant, CRIT_ROW]
        other[:] = joined | no_data[variant, OUT_ROW]
        _spread_all(other, spans, wanted[side], ill[side], spare)
    for variant in range(len(excused)):
        _spread_all(no_data[variant, EXCUSED_ROW], spans, spans > 0, excused[variant], spare)
    for side in range(len(warn_sides)):
        variant = warn_sides[side, warn_sides.shape[1] - 1]
        joined[:] = words.ZERO
        for part in range(warn_sides.shape[1] - 1):
            joined |= rows[warn_sides[side, part]]
        _spread_all(joined, spans, further_wanted[side], further_ill[side], spare)
        joined |= no_data[variant, OUT_ROW]
        known, reach = joined, 1
        for run in range(len(runs)):
            if runs_wanted[side, run]:
                words.find_longer_runs(known, reach, runs[run], enough[side, run], spare)
                known, reach = enough[side, run], runs[run]
                visit_counts[side, run] = words.find_words(known, visits[side, run])


def _spread_all(source: Any, spans: Any, wanted: Any, targets: Any, spare: Any) -> None:
    """Write a row's bits spread over each of the spans that are wanted; they ascend."""
    known, reach = source, 1
    for span in range(len(spans)):
        if wanted[span]:
            words.spread_further(known, reach, spans[span], targets[span], spare)
            known, reach = targets[span], spans[span]


def _latch_all(
    crit: Any, ill: Any, further_ill: Any, enough: Any, visits: Any, visit_counts: Any,
    freezes: Any, begins: Any, cooldowns: Any, origin: Any, kept: Any, last_word: Any,
    flap_windows: int, prefix: Any, half_rows: Any, half_ranks: Any, half_sums: Any,
    half_ends: Any, freeze_counts: Any, cooldown_counts: Any, frozen_money: Any, cooling_money: Any,
) -> None:  # fmt: skip
    """Latch every freeze and its cooldowns, count them, and add up their money if there is any."""
    size, columns = crit.shape[1], prefix.shape[1]
    frozen, cooling = np.empty((GROUP, size), np.uint64), np.empty(size, np.uint64)
    visited, nothing = np.empty(size, np.int64), np.zeros(size, np.uint64)
    pending = np.zeros(2, np.int64)
    for freeze in range(len(freezes)):
        side, other, span = freezes[freeze]
        row = frozen[freeze % GROUP]
        latch.latch_freezes(crit[side], ill[side, span], further_ill[other, span], row)
        latch.count_freezes(row, origin, last_word, flap_windows, cooling, freeze_counts[freeze])
        for cooldown in range(begins[freeze], begins[freeze + 1]):
            run, rest = cooldowns[cooldown]
            found = latch.latch_cooldowns(
                enough[other, run], visits[other, run, : visit_counts[other, run]],
                ill[side, rest], further_ill[other, rest], nothing, row, last_word,
                visited, cooling, cooldown_counts[cooldown],
            )  # fmt: skip
            if columns and found:
                sums = cooling_money[cooldown]
                money.add_stretches(
                    visited, cooling, found, words.ZERO, kept, prefix, half_rows[other],
                    half_ranks[other], half_sums, pending, sums,
                )  # fmt: skip
                if visited[found - 1] == size - 1:
                    money.add_open_stretch(
                        cooling[found - 1], last_word, prefix, half_sums, half_ends[other],
                        pending, sums,
                    )  # fmt: skip
        if columns and (freeze % GROUP == GROUP - 1 or freeze == len(freezes) - 1):
            _add_frozen(
                frozen, freeze - freeze % GROUP, freeze + 1, freezes, kept, last_word, prefix,
                half_rows, half_ranks, half_sums, half_ends, frozen_money,
            )  # fmt: skip


def _add_frozen(
    frozen: Any, first: int, last: int, freezes: Any, kept: Any, last_word: Any, prefix: Any,
    half_rows: Any, half_ranks: Any, half_sums: Any, half_ends: Any, frozen_money: Any,
) -> None:  # fmt: skip
    """
    Add up a group's money under FROZEN, block by block.

    Prefix sums are larger than the near caches and a freeze asks for them here and there: so all
    freezes of the group ask for those of a block before any asks for the next block's.
    """
    size = frozen.shape[1]
    every, pending = np.arange(size), np.zeros((GROUP, 2), np.int64)
    for begin in range(0, size, BLOCK):
        end = min(begin + BLOCK, size)
        for freeze in range(first, last):
            other, row = freezes[freeze, 1], frozen[freeze % GROUP]
            before = row[begin - 1] >> words.LAST if begin else words.ZERO
            money.add_stretches(
                every[begin:end], row[begin:end], end - begin, before, kept, prefix,
                half_rows[other], half_ranks[other], half_sums, pending[freeze % GROUP],
                frozen_money[freeze],
            )  # fmt: skip
    if size:
        for freeze in range(first, last):
            money.add_open_stretch(
                frozen[freeze % GROUP, size - 1], last_word, prefix, half_sums,
                half_ends[freezes[freeze, 1]], pending[freeze % GROUP], frozen_money[freeze],
            )  # fmt: skip


def _step_all(
    crit: Any, no_data: Any, ill: Any, ill_inside: Any, further_ill: Any, excused: Any, enough: Any,
    crit_sides: Any, spans: Any, runs: Any, no_data_freeze: int, freezes: Any, begins: Any,
    cooldowns: Any, origin: Any, last_word: Any, flap_windows: int,
    freeze_counts: Any, cooldown_counts: Any,
) -> None:  # fmt: skip
    """Step through every freeze and latch its cooldowns, and count them, with waivers at work."""
    size = crit.shape[1]
    frozen, ends = np.empty(size, np.uint64), np.empty(size, np.uint64)
    helped, spare = np.empty(size, np.uint64), np.empty(size, np.uint64)
    visited, cooling = np.empty(size, np.int64), np.empty(size, np.uint64)
    fresh = np.empty((len(runs), size), np.uint64)
    starts = np.empty((len(runs), size), np.uint64)
    visits, found = np.empty((len(runs), size), np.int64), np.empty(len(runs), np.int64)
    goes_on = np.empty((len(spans), size), np.uint64)
    for freeze in range(len(freezes)):
        side, other, span = freezes[freeze]
        variant = crit_sides[side, crit_sides.shape[1] - 1]
        stepping.step_freezes(
            crit[side], no_data[variant, CRIT_ROW], ill_inside[side, span],
            further_ill[other, span], excused[variant, span], spans[span], no_data_freeze,
            last_word, frozen, ends, helped,
        )  # fmt: skip
        first, last = begins[freeze], begins[freeze + 1]
        runs_wanted, spans_wanted = runs < 0, spans < 0
        for cooldown in range(first, last):
            runs_wanted[cooldowns[cooldown, 0]] = True
            spans_wanted[cooldowns[cooldown, 1]] = True
        _spread_all(ends, runs, runs_wanted, fresh, spare)
        _spread_all(helped, spans, spans_wanted, goes_on, spare)
        for run in range(len(runs)):
            if runs_wanted[run]:
                found[run] = latch.find_starts(
                    enough[other, run], fresh[run], helped, frozen, starts[run], visits[run]
                )
        latch.count_freezes(frozen, origin, last_word, flap_windows, ends, freeze_counts[freeze])
        for cooldown in range(first, last):
            run, rest = cooldowns[cooldown]
            latch.latch_cooldowns(
                starts[run], visits[run, : found[run]], ill[side, rest], further_ill[other, rest],
                goes_on[rest], frozen, last_word, visited, cooling, cooldown_counts[cooldown],
            )  # fmt: skip
