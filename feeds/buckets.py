"""
What is held of one symbol's samples: sums and levels, never the fills themselves.

Source: DESIGN.md section 5.
"""

import math
from array import array
from collections.abc import Sequence
from itertools import chain
from typing import Final, TypeVar

from domain.kpis import Defect, Reading
from feeds.sample_types import Fill, KpiSample, Position, Sample

EDGE: Final = "edge_bps"
MAKER: Final = "maker_taker_ratio"
RISK: Final = "risk_ratio"
LATENCY: Final = "p95_latency_ms"

Level = TypeVar("Level", KpiSample, Position, Fill)


class FillSums:
    """
    Sums over fills, in quote currency.

    Attributes:
        fills: how many.
        notional: of all of them.
        maker_notional: of those that rested in the book.
        gain: side x (mid - price) x quantity: their edge, weighted by notional.
    """

    __slots__ = ("fills", "gain", "maker_notional", "notional")

    def __init__(self) -> None:
        self.fills = 0
        self.notional = 0.0
        self.maker_notional = 0.0
        self.gain = 0.0

    def add(self, fill: Fill) -> None:
        """Add one fill."""
        quantity = fill.quantity
        notional = fill.price * quantity
        self.fills += 1
        self.notional += notional
        if fill.maker:
            self.maker_notional += notional
        self.gain += fill.side * (fill.mid - fill.price) * quantity

    def add_sums(self, other: "FillSums") -> None:
        """Add the sums over other fills."""
        self.fills += other.fills
        self.notional += other.notional
        self.maker_notional += other.maker_notional
        self.gain += other.gain

    @property
    def known_notional(self) -> float | None:
        """The notional, or None if a float can't hold it."""
        return self.notional if self.notional < math.inf else None

    def kpis(self) -> dict[str, Reading]:
        """Return edge in bps and maker ratio of at least one fill; OVERFLOW beyond a float."""
        if not 0 < self.notional < math.inf:
            return {EDGE: Defect.OVERFLOW, MAKER: Defect.OVERFLOW}
        # The same additions, some left out: the maker's sum is never above that of all.
        return {
            EDGE: _finite(self.gain / self.notional * 10_000),
            MAKER: self.maker_notional / self.notional,
        }


class Bucket:
    """
    What arrived for one symbol in one part of a window that isn't closed yet.

    Attributes:
        samples: how many are in it, of any kind.
        newest_ms: the latest `ts` among them; -1 without any.
        fills: their sums; None without fills.
        ready: the last ready KPIs by `ts`.
        position: the last position by `ts`.
        peak: the largest |position| / limit; None without positions.
        latencies: in milliseconds, as they came; None without them.
        last_buy, last_sell: the last fill of each side by `ts`.
        is_overfull: some latencies are missing, because no more may be held.
    """

    __slots__ = (
        "fills", "is_overfull", "last_buy", "last_sell", "latencies", "newest_ms", "peak",
        "position", "ready", "samples",
    )  # fmt: skip

    def __init__(self) -> None:
        self.samples = 0
        self.newest_ms = -1
        self.fills: FillSums | None = None
        self.ready: KpiSample | None = None
        self.position: Position | None = None
        self.peak: float | None = None
        self.latencies: array[float] | None = None
        self.last_buy: Fill | None = None
        self.last_sell: Fill | None = None
        self.is_overfull = False

    def add_fill(self, fill: Fill) -> None:
        """Add one fill."""
        if self.fills is None:
            self.fills = FillSums()
        self.fills.add(fill)
        if fill.side > 0:
            self.last_buy = later(self.last_buy, fill)
        else:
            self.last_sell = later(self.last_sell, fill)

    def add_latency(self, latency_ms: float) -> None:
        """Hold one latency."""
        if self.latencies is None:
            self.latencies = array("d")
        self.latencies.append(latency_ms)

    def add_position(self, position: Position) -> None:
        """Take a position."""
        self.position = later(self.position, position)
        share = share_of_limit(position)
        if self.peak is None or share > self.peak:
            self.peak = share

    @property
    def latency_count(self) -> int:
        """How many latencies are held."""
        return 0 if self.latencies is None else len(self.latencies)


