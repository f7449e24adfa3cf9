"""
Money over stretches: what throttles let through, by prefix sums instead of window by window.

A state holds for stretches of windows, and what a stretch was worth is the difference of two
prefix sums. Let s[i] be what the windows 1 to i brought: a throttle decided in the windows a to
b - 1 acted on a + 1 to b, and let through its part of s[b] - s[a]. With `global_freeze_symbols` 1 a
symbol's own freeze lies within the global one, so that out of a freeze a symbol is throttled by
half where it is WARN and not at all elsewhere; the WARN windows of each pair of WARN thresholds
have prefix sums of their own, over those windows only. Every sum is in whole units, so that no
order matters.
Source: issue 6, Honest money; KERNEL_NOTES, step 7.
"""

from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

from domain.kernel.bitmaps import WORD, Bits, Timeline
from domain.kernel.cells import is_breached
from domain.kernel.compiling import lowest_bit, popcount
from domain.kernel.evidence import Ranked, severity
from domain.kernel.outcomes import StakesTable
from domain.kernel.plan import WARN_SIDE, Batch, Ground, tightest
from domain.kernel.series import Floats, Integers, Series
from domain.kernel.words import FULL, LAST, ONE, ZERO
from domain.kpis import KPIS

PREFIX_MAX_BYTES: Final = 512 << 20
"""What the prefix sums of the symbols that are added up at once may take."""

SIDES_KEPT: Final = 64
"""How many WARN sides' sums are kept for other batches."""


