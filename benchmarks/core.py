"""Deciding again, through the same core as the live run."""

from collections import deque

from benchmarks import market
from benchmarks.measuring import Figure, Scale, seconds


def measure(scale: Scale) -> list[Figure]:
    windows = scale.peer_windows
    taken = min(seconds(lambda: deque(market.decided(windows), maxlen=0)) for _ in range(3))
    made = min(
        seconds(lambda: deque(map(market.readings, range(windows)), maxlen=0)) for _ in range(3)
    )
    return [
        Figure(
            what="replay through the core (decide, evolve)",
            ours=windows / (taken - made),
            unit="windows/s",
            better="higher",
        )
    ]
