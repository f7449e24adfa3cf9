"""
The plain reading of the rules: one window after the other, exact whatever is asked of it.

It follows `domain.judging` and `domain.gaps` line by line, over cells and counters in arrays. What
the faster engines can't do comes here: `global_freeze_symbols` above 1, stretches between the
overrides of a recorded ledger, a policy's whole series window by window. Nothing is skipped but
windows in which nothing can change: those in order while the controller is at rest, and a gap once
it has run its course. Source: DESIGN.md section 1.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np

from domain.kernel.cells import (
    ALL_NOT_THERE,
    BREACH,
    CRIT_KPIS,
    KPI_COUNT,
    NOT_THERE,
    Cells,
    mask_of,
)
from domain.kernel.compiling import compiled
from domain.kernel.series import Codes, Integers
from domain.policy import Policy

ACTIVE: Final = 0
COOLDOWN: Final = 1
FROZEN: Final = 2
"""The global states, in the order of `TradingState`."""

OK: Final = 0
WARN: Final = 1
CRIT: Final = 2

THROTTLED_TO_ZERO: Final = 0
HALVED: Final = 1
UNTHROTTLED: Final = 2
"""A symbol's KPI-based throttle, in halves."""

NOBODY: Final = -1

# What `rules` holds.
MIN_WARN, MIN_OK, UNFREEZE_AFTER, NO_DATA_FREEZE, FREEZE_SYMBOLS = 0, 1, 2, 3, 4
LIMIT, REQUIRED, WAIVED = 5, 6, 7

# What `control` holds: the global state and its counters.
STATE, OK_COUNT, WARN_COUNT, HELPED, TRIGGER = 0, 1, 2, 3, 4

# What `memory` holds of each symbol.
IS_FROZEN, ON_PROBATION, OKS, WAS_HELPED, HALTED, BREACHED = 0, 1, 2, 3, 4, 5

COUNT_LIMIT: Final = 1 << 40
"""Counts stop growing here, beyond all that a policy can ask for."""


class Track(msgspec.Struct, frozen=True, eq=False):
    """
    What the loop writes, per window.

    Attributes:
        state: shape (windows,), the global state after the window.
        trigger: shape (windows,), which symbol led there, `NOBODY` for none.
        throttles: shape (symbols, windows), the KPI-based throttle in halves.
    """

    state: Codes
    trigger: Integers
    throttles: Codes


class Memory(msgspec.Struct, frozen=True, eq=False):
    """
    All that the rules remember from window to window; the loop changes it in place.

    Attributes:
        control: the global state and its counters.
        symbols: shape (symbols, 6), each symbol's latch and counters.
        missing: shape (symbols, KPIs), consecutive NO_DATA windows.
    """

    control: Integers
    symbols: Integers
    missing: Integers


def new_memory(symbols: int) -> Memory:
    """Return what is remembered before a stream's first window."""
    control = np.zeros(5, np.int64)
    control[TRIGGER] = NOBODY
    return Memory(
        control, np.zeros((symbols, 6), np.int64), np.zeros((symbols, KPI_COUNT), np.int64)
    )


def new_track(symbols: int, windows: int) -> Track:
    """Return room for so many windows."""
    return Track(
        np.zeros(windows, np.uint8),
        np.full(windows, NOBODY, np.int64),
        np.zeros((symbols, windows), np.uint8),
    )


def rules_of(policy: Policy, limit: int) -> Integers:
    """Return the policy's counts and KPI sets as the loop reads them."""
    return np.array(
        [
            policy.min_warn_windows,
            policy.min_ok_windows,
            policy.unfreeze_after_ok_windows,
            policy.no_data_freeze_windows,
            policy.global_freeze_symbols,
            limit,
            mask_of(policy.required_kpis),
            mask_of(policy.waived_when_halted),
        ],
        np.int64,
    )


def run(
    rules: Integers,
    memory: Memory,
    cells: Cells,
    index: Integers,
    first: int,
    last: int,
    track: Track,
    *,
    fast: bool,
) -> None:
    """
    Decide the windows from `first` up to, not including, `last`.

    Args:
        rules: from `rules_of`.
        memory: as it was before them; as it is after them, when this returns.
        cells, index: shapes (symbols, rows) and (rows,), of the whole series.
        track: written from `first` to `last`.
        fast: compiled, where that can be had.
    """
    decide_windows: Callable[..., None] = _decide_windows
    if fast:
        decide_windows = compiled(
            _decide_windows, _judge, _remember, _decide_symbols, _enter, _decide, _at_rest,
            _rest, _leap,
        )  # fmt: skip
    busy = np.bitwise_or.reduce(cells, axis=0) if len(cells) > 1 else cells[0]
    decide_windows(
        rules, memory.control, memory.symbols, memory.missing, cells, busy, index, first, last,
        int(np.searchsorted(index, first)), track.state, track.trigger, track.throttles,
    )  # fmt: skip


