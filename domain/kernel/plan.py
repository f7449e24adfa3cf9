"""
The plan of a sweep: which rows there are, which work is shared, and in which pieces it is done.

Of 10,368 policies of a grid, 1,152 freeze differently and a few dozen ask something of their own of
the windows. FROZEN depends on thresholds, `unfreeze_after_ok_windows` and `no_data_freeze_windows`
alone; COOLDOWN on that, `min_warn_windows` and `min_ok_windows`; `cooldown_throttle` on nothing at
all. So policies become tasks: freezes, each with its cooldowns. Source: KERNEL_NOTES, Share.
"""

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np

from domain.kernel.bitmaps import Bits, Kept, Timeline, keep_around, packed, timeline_of
from domain.kernel.evidence import (
    NoDataCells,
    Ranked,
    kept_cells,
    no_data_cells,
    rank,
    worst_severities,
)
from domain.kernel.grid import PolicyTable
from domain.kernel.series import Floats, Integers, Series
from domain.kpis import KPIS, Verdict
from domain.policy import Policy

CRIT_SIDE: Final = tuple(at for at, kpi in enumerate(KPIS) if kpi.verdict is Verdict.CRIT)
WARN_SIDE: Final = tuple(at for at, kpi in enumerate(KPIS) if kpi.verdict is Verdict.WARN)
"""The KPIs by what a breach of them is worth."""

CRIT_ROW, OUT_ROW, IN_ROW, EXCUSED_ROW = 0, 1, 2, 3
"""NO_DATA of a window, by bitmap: CRIT; not OK out of a freeze; not OK in one; excused in one."""

ROWS_MAX_BYTES: Final = 64 << 20
"""About what the rows of one batch may take."""

KEY_MAX: Final = 1 << 62


