"""
From samples to windows: the aggregation that live feeds share.

Samples go into buckets by their own `ts`, so that a window comes out the same however its samples
were delivered, as long as none is late. A bucket holds sums and levels: work and memory are
constant per fill, and bounded in all.

A bucket is one symbol's in one part of a window. A window has two parts, which meet `lateness_ms`
(modulo the interval) after its start: when a window is closed on time, the first part of a later
one may hold samples already, and whatever is in the parts after that is stamped ahead of the clock.

Source: DESIGN.md section 5; docs/feeds.md.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, assert_never

from domain.kpis import Defect, Reading
from domain.windows import (
    NOTHING,
    RiskFill,
    SymbolReadings,
    WindowReadings,
    check_interval,
    check_symbols,
    format_time,
)
from feeds.bucket_store import DEFAULT_LIMITS, BucketStore, Limits
from feeds.buckets import Bucket, FillSums, Levels, last_risk_fill, latency_kpi, later, risk_kpi
from feeds.sample_types import Fill, KpiSample, Latency, Position, Sample

LOOKBACK_WINDOWS_MAX: Final = 1_000
CONNECTED_SHARE_MIN: Final = 0.9


class Aggregator:
    """Takes samples as they come, and gives windows in order."""

    def __init__(
        self,
        symbols: Iterable[str],
        *,
        interval_ms: int,
        lookback_windows: int = 5,
        kpi_max_age_ms: int | None = None,
        lateness_ms: int = 2_000,
        limits: Limits = DEFAULT_LIMITS,
        stale: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        """
        Begin before the first window.

        Args:
            symbols: those to aggregate; samples of others are ignored and counted.
            interval_ms: the length of a window.
            lookback_windows: over how many windows' fills edge and maker ratio are, from 1 to 1000.
            kpi_max_age_ms: how old ready KPIs may be at a window's end, and the position that is
                carried into it at its start; None is two intervals.
            lateness_ms: how far a sample may be stamped beyond the end of the window being closed.
            limits: how much is held.
            stale: by symbol, the KPIs that were stale in the last window of a run before this one:
                they stay so until something newer comes, and don't become merely absent.

        Raises:
            BadInput: if a symbol or the interval is malformed.
            ValueError: if another number is out of range.
        """
        self._levels = {symbol: Levels() for symbol in check_symbols(symbols, source="symbols")}
        for symbol, kpis in (stale or {}).items():
            if symbol in self._levels:
                long_ago = KpiSample(0, symbol, dict.fromkeys(kpis, Defect.STALE))
                self._levels[symbol].ready = long_ago
        self._interval_ms = check_interval(interval_ms, source="interval")
        self._max_age_ms = 2 * interval_ms if kpi_max_age_ms is None else kpi_max_age_ms
        if not 1 <= lookback_windows <= LOOKBACK_WINDOWS_MAX:
            raise ValueError(
                f"expected 1 to {LOOKBACK_WINDOWS_MAX} lookback_windows, was {lookback_windows}"
            )
        if self._max_age_ms < 0 or lateness_ms < 0:
            raise ValueError("expected kpi_max_age_ms and lateness_ms of at least 0")
        self._lookback_windows = lookback_windows
        self._recent_windows = max(lookback_windows, -(-self._max_age_ms // interval_ms))
        self._lateness_ms = lateness_ms
        self._limits = limits
        self._counts: Counter[str] = Counter()
        # A window's index is start / interval; its parts have the keys 2 x index and that + 1.
        self._closed_index = -1
        self._next_index = 0
        self._store = BucketStore(limits)
        self._past_fills: dict[int, dict[str, FillSums]] = {}
        self._newest_ms = -1

    @property
    def held_items(self) -> int:
        """How many buckets, sums and latencies are held: what memory is proportional to."""
        return self._store.held_items + sum(map(len, self._past_fills.values()))

    @property
    def newest_ms(self) -> int | None:
        """The latest `ts` of all samples up to the last window closed; None without any."""
        return None if self._newest_ms < 0 else self._newest_ms

    def has_raw(self, symbol: str) -> bool:
        """Return whether there were raw samples of it in the lookback of the last closed window."""
        levels = self._levels.get(symbol)
        return levels is not None and bool(self._raw_kpis(levels, self._closed_index))

    def count_malformed(self, kind: str) -> None:  # noqa: ARG002
        """Count a message, or a part of one, that can't be read; all kinds are one number."""
        self._counts["malformed"] += 1

    def add(self, sample: Sample) -> None:
        """Take in a sample, in whatever order they come."""
        symbol = sample.symbol
        if symbol not in self._levels:
            self._counts["ignored"] += 1
            return
        key = self._key(sample.ts_ms)
        if key < 2 * self._next_index:
            self._add_behind(sample, key)
            return
        bucket = self._store.bucket(key, symbol)
        if bucket is None:
            self._counts["overflow"] += 1
            return
        if isinstance(sample, Fill):
            bucket.add_fill(sample)
        elif isinstance(sample, Latency):
            if not self._store.add_latency(bucket, sample.latency_ms):
                self._counts["overflow"] += 1
                return
        elif isinstance(sample, Position):
            bucket.add_position(sample)
        elif isinstance(sample, KpiSample):
            bucket.ready = later(bucket.ready, sample)
        else:
            assert_never(sample)
        bucket.samples += 1
        if sample.ts_ms > bucket.newest_ms:  # noqa: PLR1730 - a call costs more, and this is per fill
            bucket.newest_ms = sample.ts_ms

    def advance(self, start_ms: int) -> None:
        """
        Skip the windows before the one that starts at `start_ms`: none of them will be closed.

        `close` does so by itself. A feed that reads a backlog calls it first, so that less is held.
        What a skipped window leaves behind is its fills, as far as a lookback reaches, and its
        levels. Windows that were skipped or closed already stay so.

        Raises:
            ValueError: if the start isn't aligned.
        """
        index = self._index(start_ms)
        for key, part in self._store.take_before(2 * index):
            for symbol, bucket in part.items():
                self._counts["skipped"] += bucket.samples
                self._leave_behind(key, symbol, bucket)
        self._next_index = max(self._next_index, index)
        self._forget_fills()

    def close(
        self, start_ms: int, *, connected_share: float = 1.0, now_ms: int | None = None
    ) -> WindowReadings:
        """
        Return the window that starts at `start_ms`, and what was counted since the last one.

        Samples stamped too far beyond the window's end are dropped, and counted as `future`.

        Args:
            start_ms: above those before; windows left out in between are skipped.
            connected_share: for how much of the window the feed was connected, 0 to 1; under 0.9
                all that is derived from raw samples is DISCONNECTED.
            now_ms: until when samples were taken in, where that is later than the window's end plus
                the lateness; what is stamped up to it, and in the same part, isn't too far.

        Raises:
            ValueError: if the start isn't aligned, or not above those before.
        """
        index = self._index(start_ms)
        if index < self._next_index:
            first = format_time(self._next_index * self._interval_ms)
            raise ValueError(f"expected a window from {first} on, was {format_time(start_ms)}")
        self.advance(start_ms)
        level_kpis, risk_fills = self._close_levels(index)
        recent = self._fill_sums(index - self._lookback_windows + 1, index)
        own = self._fill_sums(index, index)
        is_connected = connected_share >= CONNECTED_SHARE_MIN
        symbols: dict[str, SymbolReadings] = {}
        for symbol, levels in self._levels.items():
            kpis = recent[symbol].kpis() if symbol in recent else {}
            kpis |= level_kpis[symbol]
            if not is_connected:
                kpis |= dict.fromkeys(self._raw_kpis(levels, index), Defect.DISCONNECTED)
            readings = self._readings(kpis, levels.ready, own.get(symbol), start_ms)
            if readings != NOTHING:
                symbols[symbol] = readings
        self._closed_index, self._next_index = index, index + 1
        self._forget_fills()
        on_time_ms = start_ms + self._interval_ms + self._lateness_ms
        until_ms = on_time_ms if now_ms is None else max(on_time_ms, now_ms)
        self._counts["future"] += self._store.drop_after(self._key(until_ms))
        # What is left may lie in the same part and still be ahead of the clock by a little.
        self._newest_ms = max(self._newest_ms, min(self._store.newest_ms, until_ms))
        return WindowReadings(
            start_ms=start_ms,
            symbols=symbols,
            feed_counts=self._take_counts(),
            risk_fills=risk_fills,
        )

    def _index(self, start_ms: int) -> int:
        index, into_ms = divmod(start_ms, self._interval_ms)
        if into_ms or index < 0:
            raise ValueError(f"expected a multiple of {self._interval_ms} ms, was {start_ms}")
        return index

    def _key(self, ts_ms: int) -> int:
        """Return the key of the part of a window that a time lies in."""
        interval_ms = self._interval_ms
        index, into_ms = divmod(ts_ms, interval_ms)
        return 2 * index + (into_ms > self._lateness_ms % interval_ms)

    def _add_behind(self, sample: Sample, key: int) -> None:
        """Take in a sample of a window that is closed (it is late) or skipped."""
        index = key // 2
        self._newest_ms = max(self._newest_ms, sample.ts_ms)
        if index <= self._closed_index:
            self._counts["late"] += 1
        else:
            self._counts["skipped"] += 1
            if isinstance(sample, Fill) and self._is_in_lookback(index):
                part = self._past_fills.setdefault(key, {})
                part.setdefault(sample.symbol, FillSums()).add(sample)
        self._levels[sample.symbol].take_sample(sample, index)

    def _leave_behind(self, key: int, symbol: str, bucket: Bucket) -> None:
        """Keep of a bucket what later windows need."""
        index = key // 2
        self._newest_ms = max(self._newest_ms, bucket.newest_ms)
        self._levels[symbol].take_bucket(bucket, index)
        if bucket.fills is not None:
            self._past_fills.setdefault(key, {})[symbol] = bucket.fills

    def _is_in_lookback(self, index: int) -> bool:
        """Return whether the window being closed, or else the next one, looks back on it."""
        return index > self._next_index - self._lookback_windows

    def _forget_fills(self) -> None:
        for key in [key for key in self._past_fills if not self._is_in_lookback(key // 2)]:
            del self._past_fills[key]

    def _fill_sums(self, first_index: int, last_index: int) -> dict[str, FillSums]:
        """Return each symbol's fills in those windows, added in the order of the windows."""
        sums: dict[str, FillSums] = {}
        for key in sorted(self._past_fills):
            if first_index <= key // 2 <= last_index:
                for symbol, fills in self._past_fills[key].items():
                    sums.setdefault(symbol, FillSums()).add_sums(fills)
        return sums

    def _close_levels(
        self, index: int
    ) -> tuple[dict[str, dict[str, Reading]], dict[str, RiskFill]]:
        """Return each symbol's risk, latency and risk fill in a window, and leave that behind."""
        start_ms = index * self._interval_ms
        parts = {key: self._store.take(key) for key in (2 * index, 2 * index + 1)}
        kpis: dict[str, dict[str, Reading]] = {}
        risk_fills: dict[str, RiskFill] = {}
        for symbol, levels in self._levels.items():
            carried = levels.position
            if carried is not None and start_ms - carried.ts_ms > self._max_age_ms:
                carried = None
            own = {key: part[symbol] for key, part in parts.items() if symbol in part}
            buckets = list(own.values())
            kpis[symbol] = risk_kpi(carried, buckets) | latency_kpi(
                buckets, latencies_max=self._limits.latencies_per_window
            )
            if (fill := last_risk_fill(carried, buckets)) is not None:
                risk_fills[symbol] = RiskFill(fill.ts_ms, fill.price * fill.quantity)
            for key, bucket in own.items():
                self._leave_behind(key, symbol, bucket)
        return kpis, risk_fills

    def _raw_kpis(self, levels: Levels, index: int) -> tuple[str, ...]:
        return levels.raw_kpis(max(0, index - self._recent_windows + 1))

    def _readings(
        self,
        raw: Mapping[str, Reading],
        ready: KpiSample | None,
        own: FillSums | None,
        start_ms: int,
    ) -> SymbolReadings:
        """Return a symbol's readings: ready KPIs where they are fresh, else those from raw ones."""
        kpis = dict(raw)
        notional, fills = None, None
        if ready is not None:
            if start_ms + self._interval_ms - ready.ts_ms <= self._max_age_ms:
                kpis |= ready.kpis
            else:
                stale: dict[str, Reading] = dict.fromkeys(ready.kpis, Defect.STALE)
                kpis = stale | kpis
            if ready.ts_ms >= start_ms:
                notional, fills = ready.notional, ready.fills
        if own is not None:
            notional, fills = own.known_notional, own.fills
        return SymbolReadings(kpis=kpis, notional=notional, fills=fills)

    def _take_counts(self) -> dict[str, int]:
        self._counts["overflow"] += self._store.take_dropped()
        counts = {name: count for name, count in sorted(self._counts.items()) if count}
        self._counts.clear()
        return counts
