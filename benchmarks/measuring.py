"""
What a figure is, and how one is taken: interleaved with its peer's, and as a median.
"""

import os
import platform
import sqlite3
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final, Literal

import msgspec

ROOT: Final = Path(__file__).parent.parent

Better = Literal["lower", "higher"]


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """
    How much is measured, and where.

    Attributes:
        folder: an empty folder on a real disk: in memory a durable commit costs nothing.
        windows: how many the large ledger holds.
        peer_windows: how many the library's own fold is given; its figure is a rate.
        commits: how many windows are appended one by one.
    """

    folder: Path
    windows: int = 500_000
    peer_windows: int = 20_000
    commits: int = 2_000


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """
    One line of the table.

    Attributes:
        what: what was measured.
        ours, peer: both in `unit`; the peer is None where there is none.
        peer_name: what the peer is.
        better: whether less or more is better.
        aim: the bound; for the ratio ours/peer where there is a peer, else for ours.
    """

    what: str
    ours: float
    unit: str
    better: Better
    peer: float | None = None
    peer_name: str = ""
    aim: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours by the peer's."""
        return None if self.peer is None else self.ours / self.peer

    @property
    def is_met(self) -> bool | None:
        """Whether the aim is met; None without one."""
        if self.aim is None:
            return None
        measured = self.ours if self.ratio is None else self.ratio
        return measured <= self.aim if self.better == "lower" else measured >= self.aim


def seconds(work: Callable[[], object]) -> float:
    """Return how long the work takes, once."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interleaved(turns: int, works: list[Callable[[int], object]]) -> list[float]:
    """
    Return each work's median time in seconds, all of them done in every turn.

    They take turns in being first, so that none always finds the disk as another left it.

    Args:
        turns: how often.
        works: each is called with the turn's number.
    """
    times: list[list[float]] = [[] for _ in works]
    for turn in range(turns):
        for offset in range(len(works)):
            index = (turn + offset) % len(works)
            times[index].append(seconds(partial(works[index], turn)))
    return [median(taken) for taken in times]


def machine() -> str:
    """Return what the figures were taken on, in a line."""
    return (
        f"{os.cpu_count()} cores {platform.machine()}, {platform.system()} {platform.release()}, "
        f"Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}"
    )
