"""
The five KPIs, in the order of the guide's table. A KPI is added here and nowhere else.

Source: LIVE_MODE_GUIDE.md, KPI Thresholds; DESIGN.md section 1, Verdict of a KPI.
"""

import math
from enum import StrEnum
from typing import Final, Literal

import msgspec

Comparator = Literal["<", ">"]


class Verdict(StrEnum):
    """How a KPI, a symbol or a window was judged; `severity` orders them."""

    OK = "OK"
    WARN = "WARN"
    CRIT = "CRIT"

    @property
    def severity(self) -> int:
        """0 for OK, 1 for WARN, 2 for CRIT."""
        return _SEVERITY[self]


_SEVERITY: Final = {Verdict.OK: 0, Verdict.WARN: 1, Verdict.CRIT: 2}


class Defect(StrEnum):
    """
    Why a reading is no number to judge; an absent reading isn't there at all.

    NAN, INFINITE and MALFORMED are values that are none. STALE is too old and UNTIMED of unknown
    age. DISCONNECTED stands for a feed that was away for too much of the window, OVERFLOW for more
    samples than can be held: what was seen then is not the whole.
    """

    NAN = "nan"
    INFINITE = "infinite"
    STALE = "stale"
    MALFORMED = "malformed"
    UNTIMED = "untimed"
    DISCONNECTED = "disconnected"
    OVERFLOW = "overflow"


Reading = float | Defect
"""What a feed delivered for one KPI: a number (perhaps outside the KPI's domain), or a defect."""


class Kpi(msgspec.Struct, frozen=True, kw_only=True):
    """
    One KPI and the rule that judges it.

    Attributes:
        name: as in feeds, files and artifacts.
        label: as in reasons (`maker_taker=0.80 < 0.83`).
        policy_key: the threshold's name in a policy.
        threshold: the default, in the KPI's own unit.
        breached_when: the comparison `value ? threshold` that is a breach; it is strict.
        verdict: what a breach is worth.
        decimals: how many a reason shows at least.
        lowest, highest: the domain, inclusive; a value outside it is NO_DATA.
        gate_option: the CI gate's name for the threshold.
        required, waived: whether the default policy requires it, and waives it when halted.
    """

    name: str
    label: str
    policy_key: str
    threshold: float
    breached_when: Comparator
    verdict: Verdict
    decimals: int
    lowest: float = -math.inf
    highest: float = math.inf
    gate_option: str
    required: bool = True
    waived: bool = False

    def is_valid(self, reading: Reading) -> bool:
        """Return whether the reading is a finite number of this KPI's domain."""
        return (
            not isinstance(reading, Defect)
            and math.isfinite(reading)
            and self.lowest <= reading <= self.highest
        )

    def is_breached(self, value: float, threshold: float) -> bool:
        """Return whether the value is strictly on the wrong side of the threshold."""
        return value < threshold if self.breached_when == "<" else value > threshold

    def worst(self, values: list[float]) -> float:
        """Return the most harmful of at least one value."""
        return min(values) if self.breached_when == "<" else max(values)


KPIS: Final = (
    Kpi(
        name="edge_bps",
        label="edge_bps",
        policy_key="min_edge_bps",
        threshold=2.5,
        breached_when="<",
        verdict=Verdict.CRIT,
        decimals=1,
        gate_option="min_edge",
        waived=True,
    ),
    Kpi(
        name="maker_taker_ratio",
        label="maker_taker",
        policy_key="min_maker_taker",
        threshold=0.83,
        breached_when="<",
        verdict=Verdict.WARN,
        decimals=2,
        lowest=0.0,
        highest=1.0,
        gate_option="min_maker_taker",
        waived=True,
    ),
    Kpi(
        name="risk_ratio",
        label="risk",
        policy_key="max_risk",
        threshold=0.40,
        breached_when=">",
        verdict=Verdict.CRIT,
        decimals=2,
        lowest=0.0,
        gate_option="max_risk",
    ),
    Kpi(
        name="p95_latency_ms",
        label="p95_latency",
        policy_key="max_latency_ms",
        threshold=350.0,
        breached_when=">",
        verdict=Verdict.WARN,
        decimals=0,
        lowest=0.0,
        gate_option="max_latency",
    ),
    Kpi(
        name="anomaly_score",
        label="anomaly",
        policy_key="max_anomaly",
        threshold=2.0,
        breached_when=">",
        verdict=Verdict.CRIT,
        decimals=1,
        gate_option="max_anomaly",
        required=False,
    ),
)

KPI_BY_NAME: Final = {kpi.name: kpi for kpi in KPIS}
KPI_BY_POLICY_KEY: Final = {kpi.policy_key: kpi for kpi in KPIS}
