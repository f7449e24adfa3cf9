"""
Until when what the ledger says may be believed: a stale state is never told as the present one.

Source: DESIGN.md section 3, `valid_until`.
"""

from typing import Final

from domain.events import KpiObserved

LATENESS_MS: Final = 2_000
INTERVALS_BELIEVED: Final = 2
FUTURE_MS: Final = 60_000
"""How far the last window may lie ahead of the clock that asks."""


def valid_until_ms(observed: KpiObserved) -> int:
    """Return until when the last observed window may be believed: its end, 2 intervals and 2 s."""
    return observed.end_ms + INTERVALS_BELIEVED * observed.interval_ms + LATENESS_MS


def is_stale(observed: KpiObserved, at_ms: int) -> bool:
    """Return whether, at a time, the last observed window is too old or too new to be believed."""
    return not observed.end_ms - FUTURE_MS <= at_ms <= valid_until_ms(observed)