class Levels:
    """
    What is known of a symbol from the windows before: levels, and what kinds of samples it has.

    Attributes:
        ready: the last ready KPIs by `ts`.
        position: the last position by `ts`.
        fills_index, latency_index, position_index: the last window that had one; -1 for none.
    """

    __slots__ = ("fills_index", "latency_index", "position", "position_index", "ready")

    def __init__(self) -> None:
        self.ready: KpiSample | None = None
        self.position: Position | None = None
        self.fills_index = -1
        self.latency_index = -1
        self.position_index = -1

    def take_bucket(self, bucket: Bucket, index: int) -> None:
        """Go on over a part of a window that is closed or skipped."""
        if bucket.ready is not None:
            self.ready = later(self.ready, bucket.ready)
        if bucket.position is not None:
            self.position = later(self.position, bucket.position)
            self.position_index = max(self.position_index, index)
        if bucket.fills is not None:
            self.fills_index = max(self.fills_index, index)
        if bucket.latencies is not None or bucket.is_overfull:
            self.latency_index = max(self.latency_index, index)

    def take_sample(self, sample: Sample, index: int) -> None:
        """Go on over a sample that came when its window was closed or skipped already."""
        if isinstance(sample, KpiSample):
            self.ready = later(self.ready, sample)
        elif isinstance(sample, Position):
            self.position = later(self.position, sample)
            self.position_index = max(self.position_index, index)
        elif isinstance(sample, Fill):
            self.fills_index = max(self.fills_index, index)
        else:
            self.latency_index = max(self.latency_index, index)

    def raw_kpis(self, first_index: int) -> tuple[str, ...]:
        """Return the KPIs whose raw samples there were, from that window on."""
        kpis: tuple[str, ...] = ()
        if self.fills_index >= first_index:
            kpis += (EDGE, MAKER)
        if self.position_index >= first_index:
            kpis += (RISK,)
        if self.latency_index >= first_index:
            kpis += (LATENCY,)
        return kpis


def later(held: Level | None, arrived: Level) -> Level:
    """Return the one with the later `ts`; of equal ones, the one that arrived later."""
    return arrived if held is None or arrived.ts_ms >= held.ts_ms else held


def share_of_limit(position: Position) -> float:
    """Return |position| / limit, infinite if a float can't hold it."""
    return abs(position.notional) / position.limit


def risk_kpi(carried: Position | None, parts: Sequence[Bucket]) -> dict[str, Reading]:
    """Return the largest |position| / limit; nothing without positions, OVERFLOW beyond a float."""
    shares = [part.peak for part in parts if part.peak is not None]
    if carried is not None:
        shares.append(share_of_limit(carried))
    return {RISK: _finite(max(shares))} if shares else {}


def last_risk_fill(carried: Position | None, parts: Sequence[Bucket]) -> Fill | None:
    """
    Return the last fill in a window that added risk.

    A fill reduces risk only if the last position known before it is against its side.
    """
    positions = [part.position for part in parts if part.position is not None]
    if carried is not None:
        positions.insert(0, carried)
    last: Fill | None = None
    for fill in chain.from_iterable((part.last_buy, part.last_sell) for part in parts):
        if fill is None:
            continue
        before = [position for position in positions if position.ts_ms <= fill.ts_ms]
        if not before or fill.side * before[-1].notional >= 0:
            last = later(last, fill)
    return last


def latency_kpi(parts: Sequence[Bucket], *, latencies_max: int) -> dict[str, Reading]:
    """Return p95 in milliseconds; nothing without latencies, OVERFLOW if there were too many."""
    count = sum(part.latency_count for part in parts)
    if count > latencies_max or any(part.is_overfull for part in parts):
        return {LATENCY: Defect.OVERFLOW}
    held = (part.latencies for part in parts if part.latencies is not None)
    return {LATENCY: p95(sorted(chain.from_iterable(held)))} if count else {}


def p95(increasing: Sequence[float]) -> float:
    """
    Return the 95th percentile of at least one number, by linear interpolation.

    To the last bit as `numpy.percentile(values, 95)`. Source: DESIGN.md section 5.
    """
    place = (len(increasing) - 1) * 0.95
    below = math.floor(place)
    low, high = increasing[below], increasing[min(below + 1, len(increasing) - 1)]
    part = place - below
    # As numpy does it: from the nearer end, so that rounding can't pass it.
    return high - (high - low) * (1 - part) if part >= 0.5 else low + (high - low) * part


def _finite(value: float) -> Reading:
    return value if math.isfinite(value) else Defect.OVERFLOW
