"""
The tally: what tasks came to, as outcomes of the policies that they were for.
"""

from collections.abc import Iterable

import msgspec
import numpy as np

from domain.kernel.loop import ACTIVE, COOLDOWN, FROZEN
from domain.kernel.money import Till, let_through
from domain.kernel.outcomes import StateOutcomes
from domain.kernel.plan import Batch, Ground, Tasks
from domain.kernel.series import Floats, Integers

# What is counted of a freeze task.
FROZEN_WINDOWS, FREEZES, FLAPS, FIRST_FREEZE, CHANGES = 0, 1, 2, 3, 4
FREEZE_COUNTS = 5

# What is counted of a cooldown task; a change that is one of FROZEN too isn't counted again.
COOLDOWN_WINDOWS, FURTHER_CHANGES = 0, 1
COOLDOWN_COUNTS = 2


class Counts(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """
    What a batch's tasks came to.

    Attributes:
        freezes: shape (freezes, 5), by the names above.
        cooldowns: shape (cooldowns, 2), by the names above.
        frozen_money: shape (freezes, 2 x columns), what was at stake under FROZEN, all of it and
            the part of symbols that were halved.
        cooling_money: shape (cooldowns, 2 x columns), the same under COOLDOWN.
        halved_money: shape (freezes, columns), of symbols that were halved, under any state.
    """

    freezes: Integers
    cooldowns: Integers
    frozen_money: Integers
    cooling_money: Integers
    halved_money: Integers


def new_counts(freezes: int, cooldowns: int, columns: int) -> Counts:
    """Return room for what so many tasks come to; no columns without money."""
    return Counts(
        freezes=np.zeros((freezes, FREEZE_COUNTS), np.int64),
        cooldowns=np.zeros((cooldowns, COOLDOWN_COUNTS), np.int64),
        frozen_money=np.zeros((freezes, 2 * columns), np.int64),
        cooling_money=np.zeros((cooldowns, 2 * columns), np.int64),
        halved_money=np.zeros((freezes, columns), np.int64),
    )


def joined_counts(tasks: Tasks, counted: Iterable[tuple[Batch, Counts]], columns: int) -> Counts:
    """Return the batches' counts in the order of the tasks."""
    joined = new_counts(len(tasks.freezes), len(tasks.cooldowns), columns)
    for batch, counts in counted:
        freezes = slice(batch.first_freeze, batch.first_freeze + len(counts.freezes))
        cooldowns = slice(batch.first_cooldown, batch.first_cooldown + len(counts.cooldowns))
        joined.freezes[freezes] = counts.freezes
        joined.cooldowns[cooldowns] = counts.cooldowns
        joined.frozen_money[freezes] = counts.frozen_money
        joined.cooling_money[cooldowns] = counts.cooling_money
        joined.halved_money[freezes] = counts.halved_money
    return joined


def state_outcomes(ground: Ground, windows: int, tasks: Tasks, counts: Counts) -> StateOutcomes:
    """Return the outcomes of a frame's policies, in the order of its members."""
    cooldown = counts.cooldowns[tasks.cooldown_of]
    freeze = counts.freezes[tasks.cooldowns[tasks.cooldown_of, 0]]
    by_state = np.zeros((len(cooldown), 3), np.int64)
    by_state[:, FROZEN] = freeze[:, FROZEN_WINDOWS] + ground.timeline.left_out
    by_state[:, COOLDOWN] = cooldown[:, COOLDOWN_WINDOWS]
    by_state[:, ACTIVE] = windows - by_state.sum(axis=1)
    return StateOutcomes(
        windows=by_state,
        transitions=freeze[:, CHANGES] + cooldown[:, FURTHER_CHANGES],
        freezes=freeze[:, FREEZES],
        flaps=freeze[:, FLAPS],
        first_freeze=freeze[:, FIRST_FREEZE],
    )


def money_through(till: Till, tasks: Tasks, counts: Counts, cooldown: Floats) -> Floats:
    """Return what was let through, in units, shape (members, columns)."""
    freeze = tasks.cooldowns[tasks.cooldown_of, 0]
    return let_through(
        till.sums.full,
        counts.frozen_money[freeze],
        counts.cooling_money[tasks.cooldown_of],
        counts.halved_money[freeze],
        cooldown,
    )
