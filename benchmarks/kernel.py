"""
The kernel over a year of windows, beside all that one could sweep policies with instead.

10,368 policies each; the best of several runs, for the machine is seldom ours alone: the control
loop says how much of the cores there was. A peer's rate is of as many policies as it gets through
in seconds, on all cores where it can use them. Source: issue 6, Show.
"""

import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from benchmarks import kernel_market, kernel_peers
from benchmarks.core import measure as measure_core
from benchmarks.kernel_market import GRID, WINDOWS, YEARS
from benchmarks.measuring import ROOT, Figure, Scale, seconds
from benchmarks.rebuild import rates
from domain.kernel.outcomes import stakes_table
from domain.kernel.series import Series
from domain.policy import Policy
from replay import warming
from replay.sweeping import Money, sweep

CORES: Final = 2
RUNS: Final = 7
AIM_STATE_SEC: Final = 0.1
AIM_MONEY_SEC: Final = 0.2
AIM_WAIVERS_SEC: Final = 5 * AIM_STATE_SEC
AIM_EXTREMES: Final = 100.0
AIM_SYMBOLS: Final = 1000.0
WORK: Final = WINDOWS * len(GRID)
PEER_WINDOWS: Final = 5_000
TAILS: Final[dict[Money, str]] = {"none": "state", "symbols": "money per symbol"}
FILLS_STOP: Final = 0.002


def measure(scale: Scale) -> list[Figure]:
    warming.use_compiled(Path(scale.folder).parent / "compiled")
    if not warming.is_warm():
        warming.warm()
    distinct = kernel_market.distinct_policies()
    figures = [_cores()]
    for name, share in YEARS.items():
        for symbols in (5, 50):
            series = kernel_market.year(share, symbols)
            figures += _sweeps(series, f"{name} year, {symbols} symbols", distinct, symbols)
            if symbols == 5:
                figures += _against_loops(series, name)
            if (name, symbols) == ("ordinary", 5):
                figures += _against_the_rest(series, scale)
            del series
    figures += _with_waivers()
    return [*figures, _cores()]


def _sweeps(series: Series, what: str, distinct: list[Policy], symbols: int) -> Iterable[Figure]:
    is_aimed = what == "ordinary year, 5 symbols"
    for policies, kind in ((GRID, "grid"), (distinct, "all distinct")):
        for money, tail in TAILS.items():
            if symbols == 50 and kind == "all distinct" and money == "symbols":
                continue
            runs = RUNS if kind == "grid" else 2
            taken = _best(runs, partial(sweep, series, policies, money=money))
            aim = AIM_STATE_SEC if money == "none" else AIM_MONEY_SEC
            yield Figure(
                what=f"{what}, {kind}, {tail}", ours=taken, unit="s", better="lower",
                aim=aim if is_aimed and kind == "grid" else None,
            )  # fmt: skip


