"""
The buckets of all windows that aren't closed yet, within limits whatever arrives.

A part of a window is known by its key; later parts have higher keys.

Source: DESIGN.md section 5; issue 3, Feeds ("memory is bounded").
"""

import heapq
from collections.abc import Iterator
from typing import Final

import msgspec

from feeds.buckets import Bucket


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """
    How much is held at most; what goes beyond is counted as `overflow`.

    Attributes:
        buckets: of all windows that aren't closed yet; the furthest ahead are dropped first.
        latencies: of all windows that aren't closed yet.
        latencies_per_window: of one symbol in one window; with more of them there is no p95.
    """

    buckets: int = 65_536
    latencies: int = 8_000_000
    latencies_per_window: int = 1_000_000


DEFAULT_LIMITS: Final = Limits()


class BucketStore:
    """Buckets by part of a window and symbol."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parts: dict[int, dict[str, Bucket]] = {}
        # Negated keys, so that the furthest part comes first; those of parts long gone come last.
        self._furthest: list[int] = []
        self._bucket_count = 0
        self._latency_count = 0
        self._dropped = 0

    @property
    def held_items(self) -> int:
        """How many buckets and latencies are held."""
        return self._bucket_count + self._latency_count

    def bucket(self, key: int, symbol: str) -> Bucket | None:
        """Return the symbol's bucket, a new one if need be; None if there is no room for one."""
        part = self._parts.get(key)
        found = None if part is None else part.get(symbol)
        return self._new_bucket(key, symbol) if found is None else found

    def add_latency(self, bucket: Bucket, latency_ms: float) -> bool:
        """Return whether there was room for the latency; without, the bucket is overfull."""
        limits = self._limits
        if (
            bucket.latency_count >= limits.latencies_per_window
            or self._latency_count >= limits.latencies
        ):
            bucket.is_overfull = True
            return False
        bucket.add_latency(latency_ms)
        self._latency_count += 1
        return True

    @property
    def newest_ms(self) -> int:
        """The latest `ts` of what is held; -1 without any."""
        buckets = (bucket for part in self._parts.values() for bucket in part.values())
        return max((bucket.newest_ms for bucket in buckets), default=-1)

    def take(self, key: int) -> dict[str, Bucket]:
        """Return the buckets of a part, and hold them no more."""
        part = self._parts.pop(key, {})
        self._bucket_count -= len(part)
        self._latency_count -= sum(bucket.latency_count for bucket in part.values())
        return part

    def take_before(self, key: int) -> Iterator[tuple[int, dict[str, Bucket]]]:
        """Yield every part before that one, in order, and hold it no more."""
        for earlier in sorted(held for held in self._parts if held < key):
            yield earlier, self.take(earlier)

    def drop_after(self, key: int) -> int:
        """Drop every part after that one; return how many samples were in them."""
        dropped = sum(
            _samples(self.take(later)) for later in [held for held in self._parts if held > key]
        )
        self._furthest = [-held for held in self._parts]
        heapq.heapify(self._furthest)
        return dropped

    def take_dropped(self) -> int:
        """Return how many samples were dropped for lack of room since the last call."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def _new_bucket(self, key: int, symbol: str) -> Bucket | None:
        while self._bucket_count >= self._limits.buckets:
            furthest = -self._furthest[0]
            if furthest in self._parts and furthest <= key:
                return None
            heapq.heappop(self._furthest)
            self._dropped += _samples(self.take(furthest))
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = {}
            heapq.heappush(self._furthest, -key)
        part[symbol] = bucket = Bucket()
        self._bucket_count += 1
        return bucket


def _samples(part: dict[str, Bucket]) -> int:
    return sum(bucket.samples for bucket in part.values())
