"""
The way into the array twin: one policy window by window, or many policies at once.

    series = series_of_windows(feed.windows(), symbols=feed.symbols, interval_ms=feed.interval_ms)
    decisions = decide_series(series, policy)           # every window
    outcomes = sweep(series, PolicyGrid(policy, axes))  # what each policy came to

Both decide as the core does, whatever the series and the policy ask; how fast depends on it. A
sweep over a plain series with `global_freeze_symbols` 1 goes by bitmaps, in machine words or in
Python integers; all else goes window by window. For progress, or to be interrupted, sweep in
pieces: a thousand policies take milliseconds. Source: DECISIONS.md 90 to 93.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Final, Literal, TypeVar

import numpy as np

from domain.errors import BadInput
from domain.kernel.compiling import can_compile
from domain.kernel.decisions import Decisions, check_limit, decide_plain_series
from domain.kernel.grid import PolicyGrid, PolicyTable, table_of
from domain.kernel.integers import decide_by_integers
from domain.kernel.machine import decide_by_words
from domain.kernel.money import PREFIX_MAX_BYTES, Till, till_of
from domain.kernel.outcomes import (
    FLAP_WINDOWS,
    Outcomes,
    StateOutcomes,
    in_order,
    money_in_order,
    stakes_table,
    state_outcomes_of,
    weighted_sums,
)
from domain.kernel.plan import Batch, Ground, Tasks, batches_of, ground_of, tasks_of
from domain.kernel.recorded import decide_recorded_series
from domain.kernel.series import Floats, Integers, Series
from domain.kernel.tally import Counts, joined_counts, money_through, state_outcomes
from domain.policy import Policy
from replay import warming

Money = Literal["none", "total", "symbols"]
"""No money, that of all symbols together, or each symbol's."""

Engine = Literal["auto", "words", "integers", "loop"]
"""Machine words, Python integers, or the loop; what can't be done by bitmaps is always looped."""

SMALL_LOOP: Final = 20_000
"""Symbols times windows that plain Python decides before compiled code is there."""

SMALL_SWEEP: Final = 2_000_000
"""Tasks times words that Python integers decide before compiled code is there."""

LARGE_SWEEP: Final = 1_000_000_000
"""Tasks times words that are worth waiting for the compiler for: Python would take minutes."""

PIECES_A_THREAD: Final = 2

T = TypeVar("T")
R = TypeVar("R")


def decide_series(
    series: Series, policy: Policy | None = None, *, fast: bool | None = None
) -> Decisions:
    """
    Return what the core decides over the series, after every window.

    Args:
        series: from `replay.preparing`.
        policy: by which; None for the recorded ones, or the default where nothing was recorded.
        fast: compiled or not; None for whichever takes less time.

    Raises:
        BadInput: as the core refuses the policy for so many symbols.
    """
    if fast is None:
        small = SMALL_LOOP if not warming.is_warm() else SMALL_LOOP // 20
        fast = series.rows * len(series.symbols) > small
    if series.is_plain and (policy is not None or not series.interventions):
        return decide_plain_series(series, policy or Policy(), fast=fast)
    return decide_recorded_series(series, policy, fast=fast)


def sweep(
    series: Series,
    policies: PolicyGrid | Sequence[Policy],
    *,
    money: Money = "none",
    flap_windows: int = FLAP_WINDOWS,
    threads: int | None = None,
    engine: Engine = "auto",
) -> Outcomes:
    """
    Return what each policy comes to over the series, in the order given.

    Args:
        series: from `replay.preparing`.
        policies: a grid, or a list of whatever policies.
        money: whether throttle-weighted money is added up, and whether for each symbol.
        flap_windows: a freeze that begins at most so many windows after the last one ended is
            a flap.
        threads: None for as many as there are cores for this process.
        engine: the outcome is the same.

    Raises:
        BadInput: if there is no policy, or as the core refuses one for so many symbols.
    """
    table = policies.table if isinstance(policies, PolicyGrid) else table_of(policies)
    if not len(table):
        raise BadInput("expected policies, was none")
    for frame in table.frames:
        check_limit(frame, series.limit)
    threads = threads or len(os.sched_getaffinity(0))
    parts: list[StateOutcomes] = []
    sums: list[Floats] = []
    places = [np.flatnonzero(table.frame == number) for number in range(len(table.frames))]
    for frame, members in zip(table.frames, places, strict=True):
        sweeping = _Sweep(series, table, frame, members, money, flap_windows, threads, engine)
        states, through = sweeping.outcomes()
        parts.append(states)
        sums.append(through)
    order = np.concatenate(places)
    states = in_order(parts, order)
    if money == "none":
        return Outcomes(states=states)
    return Outcomes(
        states=states,
        money=stakes_table(series).money(
            series, money_in_order(sums, order), per_symbol=money == "symbols"
        ),
    )


def first_differences(
    series: Series, policies: PolicyGrid | Sequence[Policy], recorded: Decisions
) -> list[int | None]:
    """
    Return, for each policy, the first window in which it decides other than was recorded.

    That is by state or by an effective throttle; None if it never does. A replay is exact up
    to there, and a model after it.

    Args:
        series: from `replay.preparing`.
        policies: a grid, or a list of whatever policies.
        recorded: what was decided, from `decide_series(series)`.
    """
    table = policies.table if isinstance(policies, PolicyGrid) else table_of(policies)
    return [
        decide_series(series, table.policy(number)).first_difference(recorded)
        for number in range(len(table))
    ]