class Ground(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """
    What all policies of a frame share: the time, and the evidence in it.

    Attributes:
        frame: a policy for all that isn't in columns.
        timeline, kept: the bits' time, and the words of it that matter.
        thresholds: by KPI, the distinct thresholds, ascending.
        ranked: by KPI, what they breach; places among the kept words.
        cells: by KPI, NO_DATA; places among the kept words.
        waivers_work: whether a waiver can make a window OK that would else be NO_DATA.
        symbol_waivers_work: whether it can make one symbol's window so.
    """

    frame: Policy
    timeline: Timeline
    kept: Kept
    thresholds: tuple[Floats, ...]
    ranked: tuple[Ranked, ...]
    cells: tuple[NoDataCells, ...]
    waivers_work: bool
    symbol_waivers_work: bool

    @property
    def words(self) -> int:
        """How many words a row has."""
        return len(self.kept.words)

    @property
    def last_word(self) -> int:
        """Which bits of the last kept word are windows; the series may end within it."""
        left = self.timeline.windows - int(self.kept.words[-1]) * 64
        return (1 << min(left, 64)) - 1

    def no_data_rows(self, thresholds: tuple[float, ...]) -> Bits:
        """Return the four NO_DATA rows under these thresholds, shape (4, words)."""
        rows = np.zeros((4, self.words), np.uint64)
        for kpi, cells, threshold in zip(KPIS, self.cells, thresholds, strict=True):
            if not len(cells.bits):
                continue
            count, excused = cells.judged(kpi, threshold)
            masks = {
                CRIT_ROW: count >= self.frame.no_data_freeze_windows,
                OUT_ROW: count > 0,
                IN_ROW: (count > 0) & ~excused,
                EXCUSED_ROW: excused,
            }
            for number, mask in masks.items():
                rows[number] |= packed(cells.bits[mask], self.words)
        return rows


class Tasks(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """
    What there is to do for the policies of one frame, duplicates aside.

    Attributes:
        sides: shape (sides, 3 + 1) and (sides, 2 + 1) for CRIT and WARN: which thresholds, and
            which NO_DATA variant.
        variants: shape (variants, KPIs), an example of each NO_DATA variant's thresholds.
        freezes: shape (freezes, 3): CRIT side, WARN side, `unfreeze_after_ok_windows`.
        cooldowns: shape (cooldowns, 3): freeze, `min_warn_windows`, `min_ok_windows`; in the
            order of the freezes.
        cooldown_of: shape (policies,), each policy's cooldown.
    """

    crit_sides: Integers
    warn_sides: Integers
    variants: Floats
    freezes: Integers
    cooldowns: Integers
    cooldown_of: Integers


class Batch(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """
    A piece of the tasks, with what its rows are made of.

    Attributes:
        ground: of the frame.
        heads: by KPI, how many of the ranked windows each row has; a row's number counts on from
            KPI to KPI.
        no_data: shape (variants, 4, words).
        variants: shape (variants, KPIs), an example of each variant's thresholds.
        crit_sides, warn_sides: as in `Tasks`, of rows and variants here.
        warn_thresholds: shape (WARN sides, WARN KPIs).
        spans: the counts of OK windows asked for, ascending.
        runs: the counts of WARN windows asked for, ascending.
        freezes: shape (freezes, 3): CRIT side, WARN side and span here.
        begins: shape (freezes + 1,), where each freeze's cooldowns begin.
        cooldowns: shape (cooldowns, 2): run and span here.
        first_freeze, first_cooldown: where the piece lies among all tasks.
    """

    ground: Ground
    heads: tuple[Integers, ...]
    no_data: Bits
    variants: Floats
    crit_sides: Integers
    warn_sides: Integers
    warn_thresholds: Floats
    spans: tuple[int, ...]
    runs: tuple[int, ...]
    freezes: Integers
    begins: Integers
    cooldowns: Integers
    first_freeze: int
    first_cooldown: int


def ground_of(series: Series, frame: Policy, table: PolicyTable, members: Integers) -> Ground:
    """Return the time and the evidence for the members of the table that share a frame."""
    timeline = timeline_of(series, frame.no_data_freeze_windows)
    symbols = range(series.limit)
    thresholds = tuple(np.unique(column) for column in table.thresholds[members].T)
    ranked = [
        rank(kpi, worst, column, timeline)
        for kpi, worst, column in zip(
            KPIS, worst_severities(series, frame, symbols), thresholds, strict=True
        )
    ]
    cells = no_data_cells(series, frame, symbols, timeline)
    waivers_work = _waivers_work(cells, thresholds, timeline)
    longest = int(max(table.min_ok[members].max(), table.unfreeze_after[members].max()))
    if waivers_work:
        longest += int(table.min_ok[members].max())
    bits = [one.bits for one in ranked]
    for at, kpi in enumerate(KPIS):
        count, _ = cells[at].judged(kpi, tightest(at, thresholds))
        bits.append(cells[at].bits[count > 0])
    kept = keep_around(timeline, np.concatenate(bits), longest + 1)
    return Ground(
        frame=frame,
        timeline=timeline,
        kept=kept,
        thresholds=thresholds,
        ranked=tuple(one.at(kept.positions(one.bits)) for one in ranked),
        cells=tuple(kept_cells(one, kept) for one in cells),
        waivers_work=waivers_work,
        symbol_waivers_work=waivers_work
        or any(_waivers_work(cells, thresholds, timeline, symbol) for symbol in symbols),
    )


def tasks_of(ground: Ground, table: PolicyTable, members: Integers) -> Tasks:
    """Return what there is to do for the members, each thing once."""
    places = [
        np.searchsorted(known, column)
        for known, column in zip(ground.thresholds, table.thresholds[members].T, strict=True)
    ]
    variants = [
        cells.variants(kpi, known)[place]
        for kpi, cells, known, place in zip(
            KPIS, ground.cells, ground.thresholds, places, strict=True
        )
    ]
    _, example, variant = _distinct(variants)
    crit, _, crit_of = _distinct([*(places[at] for at in CRIT_SIDE), variant])
    warn, _, warn_of = _distinct([*(places[at] for at in WARN_SIDE), variant])
    freezes, _, freeze_of = _distinct([crit_of, warn_of, table.unfreeze_after[members]])
    cooldowns, _, cooldown_of = _distinct(
        [freeze_of, table.min_warn[members], table.min_ok[members]]
    )
    return Tasks(
        crit_sides=crit,
        warn_sides=warn,
        variants=table.thresholds[members][example],
        freezes=freezes,
        cooldowns=cooldowns,
        cooldown_of=cooldown_of,
    )


def batches_of(ground: Ground, tasks: Tasks, pieces: int) -> Iterator[Batch]:
    """
    Yield the tasks in pieces: at least so many where there are enough, none with too many rows.

    A piece is worked on by one thread and makes its own rows.
    """
    spans = np.union1d(tasks.freezes[:, 2], tasks.cooldowns[:, 2])
    runs = np.unique(tasks.cooldowns[:, 1])
    bytes_a_row = max(1, ground.words) * 8
    rows_a_side = len(CRIT_SIDE) + len(WARN_SIDE) + 2 * len(spans) + len(runs) + 5
    sides_max = max(1, ROWS_MAX_BYTES // (bytes_a_row * rows_a_side))
    begins = np.searchsorted(tasks.cooldowns[:, 0], np.arange(len(tasks.freezes) + 1))
    for first, last in _cuts(tasks.freezes, sides_max, max(1, len(tasks.freezes) // pieces)):
        freezes = tasks.freezes[first:last]
        crit, crit_of = np.unique(freezes[:, 0], return_inverse=True)
        warn, warn_of = np.unique(freezes[:, 1], return_inverse=True)
        cooldowns = tasks.cooldowns[begins[first] : begins[last]]
        heads, crit_sides, warn_sides, variants = _rows_of(
            ground, tasks.crit_sides[crit], tasks.warn_sides[warn]
        )
        no_data = [ground.no_data_rows(tuple(tasks.variants[one].tolist())) for one in variants]
        yield Batch(
            ground=ground,
            heads=heads,
            no_data=np.array(no_data).reshape(len(no_data), 4, ground.words),
            variants=tasks.variants[variants],
            crit_sides=crit_sides,
            warn_sides=warn_sides,
            warn_thresholds=np.stack(
                [
                    ground.thresholds[at][tasks.warn_sides[warn, column]]
                    for column, at in enumerate(WARN_SIDE)
                ],
                axis=1,
            ),
            spans=tuple(spans.tolist()),
            runs=tuple(runs.tolist()),
            freezes=np.stack(
                [crit_of, warn_of, np.searchsorted(spans, freezes[:, 2])], axis=1
            ).astype(np.int64),
            begins=begins[first : last + 1] - begins[first],
            cooldowns=np.stack(
                [
                    np.searchsorted(runs, cooldowns[:, 1]),
                    np.searchsorted(spans, cooldowns[:, 2]),
                ],
                axis=1,
            ).astype(np.int64),
            first_freeze=int(first),
            first_cooldown=int(begins[first]),
        )


def _rows_of(
    ground: Ground, crit: Integers, warn: Integers
) -> tuple[tuple[Integers, ...], Integers, Integers, Integers]:
    """Return the rows that sides are made of, the sides in terms of them, and the variants."""
    variants, variant_of = np.unique(
        np.concatenate([crit[:, -1], warn[:, -1]]), return_inverse=True
    )
    crit_sides, warn_sides = crit.copy(), warn.copy()
    crit_sides[:, -1] = variant_of[: len(crit)]
    warn_sides[:, -1] = variant_of[len(crit) :]
    heads, rows = [], 0
    for at, kpi in enumerate(KPIS):
        sides, order = (crit_sides, CRIT_SIDE) if at in CRIT_SIDE else (warn_sides, WARN_SIDE)
        column = order.index(at)
        places, place_of = np.unique(sides[:, column], return_inverse=True)
        sides[:, column] = place_of + rows
        rows += len(places)
        heads.append(ground.ranked[at].counts(kpi, ground.thresholds[at][places]))
    return tuple(heads), crit_sides, warn_sides, variants


def _cuts(freezes: Integers, sides_max: int, freezes_max: int) -> Iterator[tuple[int, int]]:
    """Yield from where to where among the freezes each piece goes."""
    first = 0
    crit: set[int] = set()
    warn: set[int] = set()
    for number, (crit_side, warn_side, _) in enumerate(freezes.tolist()):
        crit.add(crit_side)
        warn.add(warn_side)
        if len(crit) + len(warn) > 2 * sides_max or number - first >= freezes_max:
            if number > first:
                yield first, number
            first, crit, warn = number, {crit_side}, {warn_side}
    yield first, len(freezes)


def _distinct(columns: list[Integers]) -> tuple[Integers, Integers, Integers]:
    """
    Return the distinct combinations in order, shape (n, columns); where each was first seen; and
    which one each row is.

    The columns are small numbers from 0 on: they are digits of one number.
    """
    keys, largest = np.zeros(len(columns[0]), np.int64), 1
    for column in columns:
        base = int(column.max()) + 1
        if largest * base > KEY_MAX:
            keys = np.unique(keys, return_inverse=True)[1].astype(np.int64)
            largest = int(keys.max()) + 1
        keys *= base
        keys += column
        largest *= base
    _, example, number = np.unique(keys, return_index=True, return_inverse=True)
    return np.stack(columns, axis=1)[example].astype(np.int64), example, number.astype(np.int64)


def tightest(at: int, thresholds: tuple[Floats, ...]) -> float:
    """Return the threshold of a KPI that the most values breach."""
    column = thresholds[at]
    return float(column.max() if KPIS[at].breached_when == "<" else column.min())


def _loosest(at: int, thresholds: tuple[Floats, ...]) -> float:
    column = thresholds[at]
    return float(column.min() if KPIS[at].breached_when == "<" else column.max())


def _waivers_work(
    cells: list[NoDataCells],
    thresholds: tuple[Floats, ...],
    timeline: Timeline,
    symbol: int | None = None,
) -> bool:
    """
    Return whether in some window, under some policy, all that there is to say is excused.

    Elsewhere a freeze can't end, so that what a waiver does in it changes no state. With a symbol,
    only that one is looked at.
    """
    if not any(one.waived and one.absent.any() for one in cells):
        return False
    excused = np.zeros(timeline.windows, np.bool_)
    stays = np.zeros(timeline.windows, np.bool_)
    for at, (kpi, one) in enumerate(zip(KPIS, cells, strict=True)):
        _, waived = one.judged(kpi, tightest(at, thresholds))
        mine = np.True_ if symbol is None else one.symbol == symbol
        excused[one.bits[waived & mine]] = True
        count, waived = one.judged(kpi, _loosest(at, thresholds))
        stays[one.bits[(count > 0) & ~waived & mine]] = True
    return bool((excused & ~stays).any())
