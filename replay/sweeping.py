"""
The way into the array twin: one policy window by window, or many policies at once.

    series = series_of_windows(feed.windows(), symbols=feed.symbols, interval_ms=feed.interval_ms)
    decisions = decide_series(series, policy)           # every window
    outcomes = sweep(series, PolicyGrid(policy, axes))  # what each policy came to

Both decide as the core does, whatever the series and the policy ask; how fast depends on it. See
`domain.kernel` for the ways, and DECISIONS.md for which is taken when.
"""

from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np

from domain.errors import BadInput
from domain.kernel.decisions import Decisions, check_limit, decide_plain_series
from domain.kernel.grid import PolicyGrid, PolicyTable, table_of
from domain.kernel.integers import decide_by_integers
from domain.kernel.outcomes import (
    FLAP_WINDOWS,
    Outcomes,
    StateOutcomes,
    in_order,
    joined_states,
    stakes_table,
    state_outcomes_of,
    weighted_sums,
)
from domain.kernel.plan import batches_of, ground_of, tasks_of
from domain.kernel.recorded import decide_recorded_series
from domain.kernel.series import Series
from domain.kernel.tally import state_outcomes
from domain.policy import Policy

Money = Literal["none", "total", "symbols"]
"""No money, that of all symbols together, or each symbol's."""

SMALL: Final = 20_000
"""Symbols times windows that plain Python decides before compiled code is there."""


def decide_series(series: Series, policy: Policy | None = None) -> Decisions:
    """
    Return what the core decides over the series, after every window.

    Args:
        series: from `replay.preparing`.
        policy: by which; None for the recorded ones, or the default where nothing was recorded.

    Raises:
        BadInput: as the core refuses the policy for so many symbols.
    """
    fast = series.windows * len(series.symbols) > SMALL
    if series.is_plain and (policy is not None or not series.interventions):
        return decide_plain_series(series, policy or Policy(), fast=fast)
    return decide_recorded_series(series, policy, fast=fast)


def sweep(
    series: Series,
    policies: PolicyGrid | Sequence[Policy],
    *,
    money: Money = "none",
    flap_windows: int = FLAP_WINDOWS,
    on_progress: Callable[[int], bool] | None = None,
) -> Outcomes:
    """
    Return what each policy comes to over the series, in the order given.

    Args:
        series: from `replay.preparing`.
        policies: a grid, or a list of whatever policies.
        money: whether throttle-weighted money is added up, and whether for each symbol.
        flap_windows: a freeze that begins at most so many windows after the last one ended is
            a flap.
        on_progress: called now and then with the number of policies that are done; False stops,
            and what is returned then ends with the last one done.

    Raises:
        BadInput: as the core refuses one of the policies for so many symbols.
    """
    table = policies.table if isinstance(policies, PolicyGrid) else table_of(policies)
    if not len(table):
        raise BadInput("expected policies, was none")
    for frame in table.frames:
        check_limit(frame, series.limit)
    is_fast = series.is_plain and all(frame.global_freeze_symbols == 1 for frame in table.frames)
    if not is_fast or money != "none":
        return _sweep_one_by_one(series, table, money, flap_windows, on_progress)
    return Outcomes(states=_sweep_by_bitmaps(series, table, flap_windows))


def first_differences(
    series: Series, policies: PolicyGrid | Sequence[Policy], recorded: Decisions
) -> list[int | None]:
    """
    Return, for each policy, the first window in which it decides other than was recorded.

    That is by state or by an effective throttle; None if it never does. A replay is exact up
    to there, and a model after it.
    """
    table = policies.table if isinstance(policies, PolicyGrid) else table_of(policies)
    return [
        decide_series(series, table.policy(number)).first_difference(recorded)
        for number in range(len(table))
    ]


def _sweep_by_bitmaps(series: Series, table: PolicyTable, flap_windows: int) -> StateOutcomes:
    parts, places = [], []
    for number, frame in enumerate(table.frames):
        members = np.flatnonzero(table.frame == number)
        ground = ground_of(series, frame, table, members)
        tasks = tasks_of(ground, table, members)
        counted = [
            (batch, decide_by_integers(batch, flap_windows))
            for batch in batches_of(ground, tasks, 4)
        ]
        parts.append(state_outcomes(ground, series.windows, tasks, counted))
        places.append(members)
    return in_order(parts, np.concatenate(places))


def _sweep_one_by_one(
    series: Series,
    table: PolicyTable,
    money: Money,
    flap_windows: int,
    on_progress: Callable[[int], bool] | None,
) -> Outcomes:
    """Decide every policy's whole series, and count what came of it: exact for anything."""
    stakes = None if money == "none" else stakes_table(series.columns)
    states, sums = [], []
    for number in range(len(table)):
        decisions = decide_series(series, table.policy(number))
        states.append(state_outcomes_of([decisions], flap_windows))
        if stakes is not None:
            sums.append(weighted_sums(series, stakes, decisions))
        if on_progress is not None and not on_progress(number + 1):
            break
    joined = joined_states(states)
    if stakes is None:
        return Outcomes(states=joined)
    per_symbol = money == "symbols"
    return Outcomes(
        states=joined, money=stakes.money(series, np.array(sums), per_symbol=per_symbol)
    )
