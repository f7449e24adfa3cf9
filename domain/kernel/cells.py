"""
Cells: what one policy's thresholds make of one symbol's readings, two bits a KPI.

All that the rules ask of a number is on which side of its threshold it lies. A symbol's window is
then ten bits, all of them zero if it was in order, so that a loop over windows can tell at a
glance whether there is anything to do.
"""

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from domain.kernel.series import ABSENT, VALID, Flags, Floats, Series, SymbolColumns
from domain.kpis import KPIS, Kpi, Verdict
from domain.policy import Policy

Cells: TypeAlias = npt.NDArray[np.uint16]

FINE: Final = 0
BREACH: Final = 1
NOT_THERE: Final = 2
NOT_VALID: Final = 3
"""The two bits of a KPI."""

KPI_COUNT: Final = len(KPIS)
ALL_NOT_THERE: Final = sum(NOT_THERE << 2 * position for position in range(KPI_COUNT))
"""A symbol in a window that nobody decided."""

CRIT_KPIS: Final = sum(
    1 << position for position, kpi in enumerate(KPIS) if kpi.verdict is Verdict.CRIT
)
"""The KPIs whose breach is CRIT, a bit each."""


def judged_cells(series: Series, policy: Policy, symbols: Iterable[int]) -> Cells:
    """Return the cells of the symbols of these numbers under the policy, shape (symbols, rows)."""
    judged = [
        symbol_cells(series.columns[symbol], policy.thresholds_of(series.symbols[symbol]))
        for symbol in symbols
    ]
    return np.stack(judged)


def symbol_cells(columns: SymbolColumns, thresholds: Mapping[str, float]) -> Cells:
    """Return one symbol's cells, shape (rows,)."""
    cells = np.zeros(columns.codes.shape[1], np.uint16)
    for position, kpi in enumerate(KPIS):
        codes = columns.codes[position]
        breaches = is_breached(kpi, columns.values[position], thresholds[kpi.policy_key])
        breaches &= codes == VALID
        two_bits = breaches.astype(np.uint16)
        if codes.any():
            two_bits |= np.where(codes == VALID, FINE, codes + (NOT_THERE - ABSENT)).astype(
                np.uint16
            )
        cells |= two_bits << np.uint16(2 * position)
    return cells


def is_breached(kpi: Kpi, values: Floats, threshold: float) -> Flags:
    """Return where the values are strictly on the wrong side of the threshold."""
    return values < threshold if kpi.breached_when == "<" else values > threshold


def mask_of(names: Iterable[str]) -> int:
    """Return the KPIs of these names, a bit each."""
    wanted = frozenset(names)
    return sum(1 << position for position, kpi in enumerate(KPIS) if kpi.name in wanted)
