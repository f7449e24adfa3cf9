"""
The kernel's peers: what else one could sweep policies with, as far as it can say the rules at all.

None of the vectorised ones knows NO_DATA, waivers or throttles: a window is OK, WARN or CRIT, and
two latches follow. Each returns the windows in ACTIVE, COOLDOWN and FROZEN, so that it is known to
have done the work.
"""

from typing import Any

import duckdb
import numba
import numpy as np
import polars as pl
import transitions

from domain.policy import Policy

Verdicts = Any
"""Two arrays of bool, shape (windows,): CRIT, and WARN."""


def verdicts(worst: Any, policy: Policy) -> tuple[Any, Any]:
    """Return where a window is CRIT, and where WARN and not CRIT."""
    edge, maker, risk, latency, anomaly = policy.thresholds.values()
    crit = (worst[0] < edge) | (worst[2] > risk) | (worst[4] > anomaly)
    return crit, ((worst[1] < maker) | (worst[3] > latency)) & ~crit


def by_transitions(crit: Any, warn: Any, policy: Policy) -> list[int]:
    """One trigger a window, the way of the library's documentation."""

    class Controller:
        state = ""
        ok = 0
        warns = 0

        def enough_warn(self) -> bool:
            return self.warns >= policy.min_warn_windows

        def calm(self) -> bool:
            return self.ok >= policy.min_ok_windows

        def thawed(self) -> bool:
            return self.ok >= policy.unfreeze_after_ok_windows

    controller: Any = Controller()
    machine = transitions.Machine(
        controller, ["ACTIVE", "COOLDOWN", "FROZEN"], initial="ACTIVE", auto_transitions=False
    )
    machine.add_transition("crit", ["ACTIVE", "COOLDOWN"], "FROZEN")
    machine.add_transition("crit", "FROZEN", None)
    machine.add_transition("warn", "ACTIVE", "COOLDOWN", conditions="enough_warn")
    machine.add_transition("warn", ["ACTIVE", "COOLDOWN", "FROZEN"], None)
    machine.add_transition("fine", "COOLDOWN", "ACTIVE", conditions="calm")
    machine.add_transition("fine", "FROZEN", "ACTIVE", conditions="thawed")
    machine.add_transition("fine", ["ACTIVE", "COOLDOWN", "FROZEN"], None)
    windows = {"ACTIVE": 0, "COOLDOWN": 0, "FROZEN": 0}
    for is_crit, is_warn in zip(crit.tolist(), warn.tolist(), strict=True):
        before = controller.state
        controller.ok = 0 if is_crit or is_warn else controller.ok + 1
        controller.warns = controller.warns + 1 if is_warn else 0
        if is_crit:
            controller.crit()
        elif is_warn:
            controller.warn()
        else:
            controller.fine()
        if controller.state != before:
            controller.ok = controller.warns = 0
        windows[controller.state] += 1
    return list(windows.values())


def by_numpy(crit: Any, warn: Any, policy: Policy) -> list[int]:
    """A latch is where the last window that set it is later than the last that reset it."""
    numbers = np.arange(1, len(crit) + 1)

    def last(flags: Any) -> Any:
        return np.maximum.accumulate(np.where(flags, numbers, 0))

    ill = last(crit | warn)
    frozen = last(crit) > last(numbers - ill >= policy.unfreeze_after_ok_windows)
    enough = (numbers - last(~warn) >= policy.min_warn_windows) & ~frozen
    cooling = last(enough) > last((numbers - ill >= policy.min_ok_windows) | frozen)
    windows = len(crit), int(cooling.sum()), int(frozen.sum())
    return [windows[0] - windows[1] - windows[2], *windows[1:]]


def by_polars(crit: Any, warn: Any, policy: Policy) -> list[int]:
    """The same, with forward fills."""
    number, zero = pl.col("number"), pl.lit(0)

    def last(flags: pl.Expr) -> pl.Expr:
        return pl.when(flags).then(number).otherwise(zero).cum_max()

    frame = pl.LazyFrame(
        {"number": np.arange(1, len(crit) + 1), "crit": crit, "warn": warn}
    ).with_columns(ill=last(pl.col("crit") | pl.col("warn")))
    thawed = number - pl.col("ill") >= policy.unfreeze_after_ok_windows
    frame = frame.with_columns(frozen=last(pl.col("crit")) > last(thawed))
    enough = number - last(~pl.col("warn")) >= policy.min_warn_windows
    calm = (number - pl.col("ill") >= policy.min_ok_windows) | pl.col("frozen")
    frame = frame.with_columns(cooling=last(enough & ~pl.col("frozen")) > last(calm))
    cooling, frozen = frame.select(pl.col("cooling").sum(), pl.col("frozen").sum()).collect().row(0)
    return [len(crit) - cooling - frozen, cooling, frozen]


