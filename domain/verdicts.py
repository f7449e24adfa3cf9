"""
Violations, and how they are told.

Source: LIVE_MODE_GUIDE.md, KPI Thresholds; DESIGN.md section 1, Verdict of a KPI.
"""

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from domain.kpis import KPI_BY_NAME, Comparator, Defect, Kpi, Reading, Verdict


class Violation(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    One KPI of one symbol that was not OK in one window.

    A breach has a value, a comparator, a threshold and a margin (how far beyond the threshold the
    value lies, in the KPI's unit, above 0). NO_DATA has `no_data_windows`, the number of
    consecutive windows without data up to this one, and, if something did arrive, what it was.
    """

    kpi: str
    verdict: Verdict
    value: float | None = None
    comparator: Comparator | None = None
    threshold: float | None = None
    margin: float | None = None
    no_data_windows: int = 0
    arrived: Reading | None = None

    @property
    def reason(self) -> str:
        """The text that `reasons` shows: `edge_bps=2.0 < 2.5`, `risk=no data (3 windows)`."""
        kpi = KPI_BY_NAME[self.kpi]
        if self.value is None or self.threshold is None:
            return f"{kpi.label}=no data ({self.no_data_windows} windows)"
        value = format_value(kpi, self.value, self.threshold)
        return f"{kpi.label}={value} {self.comparator} {format_threshold(kpi, self.threshold)}"


def breach(kpi: Kpi, value: float, threshold: float) -> Violation:
    """Return the violation of a valid value that is on the wrong side of its threshold."""
    below = kpi.breached_when == "<"
    return Violation(
        kpi=kpi.name,
        verdict=kpi.verdict,
        value=value,
        comparator=kpi.breached_when,
        threshold=threshold,
        margin=threshold - value if below else value - threshold,
    )


def worst_verdict(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the most severe verdict, OK where there is none."""
    return max(verdicts, key=_severity, default=Verdict.OK)


def format_threshold(kpi: Kpi, threshold: float) -> str:
    """Return the threshold exactly, with at least the KPI's decimals, never in exponent form."""
    exact = format(Decimal(repr(threshold)), "f")
    return exact if _decimals(threshold) > kpi.decimals else f"{threshold:.{kpi.decimals}f}"


def format_value(kpi: Kpi, value: float, threshold: float) -> str:
    """
    Return the value with the fewest decimals that keep it on its side of the threshold.

    At least the KPI's decimals are shown, so that a breach never reads `edge_bps=2.5 < 2.5`.
    """
    for decimals in range(kpi.decimals, max(kpi.decimals, _decimals(value)) + 1):
        text = f"{value:.{decimals}f}"
        if kpi.is_breached(float(text), threshold):
            return text.removeprefix("-") if float(text) == 0 else text
    return format_threshold(kpi, value)


def format_reading(reading: Reading | None) -> str:
    """Return a reading as tables show it: a number, the defect's name, or a dash for absent."""
    if reading is None:
        return "-"
    return reading.value if isinstance(reading, Defect) else f"{reading:g}"


def _decimals(number: float) -> int:
    """Return how many decimals the shortest exact text of the number has."""
    exponent = Decimal(repr(number)).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _severity(verdict: Verdict) -> int:
    return verdict.severity
