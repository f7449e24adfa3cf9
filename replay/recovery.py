"""
How long a recovery takes: consecutive OK windows are fragile by nature.

With 24 OK windows in a row wanted and 5 symbols, a WARN rate of 1% per symbol and window makes it
48 windows on average, 2% 107, 5% 2,078. Source: FIELD_NOTES, Recovery is fragile by nature.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from domain.policy import Policy

RATES: Final = (0.01, 0.02, 0.05)
"""The rates of windows that are not OK, per symbol, that are always shown."""


class Recovery(msgspec.Struct, frozen=True):
    """
    What to expect at one rate; None for never, as numbers go.

    Attributes:
        rate: how often a symbol's window is not OK.
        symbols: how many symbols, each on its own, must be OK at once.
        is_measured: whether the rate is the data's own.
        unfreeze_windows: windows on average until FROZEN is left.
        cooldown_windows: windows on average until COOLDOWN leads to ACTIVE, without a CRIT.
    """

    rate: float
    symbols: int
    is_measured: bool
    unfreeze_windows: float | None
    cooldown_windows: float | None


def expected_windows(run: int, ok_share: float) -> float:
    """
    Return how many windows it takes on average until so many in a row were OK.

    It is (p^-n - 1) / (1 - p) for n in a row, each OK with the chance p and independent of the one
    before; infinite where p is 0 or the figure too large.

    Args:
        run: how many in a row, at least 1.
        ok_share: the share of windows that are OK, 0 to 1.
    """
    if ok_share >= 1.0:
        return float(run)
    if ok_share <= 0.0:
        return math.inf
    try:
        return math.expm1(-run * math.log(ok_share)) / (1.0 - ok_share)
    except OverflowError:
        return math.inf


def recovery_table(
    policy: Policy, symbol_counts: Sequence[int], measured_rate: float | None
) -> list[Recovery]:
    """Return what to expect under a policy at the usual rates, and at the data's own if known."""
    rates = [(rate, False) for rate in RATES]
    if measured_rate is not None:
        rates.append((measured_rate, True))
    return [
        _recovery(policy, symbols, rate, is_measured)
        for symbols in symbol_counts
        for rate, is_measured in rates
    ]


def _recovery(policy: Policy, symbols: int, rate: float, is_measured: bool) -> Recovery:
    ok_share = (1.0 - rate) ** symbols
    return Recovery(
        rate=rate,
        symbols=symbols,
        is_measured=is_measured,
        unfreeze_windows=_finite(expected_windows(policy.unfreeze_after_ok_windows, ok_share)),
        cooldown_windows=_finite(expected_windows(policy.min_ok_windows, ok_share)),
    )


def _finite(windows: float) -> float | None:
    return windows if math.isfinite(windows) else None
