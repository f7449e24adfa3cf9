"""Samples and aggregators as the tests of the aggregation write them."""

from collections.abc import Sequence
from typing import Any, Final

from domain.kpis import Reading
from domain.windows import NOTHING, WindowReadings
from feeds.aggregation import Aggregator
from feeds.bucket_store import Limits
from feeds.samples import (
    Fill,
    KpiSample,
    Latency,
    Position,
    Sample,
)

MINUTE: Final = 60_000
LATENESS: Final = 2_000
BTC, ETH = "BTCUSDT", "ETHUSDT"


def aggregator(
    *samples: Sample, symbols: Sequence[str] = (BTC,), limits: Limits | None = None, **options: Any
) -> Aggregator:
    made = Aggregator(symbols, interval_ms=MINUTE, limits=limits or Limits(), **options)
    for sample in samples:
        made.add(sample)
    return made


def fill(
    ts_ms: int, *, side: int = 1, price: float = 100.0, quantity: float = 1.0, maker: bool = True,
    mid: float | None = None, symbol: str = BTC,
) -> Fill:  # fmt: skip
    return Fill(ts_ms, symbol, side, price, quantity, maker, price if mid is None else mid)


def ready(ts_ms: int, symbol: str = BTC, **kpis: Reading) -> KpiSample:
    return KpiSample(ts_ms, symbol, kpis)


def latency(ts_ms: int, latency_ms: float, symbol: str = BTC) -> Latency:
    return Latency(ts_ms, symbol, latency_ms)


def position(ts_ms: int, notional: float, limit: float = 100.0, symbol: str = BTC) -> Position:
    return Position(ts_ms, symbol, notional, limit)


def kpis(window: WindowReadings, symbol: str = BTC) -> dict[str, Reading]:
    return window.symbols.get(symbol, NOTHING).kpis
