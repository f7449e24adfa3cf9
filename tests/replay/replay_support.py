"""Series of windows for replay's tests, told in a line."""

from collections.abc import Iterator, Mapping, Sequence

from domain.kpis import Reading
from domain.windows import SymbolReadings, WindowReadings
from ledger.application import Ledger
from replay.source import RecordedSource, SeriesSource

MINUTE_MS = 60_000
START_MS = 1_767_621_600_000
"""2026-01-05T14:00:00Z."""
BTC, ETH = "BTCUSDT", "ETHUSDT"
HEALTHY: Mapping[str, Reading] = {
    "edge_bps": 3.5,
    "maker_taker_ratio": 0.9,
    "risk_ratio": 0.2,
    "p95_latency_ms": 180.0,
    "anomaly_score": 0.5,
}

Window = Mapping[str, SymbolReadings]


def one(
    notional: float | None = None, fills: int | None = None, **kpis: Reading | None
) -> SymbolReadings:
    """Return a healthy symbol's readings with the changes; None leaves a KPI out."""
    merged = {**HEALTHY, **kpis}
    present = {name: value for name, value in merged.items() if value is not None}
    return SymbolReadings(present, notional, fills)


class Series:
    """Windows one after the other from 14:00 on; None is a window that is missing."""

    interval_ms = MINUTE_MS

    def __init__(self, windows: Sequence[Window | None], symbols: tuple[str, ...] = (BTC,)) -> None:
        self.symbols = symbols
        self._windows = windows

    def windows(self) -> Iterator[WindowReadings]:
        for index, window in enumerate(self._windows):
            if window is not None:
                yield WindowReadings(START_MS + index * MINUTE_MS, dict(window))


def edges(*edge_bps: float | None, notional: float | None = None) -> SeriesSource:
    """Return a source of one symbol whose edge runs so, all else healthy."""
    return source([{BTC: one(edge_bps=edge, notional=notional)} for edge in edge_bps])


def source(windows: Sequence[Window | None], symbols: tuple[str, ...] = (BTC,)) -> SeriesSource:
    """Return a source of the windows."""
    return SeriesSource("test", Series(windows, symbols))


def ledger_source(ledger: Ledger, stream_id: str) -> RecordedSource:
    """Return a ledger's stream as a source."""
    return RecordedSource(
        str(ledger.location),
        ledger.stream(stream_id).state,
        lambda: (record.event for record in ledger.records(stream_id)),
    )
