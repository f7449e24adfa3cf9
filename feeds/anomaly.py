"""
`anomaly_score`, derived from the other four KPIs where a feed has none of its own.

The score says how far the most unusual KPI lies on its harmful side, in thirds of a robust z: at
the guide's threshold of 2.0, a plain z would freeze healthy data.

Source: DESIGN.md section 5.
"""

import math
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from domain.kpis import KPIS, Defect, Kpi, Reading

ANOMALY: Final = "anomaly_score"
TRAILING_WINDOWS: Final = 60
VALUES_MIN: Final = 20

_SOURCES: Final = tuple(kpi for kpi in KPIS if kpi.name != ANOMALY)
_SIGMAS_PER_MAD: Final = 1.4826
_SIGMAS: Final = 3.0
_RELATIVE_MAD_MIN: Final = 1e-9


def derive_anomaly(
    kpis: Mapping[str, Reading], trailing: Sequence[Mapping[str, Reading]]
) -> float | None:
    """
    Return a window's anomaly score, or None if there is nothing to compare it with.

    It is the largest of (x - median) / (3 x 1.4826 x MAD) over the KPIs, each towards its harmful
    side. A KPI takes part if it has a valid value now and in at least 20 of the windows before, and
    if those differ enough for a MAD above 1e-9 x |median|.

    Args:
        kpis: the window's readings.
        trailing: the readings of at most 60 windows before it, in any order; not the window's own.
    """
    scores = (_score(kpi, kpis, trailing) for kpi in _SOURCES)
    return max((score for score in scores if score is not None), default=None)


class AnomalyTracker:
    """
    Each symbol's trailing windows.

    `remember` is called with every window that is in the ledger, `derive` before that with the one
    being decided.
    """

    def __init__(self, symbols: Iterable[str]) -> None:
        self._trailing: dict[str, deque[dict[str, float]]] = {
            symbol: deque(maxlen=TRAILING_WINDOWS) for symbol in symbols
        }

    def derive(self, symbol: str, kpis: Mapping[str, Reading]) -> float | None:
        """Return the score of a window that isn't remembered yet; None for an unknown symbol."""
        return derive_anomaly(kpis, self._trailing.get(symbol, ()))

    def remember(self, symbol: str, kpis: Mapping[str, Reading]) -> None:
        """Remember a window, one without any readings too; unknown symbols are passed over."""
        trailing = self._trailing.get(symbol)
        if trailing is not None:
            values = ((kpi.name, _value(kpi, kpis)) for kpi in _SOURCES)
            trailing.append({name: value for name, value in values if value is not None})


def _score(
    kpi: Kpi, kpis: Mapping[str, Reading], trailing: Sequence[Mapping[str, Reading]]
) -> float | None:
    now = _value(kpi, kpis)
    before = [value for window in trailing if (value := _value(kpi, window)) is not None]
    if now is None or len(before) < VALUES_MIN:
        return None
    median = _median(before)
    mad = _median([abs(value - median) for value in before])
    # Differences of the size that rounding makes are none, nor is a MAD that a float can't hold.
    if not max(_RELATIVE_MAD_MIN * abs(median), sys.float_info.min) <= mad < math.inf:
        return None
    harm = median - now if kpi.breached_when == "<" else now - median
    score = harm / (_SIGMAS * _SIGMAS_PER_MAD * mad)
    return max(-sys.float_info.max, min(score, sys.float_info.max))


def _value(kpi: Kpi, kpis: Mapping[str, Reading]) -> float | None:
    reading = kpis.get(kpi.name)
    if reading is None or isinstance(reading, Defect) or not kpi.is_valid(reading):
        return None
    return reading


def _median(values: Sequence[float]) -> float:
    increasing = sorted(values)
    half = len(increasing) // 2
    if len(increasing) % 2:
        return increasing[half]
    # Halved first, so that the sum of two of the largest floats isn't infinite.
    return increasing[half - 1] / 2 + increasing[half] / 2