def _judge(rules: Any, memory: Any, missing: Any, symbol: int, cell: int) -> tuple[int, int]:
    """Return a symbol's verdict, and 1 if a waiver excused a KPI. See `judging.judge_symbol`."""
    verdict, excused = OK, 0
    for kpi in range(KPI_COUNT):
        what, bit = (cell >> (2 * kpi)) & 3, 1 << kpi
        if what <= BREACH:
            missing[symbol, kpi] = 0
            if what == BREACH:
                memory[symbol, BREACHED] |= bit
                verdict = max(verdict, CRIT if CRIT_KPIS & bit else WARN)
            else:
                memory[symbol, BREACHED] &= ~bit
            continue
        if what == NOT_THERE:
            if not (memory[symbol, BREACHED] | rules[REQUIRED]) & bit:
                missing[symbol, kpi] = 0
                continue
            if memory[symbol, HALTED] and rules[WAIVED] & bit:
                missing[symbol, kpi] = 0
                excused = 1
                continue
        missing[symbol, kpi] = min(missing[symbol, kpi] + 1, COUNT_LIMIT)
        verdict = max(verdict, CRIT if missing[symbol, kpi] >= rules[NO_DATA_FREEZE] else WARN)
    return verdict, excused


def _remember(rules: Any, memory: Any, symbol: int, verdict: int, excused: int) -> int:
    """Move a symbol's latch; return its throttle in halves. See `judging._remember`."""
    if verdict == CRIT:
        memory[symbol, IS_FROZEN] = 1
        memory[symbol, ON_PROBATION] = 0
    if verdict != OK:
        memory[symbol, OKS] = 0
        memory[symbol, WAS_HELPED] = 0
    else:
        memory[symbol, OKS] += 1
        memory[symbol, WAS_HELPED] |= excused
        if memory[symbol, IS_FROZEN] and memory[symbol, OKS] >= rules[UNFREEZE_AFTER]:
            memory[symbol, IS_FROZEN] = 0
            memory[symbol, ON_PROBATION] = memory[symbol, WAS_HELPED]
            memory[symbol, OKS] = 0
            memory[symbol, WAS_HELPED] = 0
        elif memory[symbol, ON_PROBATION] and memory[symbol, OKS] >= rules[MIN_OK]:
            memory[symbol, ON_PROBATION] = 0
    if memory[symbol, IS_FROZEN]:
        return THROTTLED_TO_ZERO
    return UNTHROTTLED if verdict == OK and not memory[symbol, ON_PROBATION] else HALVED


def _enter(control: Any, state: int, trigger: int) -> None:
    """Make a transition: every count starts again."""
    control[STATE] = state
    control[TRIGGER] = trigger
    control[OK_COUNT] = 0
    control[WARN_COUNT] = 0
    control[HELPED] = 0


def _decide(rules: Any, control: Any, verdict: int, culprit: int, excused: int) -> None:
    """Count the window, and make the one transition that matches first. See `judging._leap`."""
    if verdict == OK:
        control[OK_COUNT] += 1
        control[HELPED] |= excused
    else:
        control[OK_COUNT] = 0
        control[HELPED] = 0
    control[WARN_COUNT] = control[WARN_COUNT] + 1 if verdict == WARN else 0
    state = control[STATE]
    if verdict == CRIT and state != FROZEN:
        _enter(control, FROZEN, culprit)
    elif state == ACTIVE and control[WARN_COUNT] >= rules[MIN_WARN]:
        _enter(control, COOLDOWN, culprit)
    elif state == COOLDOWN and control[OK_COUNT] >= rules[MIN_OK]:
        _enter(control, ACTIVE, NOBODY)
    elif state == FROZEN and control[OK_COUNT] >= rules[UNFREEZE_AFTER]:
        _enter(control, COOLDOWN if control[HELPED] else ACTIVE, NOBODY)


