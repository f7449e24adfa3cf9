"""
A few windows swept in every way, so that all there is to compile is compiled.
"""

import numpy as np

from domain.kernel.series import FILLS_UNKNOWN, Series, columns_of, make_series
from domain.kpis import KPIS
from domain.policy import Policy
from replay.sweeping import decide_series, sweep

ROWS = 300
INTERVAL_MS = 60_000


def sweep_every_way() -> None:
    """Use every compiled function, with arguments of the types that a real sweep gives."""
    policies = [Policy(), Policy(unfreeze_after_ok_windows=12)]
    for halts in (False, True):
        series = _series(halts)
        for money in ("none", "total", "symbols"):
            sweep(series, policies, money=money, engine="words")
        decide_series(series, Policy(global_freeze_symbols=2), fast=True)


def _series(halts: bool) -> Series:
    """Return a series with breaches, and with or without fills that stop."""
    chance = np.random.default_rng(1)
    columns = []
    for _ in range(2):
        values = np.array([[kpi.threshold] * ROWS for kpi in KPIS])
        values[:, ::50] += chance.choice([-0.1, 0.1], (len(KPIS), ROWS // 50))
        absent = np.zeros((len(KPIS), ROWS), np.bool_)
        absent[:2, 60:90] = halts
        columns.append(
            columns_of(values, absent, np.ones(ROWS), np.full(ROWS, FILLS_UNKNOWN, np.int64))
        )
    return make_series(
        ("AA", "BB"),
        interval_ms=INTERVAL_MS,
        starts_ms=np.arange(ROWS, dtype=np.int64) * INTERVAL_MS,
        columns=columns,
    )