class _Sweep:
    """The sweep over the policies of one frame."""

    def __init__(
        self,
        series: Series,
        table: PolicyTable,
        frame: Policy,
        members: Integers,
        money: Money,
        flap_windows: int,
        threads: int,
        engine: Engine,
    ) -> None:
        self._series = series
        self._table = table
        self._frame = frame
        self._members = members
        self._money = money
        self._flap_windows = flap_windows
        self._threads = threads
        self._engine = engine

    def outcomes(self) -> tuple[StateOutcomes, Floats]:
        """Return the members' outcomes, and what was let through, shape (members, columns, 2)."""
        is_latched = self._series.is_plain and self._frame.global_freeze_symbols == 1
        if self._engine == "loop" or not is_latched:
            return self._looped()
        ground = ground_of(self._series, self._frame, self._table, self._members)
        if self._money != "none" and ground.symbol_waivers_work:
            return self._looped()
        tasks = tasks_of(ground, self._table, self._members)
        counts, through = self._decided(ground, tasks)
        return state_outcomes(ground, self._series.windows, tasks, counts), through

    def _decided(self, ground: Ground, tasks: Tasks) -> tuple[Counts, Floats]:
        """Return the tasks' counts, and what was let through."""
        if self._money == "none":
            counts = self._counted(ground, tasks, None)
            return counts, np.zeros((len(self._members), 0, 2))
        cooldown = self._table.cooldown[self._members]
        per_symbol = self._money == "symbols"
        stakes = stakes_table(self._series)
        parts = []
        for symbols in _chunks(ground, self._series.limit, per_symbol):
            till = till_of(self._series, ground, stakes, symbols, per_symbol=per_symbol)
            counts = self._counted(ground, tasks, till)
            through = money_through(till, tasks, counts, cooldown)
            parts.append(through.reshape(len(through), -1, 2))
        if not per_symbol:
            return counts, np.sum(parts, axis=0)
        # Beyond the profile's limit nothing is let through.
        beyond = len(self._series.symbols) - self._series.limit
        parts.append(np.zeros((len(cooldown), beyond, 2)))
        return counts, np.concatenate(parts, axis=1)

    def _counted(self, ground: Ground, tasks: Tasks, till: Till | None) -> Counts:
        size = (len(tasks.freezes) + len(tasks.cooldowns)) * ground.words
        decide = partial(_decide, _fast_engine(self._engine, size), self._flap_windows, till)
        batches = batches_of(ground, tasks, PIECES_A_THREAD * self._threads)
        counted = _in_threads(decide, batches, self._threads)
        return joined_counts(tasks, counted, 0 if till is None else till.columns)

    def _looped(self) -> tuple[StateOutcomes, Floats]:
        """Decide every policy's whole series, and count what came of it: exact for anything."""
        stakes = None if self._money == "none" else stakes_table(self._series)

        def decide(number: int) -> tuple[StateOutcomes, Floats]:
            decisions = decide_series(self._series, self._table.policy(number))
            states = state_outcomes_of([decisions], self._flap_windows)
            if stakes is None:
                return states, np.zeros((0, 2))
            sums = weighted_sums(self._series, stakes, decisions)
            return states, sums if self._money == "symbols" else sums.sum(axis=0, keepdims=True)

        decided = list(_in_threads(decide, iter(self._members.tolist()), self._threads))
        states = in_order([one for one, _ in decided], np.arange(len(decided)))
        return states, np.array([sums for _, sums in decided])


def _chunks(ground: Ground, symbols: int, per_symbol: bool) -> Iterator[tuple[int, ...]]:
    """Yield the symbols whose prefix sums are in memory together."""
    # A window's change, and the gains and losses up to it.
    a_symbol = (3 if per_symbol else 1) * 8 * (ground.timeline.windows + 1)
    at_once = max(1, PREFIX_MAX_BYTES // a_symbol)
    for first in range(0, symbols, at_once):
        yield tuple(range(first, min(first + at_once, symbols)))


def _fast_engine(engine: Engine, size: int) -> Callable[[], bool]:
    """Return what says, before each piece, whether it is to be decided in machine words."""
    if engine == "integers" or not can_compile():
        return lambda: False
    if engine == "words" or warming.is_warm() or size > LARGE_SWEEP:
        return lambda: engine == "words" or size > SMALL_SWEEP
    if size > SMALL_SWEEP:
        warming.start_warming()
    return warming.is_warm


def _decide(
    is_fast: Callable[[], bool], flap_windows: int, till: Till | None, batch: Batch
) -> tuple[Batch, Counts]:
    engine = decide_by_words if is_fast() else decide_by_integers
    return batch, engine(batch, flap_windows, till)


def _in_threads(work: Callable[[T], R], pieces: Iterator[T], threads: int) -> Iterator[R]:
    """Yield what the work makes of each piece, in order."""
    if threads == 1:
        yield from map(work, pieces)
        return
    with ThreadPoolExecutor(threads) as pool:
        # No piece is made before its turn has come: each takes room.
        under_way = deque(pool.submit(work, piece) for piece in islice(pieces, 2 * threads))
        while under_way:
            yield under_way.popleft().result()
            under_way.extend(pool.submit(work, piece) for piece in islice(pieces, 1))