def _against_loops(series: Series, name: str) -> Iterable[Figure]:
    worst = kernel_market.extremes(series)
    table = stakes_table(series)
    arguments = (
        np.stack([columns.values for columns in series.columns]),
        np.stack([columns.codes for columns in series.columns]),
        np.stack([table.of(symbol).change for symbol in range(len(series.symbols))]).astype(
            np.float64
        ),
    )

    def over_extremes(number: int) -> Any:
        limits, counts = _numbers(number)
        windows = np.zeros(3, np.int64)
        kernel_peers.loop_over_extremes(worst, limits, counts, windows)
        return windows

    def over_symbols(number: int) -> Any:
        limits, counts = _numbers(number)
        windows, money = np.zeros(3, np.int64), np.zeros((len(series.symbols), 2))
        kernel_peers.loop_over_symbols(*arguments, limits, counts, 0.5, windows, money)
        return windows

    loops: list[tuple[str, Callable[[int], Any], int, Money, float]] = [
        ("a numba loop over five extremes", over_extremes, 64, "none", AIM_EXTREMES),
        ("a numba loop over all symbols, with money", over_symbols, 8, "symbols", AIM_SYMBOLS),
    ]
    for peer, loop, policies, money, aim in loops:
        chosen = range(0, len(GRID), len(GRID) // policies)
        outcomes = sweep(series, [GRID.table.policy(number) for number in chosen])
        assert [loop(number).tolist() for number in chosen] == outcomes.states.windows.tolist()
        taken = _best(3, partial(_in_threads, loop, chosen))
        ours = _best(RUNS, partial(sweep, series, GRID, money=money))
        yield _rate(
            f"{name} year, 5 symbols, grid", ours, WINDOWS * len(chosen) / taken, peer,
            aim if name == "ordinary" else None,
        )  # fmt: skip


def _against_the_rest(series: Series, scale: Scale) -> Iterable[Figure]:
    ours = _best(RUNS, lambda: sweep(series, GRID))
    policy = Policy()
    crit, warn = kernel_peers.verdicts(kernel_market.extremes(series), policy)
    expected = sweep(series, [policy]).states.windows[0].tolist()
    vectorised = {
        "NumPy, one policy at a time": kernel_peers.by_numpy,
        "Polars, one policy at a time": kernel_peers.by_polars,
        "DuckDB SQL, one policy at a time": kernel_peers.by_duckdb,
        "`transitions`, one trigger a window": kernel_peers.by_transitions,
    }
    for peer, decide in vectorised.items():
        assert decide(crit, warn, policy) == expected, peer
        runs = 1 if decide is kernel_peers.by_transitions else 3
        taken = _best(runs, partial(decide, crit, warn, policy))
        yield _rate("ordinary year, 5 symbols, grid", ours, WINDOWS / taken, peer)
    yield _rate(
        "ordinary year, 5 symbols, grid",
        ours,
        measure_core(msgspec.structs.replace(scale, peer_windows=PEER_WINDOWS))[0].ours,
        "the core",
    )
    _, rebuilding = rates(msgspec.structs.replace(scale, peer_windows=PEER_WINDOWS))
    yield _rate("ordinary year, 5 symbols, grid", ours, rebuilding, "rebuilding by the library")
    yield from _uncompiled(series)


def _uncompiled(series: Series) -> Iterable[Figure]:
    for money, tail in TAILS.items():
        taken = _best(2, partial(sweep, series, GRID, money=money, engine="integers"))
        yield Figure(
            what=f"ordinary year, 5 symbols, grid, {tail}, Python integers, no compiler",
            ours=taken, unit="s", better="lower",
        )  # fmt: skip


def _with_waivers() -> Iterable[Figure]:
    halting = kernel_market.year(YEARS["ordinary"], 5, fills_stop=FILLS_STOP)
    taken = _best(RUNS, lambda: sweep(halting, GRID))
    yield Figure(
        what="ordinary year, 5 symbols, grid, state, with waivers at work", ours=taken, unit="s",
        better="lower", aim=AIM_WAIVERS_SEC,
    )  # fmt: skip
    few = list(map(GRID.table.policy, range(0, len(GRID), len(GRID) // 16)))
    taken = _best(2, lambda: sweep(halting, few, money="symbols"))
    yield Figure(
        what="  the same with money per symbol, window by window, a policy", ours=taken / len(few),
        unit="s", better="lower",
    )  # fmt: skip


def _rate(what: str, ours: float, peer: float, name: str, aim: float | None = None) -> Figure:
    return Figure(
        what=f"{what}, windows x policies", ours=WORK / ours / 1e6, unit="M/s", better="higher",
        peer=peer / 1e6, peer_name=name, aim=aim,
    )  # fmt: skip


def _cores() -> Figure:
    """Return how much of the cores a loop in as many processes gets."""
    program = (
        "import time; a = time.time(); [None for _ in iter(lambda: time.time() < a + 1, False)]"
    )
    program += "; print(time.process_time() / (time.time() - a))"
    loops = [
        subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE)
        for _ in range(CORES)
    ]
    had = sum(float(loop.communicate()[0]) for loop in loops)
    return Figure(what=f"control: of {CORES} cores there were", ours=had, unit="", better="higher")


def _numbers(number: int) -> tuple[Any, Any]:
    table = GRID.table
    counts = [table.min_warn[number], table.min_ok[number], table.unfreeze_after[number]]
    return table.thresholds[number].copy(), np.array(counts, np.int64)


def _in_threads(work: Callable[[int], Any], numbers: Iterable[int]) -> None:
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(work, numbers))


def _best(runs: int, work: Callable[[], object]) -> float:
    return min(seconds(work) for _ in range(runs))
