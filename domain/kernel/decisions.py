"""
One policy's decisions, window by window: what the core would have published.
"""

from typing import Final

import msgspec
import numpy as np

from domain.errors import BadInput
from domain.kernel.cells import judged_cells
from domain.kernel.loop import new_memory, new_track, rules_of, run
from domain.kernel.series import Codes, Floats, Integers, Series, frozen
from domain.policy import Policy

STATE_NAMES: Final = ("ACTIVE", "COOLDOWN", "FROZEN")
"""By the numbers that `state` holds."""


class Decisions(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """
    The controller after every window, missing ones included.

    A missing window is shown as it is stepped through; the core records a whole gap at once, with
    the state after its last window.

    Attributes:
        symbols: in the series' order.
        state: shape (windows,), 0 ACTIVE, 1 COOLDOWN, 2 FROZEN.
        throttle: shape (windows,), the global throttle.
        triggered_by: shape (windows,), the symbol that led to the state, by number; -1 for none.
        throttles: shape (symbols, windows), the KPI-based throttle in halves: 0, 1 or 2.
        caps: shape (symbols, windows), bounds by overrides and by the profile's limit; None if
            there is none but the limit.
        limit: how many of the symbols, from the first on, may trade.
        initial: by symbol, the effective throttle before the first window.
    """

    symbols: tuple[str, ...]
    state: Codes
    throttle: Floats
    triggered_by: Integers
    throttles: Codes
    caps: Floats | None
    limit: int
    initial: tuple[float, ...]

    def per_symbol_throttle(self, symbol: int) -> Floats:
        """Return a symbol's KPI-based throttle after every window."""
        throttle: Floats = np.array([0.0, 0.5, 1.0])[self.throttles[symbol]]
        return throttle

    def effective_throttle(self, symbol: int) -> Floats:
        """Return what may be traded of a symbol after every window."""
        if symbol >= self.limit:
            return np.zeros(len(self.state))
        effective = np.minimum(self.throttle, self.per_symbol_throttle(symbol))
        return effective if self.caps is None else np.minimum(effective, self.caps[symbol])

    def first_difference(self, other: "Decisions") -> int | None:
        """
        Return the first window after which state or an effective throttle differ, None if none.

        What the two have of symbols that only one of them knows is left out.
        """
        windows = min(len(self.state), len(other.state))
        differs = self.state[:windows] != other.state[:windows]
        known = {name: number for number, name in enumerate(other.symbols)}
        for mine, name in enumerate(self.symbols):
            if name in known:
                ours, theirs = self.effective_throttle(mine), other.effective_throttle(known[name])
                differs |= ours[:windows] != theirs[:windows]
        first = int(np.argmax(differs)) if windows else 0
        return first if windows and differs[first] else None


def decide_plain_series(series: Series, policy: Policy, *, fast: bool = True) -> Decisions:
    """
    Return what the core decides over a plain series, window by window.

    Args:
        series: what to decide.
        policy: by which.
        fast: compiled, if numba is there; the result is the same.

    Raises:
        BadInput: as the core refuses the policy for so many symbols.
    """
    check_limit(policy, series.limit)
    symbols = len(series.symbols)
    track = new_track(symbols, series.windows)
    cells = judged_cells(series, policy, range(symbols))
    memory = new_memory(symbols)
    rules = rules_of(policy, series.limit)
    run(rules, memory, cells, series.index, 0, series.windows, track, fast=fast)
    throttle = np.array([1.0, policy.cooldown_throttle, 0.0])[track.state]
    return Decisions(
        symbols=series.symbols,
        state=frozen(track.state),
        throttle=frozen(throttle),
        triggered_by=frozen(track.trigger),
        throttles=frozen(track.throttles),
        caps=None,
        limit=series.limit,
        initial=tuple(1.0 if number < series.limit else 0.0 for number in range(symbols)),
    )


def check_limit(policy: Policy, limit: int) -> None:
    """
    Check that so many symbols that may trade can freeze all.

    Raises:
        BadInput: if they can't, as `domain.adoption` refuses it.
    """
    if policy.global_freeze_symbols > limit:
        raise BadInput(
            f"global_freeze_symbols: expected at most the number of symbols that may trade "
            f"({limit}), was {policy.global_freeze_symbols}; the global freeze could never come"
        )
