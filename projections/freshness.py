"""
Until when what the ledger says may be believed: a stale state is never told as the present one.

Source: DESIGN.md section 3, `valid_until`.
"""

from typing import Final

from domain.errors import CannotTell
from domain.state import State

INTERVALS_BELIEVED: Final = 2
FUTURE_MS: Final = 60_000
"""How far the last window may lie ahead of the clock that asks."""


def valid_until_ms(state: State) -> int:
    """
    Return until when the last observed window may be believed: its end, 2 intervals, the lateness.

    Raises:
        CannotTell: if no window has been observed yet.
    """
    return _end_ms(state) + INTERVALS_BELIEVED * state.interval_ms + state.lateness_ms


def is_stale(state: State, at_ms: int) -> bool:
    """Return whether, at a time, the last observed window is too old or too new to be believed."""
    return not _end_ms(state) - FUTURE_MS <= at_ms <= valid_until_ms(state)


def _end_ms(state: State) -> int:
    if state.observed is None:
        raise CannotTell("no window has been observed yet")
    return state.observed.end_ms
