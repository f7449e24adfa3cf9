"""
Years of windows for the kernel: calm, ordinary and stormy, of 5 or 50 symbols, and 10,368 policies.

A year's name is the share of windows that the guide's thresholds find something in; breaches come
one at a time, so that recoveries are as fragile as they can be.
"""

from typing import Final

import msgspec
import numpy as np

from domain.kernel.grid import PolicyGrid
from domain.kernel.series import Series, columns_of, make_series
from domain.kpis import KPIS
from domain.policy import Policy

WINDOWS: Final = 525_600
INTERVAL_MS: Final = 60_000
YEARS: Final = {"calm": 0.001, "ordinary": 0.02, "stormy": 0.2}
HEALTHY: Final = (3.5, 0.92, 0.2, 180.0, 0.8)
BREACHES_TO: Final = (1.6, 0.76, 0.6, 500.0, 3.2)
"""A breach lies anywhere between the guide's threshold and this."""

GRID: Final = PolicyGrid(
    Policy(),
    {
        "min_edge_bps": [2.0, 2.2, 2.4, 2.5],
        "max_risk": [0.40, 0.42, 0.45, 0.50],
        "max_anomaly": [2.0, 2.4],
        "min_maker_taker": [0.78, 0.80, 0.82, 0.83],
        "max_latency_ms": [350.0, 400.0, 450.0],
        "unfreeze_after_ok_windows": [12, 24, 48],
        "min_warn_windows": [2, 3, 5],
        "min_ok_windows": [6, 8, 12],
    },
)
"""384 combinations of thresholds, 27 of counts."""


def year(share: float, symbols: int, *, fills_stop: float = 0.0) -> Series:
    """
    Return a year in which so large a share of windows has a breach.

    `fills_stop` is the share of windows and symbols in which edge and maker ratio are absent, for
    waivers to work.
    """
    chance = np.random.default_rng(1)
    noise = [chance.normal(size=WINDOWS) * 0.01 for _ in KPIS]
    columns = []
    for _ in range(symbols):
        values = np.empty((len(KPIS), WINDOWS))
        for at, kpi in enumerate(KPIS):
            values[at] = HEALTHY[at] * (1.0 + noise[at])
            some = np.flatnonzero(chance.random(WINDOWS) < share / (len(KPIS) * symbols))
            depth = chance.random(len(some))
            values[at, some] = kpi.threshold + depth * (BREACHES_TO[at] - kpi.threshold)
        absent = np.zeros((len(KPIS), WINDOWS), np.bool_)
        if fills_stop:
            absent[:2] = chance.random(WINDOWS) < fills_stop
        columns.append(
            columns_of(
                values, absent, chance.random(WINDOWS) * 10_000.0, np.full(WINDOWS, 20, np.int64)
            )
        )
    return make_series(
        [f"SYMBOL{number}" for number in range(symbols)],
        interval_ms=INTERVAL_MS,
        starts_ms=np.arange(WINDOWS, dtype=np.int64) * INTERVAL_MS,
        columns=columns,
    )


def distinct_policies() -> list[Policy]:
    """Return as many policies as the grid has, every threshold of them another one."""
    chance = np.random.default_rng(2)
    policies = []
    for number in range(len(GRID)):
        depths = chance.random(len(KPIS))
        thresholds = {
            kpi.policy_key: kpi.threshold + float(depth) * 0.8 * (worst - kpi.threshold)
            for kpi, depth, worst in zip(KPIS, depths, BREACHES_TO, strict=True)
        }
        policies.append(msgspec.structs.replace(GRID.table.policy(number), thresholds=thresholds))
    return policies


def extremes(series: Series) -> "np.typing.NDArray[np.float64]":
    """Return the worst value of each window and KPI over all symbols, shape (KPIs, windows)."""
    worst = []
    for at, kpi in enumerate(KPIS):
        values = np.stack([columns.values[at] for columns in series.columns])
        worst.append(values.min(axis=0) if kpi.breached_when == "<" else values.max(axis=0))
    return np.stack(worst)
