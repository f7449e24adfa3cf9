"""
What was at stake in each window: edge times notional, in whole units.

Sums of doubles depend on their order, and every engine adds in another one. So a window's gain or
loss is an int64 in units of `unit` quote currency, and sums are exact. A window in which nothing
traded, or whose edge is unknown, says nothing of what trading would have brought: it is censored,
counted, and never scored as zero. Source: issue 6, Honest money.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from domain.kernel.series import FILLS_UNKNOWN, VALID, Flags, Floats, Integers, SymbolColumns
from domain.kpis import KPIS

_EDGE: Final = next(at for at, kpi in enumerate(KPIS) if kpi.name == "edge_bps")
_BPS: Final = 1e-4
FINEST_UNIT: Final = 1e-6
TOTAL_MAX: Final = float(1 << 60)
"""What all windows of all symbols may come to, in units: far from an int64's end."""


class Stakes(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """
    One symbol's stakes.

    Attributes:
        change: shape (rows,), int64, what full trading brought in each observed window, in units.
        censored: how many observed windows aren't scored.
        has_notional: whether notional is known; else every scored window has unit weight, and
            `change` is in units of basis points.
    """

    change: Integers
    censored: int
    has_notional: bool


def unit_of(columns: Sequence[SymbolColumns]) -> float:
    """
    Return the unit: a millionth, or more where that many of them would not fit an int64.

    Args:
        columns: all symbols of a series, so that they can be added up.
    """
    total = 0.0
    for symbol in columns:
        scored, weight = _weights(symbol)
        total += float(np.abs(symbol.values[_EDGE, scored] * weight[scored]).sum())
    unit = FINEST_UNIT
    while total / unit > TOTAL_MAX:
        unit *= 10.0
    return unit


def stakes_of(columns: SymbolColumns, unit: float) -> Stakes:
    """Return what was at stake for one symbol, in units of this size."""
    scored, weight = _weights(columns)
    change = np.zeros(len(weight), np.int64)
    change[scored] = np.rint(columns.values[_EDGE, scored] * weight[scored] / unit).astype(np.int64)
    return Stakes(
        change=change,
        censored=int(len(scored) - np.count_nonzero(scored)),
        has_notional=_has_notional(columns),
    )


def _has_notional(columns: SymbolColumns) -> bool:
    return not bool(np.isnan(columns.notional).all())


def _weights(columns: SymbolColumns) -> tuple[Flags, Floats]:
    """Return which windows are scored, and what a basis point of edge is worth in them."""
    rows = len(columns.notional)
    weight = columns.notional * _BPS if _has_notional(columns) else np.ones(rows)
    scored = (columns.codes[_EDGE] == VALID) & (weight > 0.0)
    scored &= (columns.fills == FILLS_UNKNOWN) | (columns.fills > 0)
    with np.errstate(over="ignore", invalid="ignore"):
        scored &= np.isfinite(columns.values[_EDGE] * weight)
    return scored, weight
