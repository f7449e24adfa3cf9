"""
The kinds of samples that live feeds carry, and what stands for one that can't be read.

All times are integer milliseconds since the epoch, UTC. Source: DESIGN.md section 5.
"""

from typing import Final, Literal, Self, get_args

import msgspec

from domain.kpis import Reading

MalformedKind = Literal[
    "not JSON", "too large", "too deep", "not an object", "unknown type", "no symbol", "bad symbol",
    "no ts", "bad ts", "no KPI", "no field", "bad number", "bad side", "bad maker",
]  # fmt: skip
MALFORMED_KINDS: Final[tuple[str, ...]] = get_args(MalformedKind)

SIDES: Final = {"buy": 1, "sell": -1}

_SHOWN_MAX: Final = 60


class KpiSample(msgspec.Struct, frozen=True):
    """
    KPIs that somebody else derived already.

    Attributes:
        ts_ms: the time they are of.
        kpis: a reading per KPI that was there; null is absent.
        notional: traded notional, quote currency, finite and at least 0, where known.
        fills: number of fills, where known.
    """

    ts_ms: int
    symbol: str
    kpis: dict[str, Reading]
    notional: float | None = None
    fills: int | None = None


class Fill(msgspec.Struct, frozen=True, gc=False):
    """
    One fill.

    Attributes:
        side: 1 bought, -1 sold.
        price, mid: quote currency, finite and above 0; mid is the market's, at the fill or after.
        quantity: base currency, finite and above 0, and so is price x quantity.
        maker: whether the order rested in the book.
    """

    ts_ms: int
    symbol: str
    side: int
    price: float
    quantity: float
    maker: bool
    mid: float


class Latency(msgspec.Struct, frozen=True, gc=False):
    """One measured latency, finite and at least 0."""

    ts_ms: int
    symbol: str
    latency_ms: float


class Position(msgspec.Struct, frozen=True, gc=False):
    """A position's signed notional, finite, and its limit, above 0; both in quote currency."""

    ts_ms: int
    symbol: str
    notional: float
    limit: float


Sample = KpiSample | Fill | Latency | Position


class MalformedSample(Exception):
    """
    A message, or part of one, that can't be read. It is counted and never stops a runner.

    Attributes:
        kind: one of `MALFORMED_KINDS`.
        detail: what was expected and what was there instead; short, whatever arrived.
    """

    def __init__(self, kind: MalformedKind, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind: MalformedKind = kind
        self.detail = detail

    def detached(self) -> Self:
        """Return it without the frames it came through, which would keep the message alive."""
        self.__context__ = None
        return self.with_traceback(None)


Parsed = list[Sample | MalformedSample]


def shown_briefly(value: object) -> str:
    """Return a value as details show it; one that is nested isn't gone into."""
    match value:
        case dict():
            return "an object"
        case list():
            return "an array"
        case str() if len(value) > _SHOWN_MAX:
            return f"{value[:_SHOWN_MAX]!r}..."
        case _:
            return repr(value)[:_SHOWN_MAX]
