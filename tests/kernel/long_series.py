"""Long random series with every kind of trouble, for what short ones can't show: words and gaps."""

from typing import NamedTuple

import numpy as np
from decider_spec import BTC, ETH, HEALTHY, KPI_NAMES, MINUTE_MS, SOL, START_MS

from domain.kernel.series import FILLS_UNKNOWN, Series, columns_of, make_series
from domain.kpis import KPIS
from domain.policy import Policy

NAMES = (BTC, ETH, SOL)


class Trouble(NamedTuple):
    """How often what happens, by window, symbol and KPI."""

    breaches: float = 0.0
    absent: float = 0.0
    malformed: float = 0.0
    halts: float = 0.0
    gaps: float = 0.0
    notional: bool = True


TROUBLES = {
    "calm": Trouble(breaches=0.0005),
    "ordinary": Trouble(breaches=0.004),
    "stormy": Trouble(breaches=0.03),
    "with gaps": Trouble(breaches=0.002, gaps=0.003),
    "with NO_DATA": Trouble(breaches=0.002, absent=0.002, malformed=0.001, gaps=0.001),
    "with fills that stop": Trouble(breaches=0.002, halts=0.02),
    "with everything": Trouble(0.003, 0.002, 0.001, 0.02, 0.001, notional=False),
}


def long_series(seed: int, trouble: Trouble, *, rows: int = 1_500, symbols: int = 3) -> Series:
    """Return a series in which breaches come singly and in runs, and so does NO_DATA."""
    chance = np.random.default_rng(seed)
    steps = 1 + (chance.random(rows) < trouble.gaps) * chance.integers(1, 300, rows)
    index = np.cumsum(steps) - steps[0]
    columns = []
    for _ in range(symbols):
        values = np.empty((len(KPIS), rows))
        for at, kpi in enumerate(KPIS):
            healthy = HEALTHY[kpi.name]
            assert isinstance(healthy, float)
            values[at] = healthy
            worse = -0.01 if kpi.breached_when == "<" else 0.01
            bad = runs(chance, rows, trouble.breaches)
            values[at, bad] = kpi.threshold + worse * chance.integers(0, 4, bad.sum())
        absent = np.stack([runs(chance, rows, trouble.absent) for _ in KPIS])
        absent[:2] |= runs(chance, rows, trouble.halts)
        values[np.stack([runs(chance, rows, trouble.malformed) for _ in KPIS])] = np.nan
        notional = (chance.integers(0, 4, rows) * 1_000.25).astype(np.float64)
        columns.append(
            columns_of(
                values,
                absent,
                notional if trouble.notional else np.full(rows, np.nan),
                np.full(rows, FILLS_UNKNOWN),
            )
        )
    return make_series(
        NAMES[:symbols],
        interval_ms=MINUTE_MS,
        starts_ms=START_MS + index * MINUTE_MS,
        columns=columns,
        end_ms=START_MS + (int(index[-1]) + 1 + int(chance.integers(0, 200))) * MINUTE_MS,
        limit=int(chance.integers(1, symbols + 1)),
    )


def runs(chance: np.random.Generator, rows: int, share: float) -> "np.typing.NDArray[np.bool_]":
    """Return where something is the case: runs of 1 to 8 rows."""
    flags = np.zeros(rows, np.bool_)
    for begin in np.flatnonzero(chance.random(rows) < share):
        flags[begin : begin + chance.integers(1, 9)] = True
    return flags


def random_policy(chance: np.random.Generator, limit: int, *, alone: bool = True) -> Policy:
    """Return a policy around the defaults; `alone` means that one symbol freezes all."""
    thresholds = {
        kpi.policy_key: float(kpi.threshold + chance.choice([-0.02, -0.01, 0.0, 0.01, 0.02]))
        for kpi in KPIS
    }
    min_ok = int(chance.integers(1, 13))
    return Policy(
        thresholds=thresholds,
        symbols={ETH: {"max_risk": 0.41}} if chance.random() < 0.3 else {},
        required_kpis=KPI_NAMES if chance.random() < 0.3 else Policy().required_kpis,
        waived_when_halted=() if chance.random() < 0.3 else ("edge_bps", "maker_taker_ratio"),
        min_warn_windows=int(chance.integers(1, 5)),
        min_ok_windows=min_ok,
        unfreeze_after_ok_windows=min_ok + int(chance.integers(0, 13)),
        no_data_freeze_windows=int(chance.integers(1, 5)),
        global_freeze_symbols=1 if alone else int(chance.integers(1, limit + 1)),
        cooldown_throttle=float(chance.choice([0.3, 0.5, 0.6])),
    )