class PrefixSums(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """
    What windows brought, added up; columns are gains and losses of the symbols, or of all together.

    Attributes:
        prefix: shape (windows of the timeline + 1, columns), the windows from the second on.
        full: shape (columns,), what all windows brought.
        nexts: shape (symbols, windows of the timeline), what the window after each brought.
    """

    prefix: Integers
    full: Integers
    nexts: Integers


_sums: "WeakKeyDictionary[Series, dict[object, PrefixSums]]" = WeakKeyDictionary()
"""The latest of each series, kept as long as that is: no policy has a say in it."""


class Till(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """
    What all policies of a frame share: the prefix sums, and which symbol is ill when.

    Attributes:
        symbols: which symbols are added up.
        sums: of these symbols.
        ranked: by WARN KPI and symbol, the windows that the tightest threshold breaches.
        sides: the WARN windows of WARN sides that were asked for, by thresholds.
    """

    symbols: tuple[int, ...]
    sums: PrefixSums
    ranked: tuple[tuple[Ranked, ...], ...]
    sides: dict[bytes, tuple[Bits, Integers, Integers]]

    @property
    def columns(self) -> int:
        """How many sums there are."""
        return int(self.sums.prefix.shape[1])


class Halves(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """
    The windows in which some symbol is WARN, for each WARN side of a batch.

    Attributes:
        rows: shape (WARN sides, words), those windows.
        ranks: shape (WARN sides, words), where in `sums` the first window of each word is.
        sums: shape (n, columns): prefix sums over the windows of `rows`, one side after the other.
        ends: shape (WARN sides,), where in `sums` the side's total is.
    """

    rows: Bits
    ranks: Integers
    sums: Integers
    ends: Integers


def till_of(
    series: Series, ground: Ground, stakes: StakesTable, symbols: tuple[int, ...], *,
    per_symbol: bool,
) -> Till:  # fmt: skip
    """Return the prefix sums of these symbols, all of which may trade."""
    key = symbols, per_symbol, ground.timeline.windows, ground.timeline.left_out
    known = _sums.setdefault(series, {})
    if key not in known:
        known.clear()
        known[key] = _prefix_sums(ground.timeline, stakes, symbols, per_symbol=per_symbol)
    return Till(
        symbols=symbols,
        sums=known[key],
        ranked=tuple(
            zip(*(_symbol_ranked(series, ground, symbol) for symbol in symbols), strict=True)
        ),
        sides={},
    )


def _prefix_sums(
    timeline: Timeline, stakes: StakesTable, symbols: tuple[int, ...], *, per_symbol: bool
) -> PrefixSums:
    # After the last window there is one more, that brings nothing.
    changes = np.zeros((len(symbols), timeline.windows + 1), np.int64)
    for place, symbol in enumerate(symbols):
        changes[place, timeline.rows] = stakes.of(symbol).change
    columns = 2 * len(symbols) if per_symbol else 2
    prefix = np.zeros((timeline.windows + 1, columns), np.int64)
    for place, change in enumerate(changes):
        gains = 2 * place if per_symbol else 0
        prefix[1:, gains] += np.maximum(change[1:], 0)
        prefix[1:, gains + 1] -= np.minimum(change[1:], 0)
    np.cumsum(prefix, axis=0, out=prefix)
    full = prefix[-1].copy()
    for place in range(len(symbols)):
        first = int(changes[place, 0])
        full[(2 * place if per_symbol else 0) + (first < 0)] += abs(first)
    return PrefixSums(prefix=prefix, full=full, nexts=changes[:, 1:])


def halves_of(batch: Batch, till: Till) -> Halves:
    """Return the WARN windows of each WARN side of the batch."""
    parts = [_side_of(batch, till, side) for side in range(len(batch.warn_sides))]
    sizes = np.array([len(sums) for _, _, sums in parts], np.int64)
    begins = np.cumsum(sizes) - sizes
    return Halves(
        rows=np.stack([row for row, _, _ in parts]),
        ranks=np.stack([ranks for _, ranks, _ in parts]) + begins[:, None],
        sums=np.concatenate([sums for _, _, sums in parts]),
        ends=begins + sizes - 1,
    )


def _side_of(batch: Batch, till: Till, side: int) -> tuple[Bits, Integers, Integers]:
    """Return a WARN side's row, ranks and sums: batches of a grid have their sides in common."""
    variant = batch.variants[batch.warn_sides[side, -1]]
    key = batch.warn_thresholds[side].tobytes() + variant.tobytes()
    known = till.sides.get(key)
    if known is None:
        own = _symbol_bits(batch, till, side)
        kept = batch.ground.kept
        found = np.unique(np.concatenate(own))
        windows = kept.words[found // WORD] * WORD + found % WORD
        sums = np.zeros((len(found) + 1, till.columns), np.int64)
        for place, bits in enumerate(own):
            is_mine = np.zeros(len(found), np.bool_)
            is_mine[np.searchsorted(found, bits)] = True
            change = np.where(is_mine, till.sums.nexts[place, windows], 0)
            gains = 2 * place if till.columns == 2 * len(own) else 0
            sums[1:, gains] += np.maximum(change, 0)
            sums[1:, gains + 1] -= np.minimum(change, 0)
        np.cumsum(sums, axis=0, out=sums)
        row = kept.row(found)
        counts = np.bitwise_count(row).astype(np.int64)
        ranks = np.cumsum(counts) - counts
        known = row, ranks, sums
        if len(till.sides) < SIDES_KEPT:
            till.sides[key] = known
    return known


def _symbol_ranked(series: Series, ground: Ground, symbol: int) -> list[Ranked]:
    """Return by WARN KPI which of a symbol's windows the tightest threshold breaches."""
    columns, found = series.columns[symbol], []
    own = ground.frame.symbols.get(series.symbols[symbol], {})
    for at in WARN_SIDE:
        kpi = KPIS[at]
        threshold = own.get(kpi.policy_key, tightest(at, ground.thresholds))
        breaches = is_breached(kpi, columns.values[at], threshold)
        breaches[columns.not_valid[at]] = False
        rows = np.flatnonzero(breaches)
        descending = -severity(kpi, columns.values[at, rows])
        if kpi.policy_key in own:
            # Whatever the general threshold is, this symbol has its own.
            descending = np.full(len(rows), -np.inf)
        order = np.argsort(descending, kind="stable")
        bits = ground.kept.positions(ground.timeline.rows[rows[order]])
        found.append(Ranked(bits, descending[order]))
    return found


def _symbol_bits(batch: Batch, till: Till, side: int) -> list[Integers]:
    """Return by symbol the WARN windows under a WARN side, NO_DATA among them; some twice."""
    ground = batch.ground
    parts: list[list[Integers]] = [[] for _ in till.symbols]
    for column, at in enumerate(WARN_SIDE):
        threshold = np.array([batch.warn_thresholds[side, column]])
        for part, ranked in zip(parts, till.ranked[column], strict=True):
            head = int(ranked.counts(KPIS[at], threshold)[0])
            part.append(ranked.bits[:head])
    variant = batch.variants[batch.warn_sides[side, -1]]
    for kpi, cells, threshold in zip(KPIS, ground.cells, variant, strict=True):
        if not len(cells.bits):
            continue
        count, _ = cells.judged(kpi, float(threshold))
        for part, symbol in zip(parts, till.symbols, strict=True):
            part.append(cells.bits[(count > 0) & (cells.symbol == symbol)])
    return [np.concatenate(part) for part in parts]


def add_stretches(
    visited: Any, held: Any, visits: int, before: Any, words: Any, prefix: Any, half_row: Any,
    half_ranks: Any, half_sums: Any, pending: Any, sums: Any,
) -> None:  # fmt: skip
    """
    Add what the windows in which a state holds let through, all of it and the halved part.

    Args:
        visited, held: words, ascending, and the windows in them in which the state holds; it
            holds in no other word.
        visits: how many of them there are.
        before: 1 if the state holds in the window before the first of them.
        words: the kept words' numbers on the timeline.
        prefix: of `PrefixSums`.
        half_row, half_ranks, half_sums: of one side of `Halves`.
        pending: shape (2,), where the stretch that isn't over began: its window and its rank
            among the halved ones. From one block of words to the next.
        sums: shape (2 x columns,), added to: all of it, then the halved part.
    """
    columns = prefix.shape[1]
    begin, begin_rank = pending[0], pending[1]
    for visit in range(visits):
        word, bits = visited[visit], held[visit]
        if visit and visited[visit - 1] != word - 1:
            before = ZERO
        edges = bits ^ ((bits << ONE) | before)
        before = bits >> LAST
        while edges != ZERO:
            bit = lowest_bit(edges)
            edge = ONE << np.uint64(bit)
            edges ^= edge
            window = min(words[word] * WORD + bit, len(prefix) - 1)
            rank = half_ranks[word] + popcount(half_row[word] & (edge - ONE))
            if bits & edge != ZERO:
                begin, begin_rank = window, rank
                continue
            for column in range(columns):
                sums[column] += prefix[window, column] - prefix[begin, column]
            if rank != begin_rank:
                for column in range(columns):
                    difference = half_sums[rank, column] - half_sums[begin_rank, column]
                    sums[columns + column] += difference
    pending[0], pending[1] = begin, begin_rank


def add_open_stretch(
    last_held: Any, last_word: Any, prefix: Any, half_sums: Any, half_end: int, pending: Any,
    sums: Any,
) -> None:  # fmt: skip
    """
    Add what a stretch let through that lasts to the end of the last word, where no bit ends it.

    A stretch that ends with the series before that has its end among the bits.
    """
    if last_word == FULL and last_held >> LAST != ZERO:
        columns, begin, begin_rank = prefix.shape[1], pending[0], pending[1]
        for column in range(columns):
            sums[column] += prefix[len(prefix) - 1, column] - prefix[begin, column]
            sums[columns + column] += half_sums[half_end, column] - half_sums[begin_rank, column]


def let_through(
    full: Integers, frozen: Integers, cooling: Integers, halves: Integers, cooldown: Floats
) -> Floats:
    """
    Return what throttles let through, in units, shape (policies, columns).

    Args:
        full: shape (columns,), what all windows brought.
        frozen, cooling: shape (policies, 2 x columns), under FROZEN and under COOLDOWN, all of it
            and then the halved part.
        halves: shape (policies, columns), the halved part under any state.
        cooldown: shape (policies,), the throttle in COOLDOWN.
    """
    columns = len(full)
    active = full - frozen[:, :columns] - cooling[:, :columns]
    active_half = halves - frozen[:, columns:] - cooling[:, columns:]
    cooling_full = cooling[:, :columns] - cooling[:, columns:]
    throttle = cooldown[:, None]
    through: Floats = (
        (active - active_half)
        + 0.5 * active_half
        + throttle * cooling_full
        + np.minimum(throttle, 0.5) * cooling[:, columns:]
    )
    return through