def _at_rest(control: Any, memory: Any, missing: Any) -> bool:
    """Return whether a window in order would change nothing but counts of OK windows."""
    if control[STATE] != ACTIVE or control[WARN_COUNT]:
        return False
    for symbol in range(len(memory)):
        if (
            memory[symbol, IS_FROZEN]
            or memory[symbol, ON_PROBATION]
            or memory[symbol, BREACHED]
            or not memory[symbol, OKS]
        ):
            return False
    return not missing.any()


def _decide_symbols(
    rules: Any, memory: Any, missing: Any, cells: Any, row: int, throttles: Any, window: int
) -> tuple[int, int, int]:
    """
    Return the window's verdict, the symbol that it is due to, and 1 if a waiver excused a KPI.

    A row below 0 is a window that nobody decided. See `judging.window_verdict`.
    """
    ill, counted, crit, worst, culprit, excused = 0, 0, 0, OK, NOBODY, 0
    for symbol in range(len(memory)):
        was_frozen = memory[symbol, IS_FROZEN]
        cell = ALL_NOT_THERE if row < 0 else int(cells[symbol, row])
        verdict, waived = _judge(rules, memory, missing, symbol, cell)
        throttles[symbol, window] = _remember(rules, memory, symbol, verdict, waived)
        if symbol >= rules[LIMIT]:
            continue
        excused |= waived
        crit += verdict == CRIT
        if verdict > worst:
            worst, culprit = verdict, symbol
        # One that was frozen on its own before counts only towards the number of CRIT ones.
        if rules[FREEZE_SYMBOLS] == 1 or not was_frozen:
            counted += 1
            ill |= verdict != OK
    if crit >= rules[FREEZE_SYMBOLS]:
        return CRIT, culprit, excused
    if ill or not counted:
        return WARN, culprit, excused
    return OK, NOBODY, excused


def _rest(control: Any, memory: Any, states: Any, triggers: Any, throttles: Any, at: int) -> None:
    """Write a window in order of a controller at rest."""
    states[at], triggers[at] = ACTIVE, control[TRIGGER]
    control[OK_COUNT] += 1
    for symbol in range(len(memory)):
        throttles[symbol, at] = UNTHROTTLED
        memory[symbol, OKS] += 1


def _leap(missing: Any, states: Any, triggers: Any, throttles: Any, first: int, last: int) -> None:
    """Write the windows of a gap that change nothing any more, alike to the one before them."""
    states[first:last], triggers[first:last] = states[first - 1], triggers[first - 1]
    for symbol in range(len(missing)):
        throttles[symbol, first:last] = throttles[symbol, first - 1]
        for kpi in range(KPI_COUNT):
            if missing[symbol, kpi]:
                missing[symbol, kpi] += last - first


def _decide_windows(
    rules: Any, control: Any, memory: Any, missing: Any, cells: Any, busy: Any, index: Any,
    first: int, last: int, row: int, states: Any, triggers: Any, throttles: Any,
) -> None:  # fmt: skip
    gap_windows, gap_state, gap_trigger = 0, ACTIVE, NOBODY
    window, rests = first, False
    while window < last:
        next_observed = min(last, index[row]) if row < len(index) else last
        observed = row < len(index) and next_observed == window
        if observed and rests and busy[row] == 0:
            _rest(control, memory, states, triggers, throttles, window)
            window, row, gap_windows = window + 1, row + 1, 0
            continue
        if not observed and gap_windows == 0:
            gap_state, gap_trigger = control[STATE], control[TRIGGER]
        gap_windows = 0 if observed else gap_windows + 1
        verdict, culprit, excused = _decide_symbols(
            rules, memory, missing, cells, row if observed else -1, throttles, window
        )
        _decide(rules, control, verdict, culprit, excused)
        if not observed:
            # A gap's one cause is the gap, and only if it changed something.
            control[TRIGGER] = gap_trigger if control[STATE] == gap_state else NOBODY
        states[window], triggers[window] = control[STATE], control[TRIGGER]
        for symbol in range(len(memory)):
            halted = control[STATE] == FROZEN or memory[symbol, IS_FROZEN]
            memory[symbol, HALTED] = 1 if halted or symbol >= rules[LIMIT] else 0
        rests = _at_rest(control, memory, missing)
        window += 1
        row += observed
        if gap_windows > rules[NO_DATA_FREEZE] + 1:
            # Every symbol has long been CRIT and everything FROZEN: only counts still grow.
            _leap(missing, states, triggers, throttles, window, next_observed)
            window = next_observed