def by_duckdb(crit: Any, warn: Any, policy: Policy) -> list[int]:
    """The same, in SQL."""
    windows = pl.DataFrame({"number": np.arange(1, len(crit) + 1), "crit": crit, "warn": warn})
    with duckdb.connect() as connection:
        connection.register("windows", windows.to_arrow())
        row = connection.execute(
            """
            WITH ill AS (SELECT *,
                coalesce(max(CASE WHEN crit OR warn THEN number END) OVER w, 0) AS ill,
                coalesce(max(CASE WHEN NOT warn THEN number END) OVER w, 0) AS no_warn
                FROM windows WINDOW w AS (ORDER BY number)),
            frozen AS (SELECT *, coalesce(max(CASE WHEN crit THEN number END) OVER w, 0)
                > coalesce(max(CASE WHEN number - ill >= $thaw THEN number END) OVER w, 0) AS frozen
                FROM ill WINDOW w AS (ORDER BY number)),
            cooling AS (SELECT *, coalesce(max(CASE WHEN number - no_warn >= $warn AND NOT frozen
                THEN number END) OVER w, 0) > coalesce(max(CASE WHEN number - ill >= $ok OR frozen
                THEN number END) OVER w, 0) AS cooling
                FROM frozen WINDOW w AS (ORDER BY number))
            SELECT count(*) FILTER (cooling), count(*) FILTER (frozen) FROM cooling
            """,
            {
                "thaw": policy.unfreeze_after_ok_windows,
                "warn": policy.min_warn_windows,
                "ok": policy.min_ok_windows,
            },
        ).fetchone()
    assert row is not None
    return [len(crit) - row[0] - row[1], row[0], row[1]]


@numba.njit(nogil=True)
def loop_over_extremes(worst: Any, limits: Any, counts: Any, windows: Any) -> None:
    """The straightforward loop over five extremes: state only."""
    state, ok, warns = 0, 0, 0
    for t in range(worst.shape[1]):
        crit = worst[0, t] < limits[0] or worst[2, t] > limits[2] or worst[4, t] > limits[4]
        warn = worst[1, t] < limits[1] or worst[3, t] > limits[3]
        if crit:
            state, ok, warns = 2, 0, 0
        elif warn:
            ok, warns = 0, warns + 1
            if state == 0 and warns >= counts[0]:
                state, warns = 1, 0
        else:
            ok, warns = ok + 1, 0
            if (state == 1 and ok >= counts[1]) or (state == 2 and ok >= counts[2]):
                state, ok = 0, 0
        windows[state] += 1


@numba.njit(nogil=True)
def loop_over_symbols(  # noqa: C901, PLR0912 - straightforward
    values: Any, codes: Any, change: Any, limits: Any, counts: Any, cooldown: float,
    windows: Any, money: Any,
) -> None:  # fmt: skip
    """The straightforward loop over all symbols: NO_DATA, throttles, money for each symbol."""
    symbols, kpis, rows = values.shape
    state, ok, warns = 0, 0, 0
    missing = np.zeros((symbols, kpis), np.int64)
    frozen, oks = np.zeros(symbols, np.int64), np.zeros(symbols, np.int64)
    effective = np.ones(symbols)
    for t in range(rows):
        worst = 0
        for s in range(symbols):
            earned = effective[s] * change[s, t]
            if earned > 0:
                money[s, 0] += earned
            else:
                money[s, 1] -= earned
            verdict = 0
            for k in range(kpis):
                value = values[s, k, t]
                if codes[s, k, t] != 0:
                    missing[s, k] += 1
                    verdict = max(verdict, 2 if missing[s, k] >= 3 else 1)
                    continue
                missing[s, k] = 0
                bad = value < limits[k] if k < 2 else value > limits[k]
                if bad:
                    verdict = max(verdict, 1 if k in (1, 3) else 2)
            oks[s] = oks[s] + 1 if verdict == 0 else 0
            if verdict == 2:
                frozen[s] = 1
            elif frozen[s] and oks[s] >= counts[2]:
                frozen[s] = 0
            effective[s] = 0.0 if frozen[s] else (0.5 if verdict else 1.0)
            worst = max(worst, verdict)
        if worst == 2:
            state, ok, warns = 2, 0, 0
        elif worst == 1:
            ok, warns = 0, warns + 1
            if state == 0 and warns >= counts[0]:
                state, warns = 1, 0
        else:
            ok, warns = ok + 1, 0
            if (state == 1 and ok >= counts[1]) or (state == 2 and ok >= counts[2]):
                state, ok = 0, 0
        throttle = 1.0 if state == 0 else (cooldown if state == 1 else 0.0)
        for s in range(symbols):
            effective[s] = min(effective[s], throttle)
        windows[state] += 1
