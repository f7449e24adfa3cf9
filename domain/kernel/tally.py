"""
The tally: what tasks came to, as outcomes of the policies that they were for.
"""

from collections.abc import Iterable

import msgspec
import numpy as np

from domain.kernel.loop import ACTIVE, COOLDOWN, FROZEN
from domain.kernel.outcomes import StateOutcomes
from domain.kernel.plan import Batch, Ground, Tasks
from domain.kernel.series import Integers

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
    """

    freezes: Integers
    cooldowns: Integers


def state_outcomes(
    ground: Ground, windows: int, tasks: Tasks, counted: Iterable[tuple[Batch, Counts]]
) -> StateOutcomes:
    """Return the outcomes of a frame's policies, in the order of its members."""
    freezes = np.zeros((len(tasks.freezes), FREEZE_COUNTS), np.int64)
    cooldowns = np.zeros((len(tasks.cooldowns), COOLDOWN_COUNTS), np.int64)
    for batch, counts in counted:
        first = batch.first_freeze
        freezes[first : first + len(counts.freezes)] = counts.freezes
        first = batch.first_cooldown
        cooldowns[first : first + len(counts.cooldowns)] = counts.cooldowns
    cooldown = cooldowns[tasks.cooldown_of]
    freeze = freezes[tasks.cooldowns[tasks.cooldown_of, 0]]
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
