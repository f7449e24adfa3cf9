"""
What one core takes in: fills parsed and aggregated, beside decoding the same JSON and no more.
"""

import json
import random
from collections import deque
from collections.abc import Iterable
from typing import Final

from benchmarks.market import INTERVAL_MS, ORIGIN_MS, SYMBOLS
from benchmarks.measuring import Figure, Scale, interleaved
from feeds.aggregation import Aggregator
from feeds.samples import MalformedSample, Parsed, parse_fields, parse_message

FILLS: Final = 100_000
FILLS_PER_FRAME: Final = 100
TURNS: Final = 5
AIM_RATIO: Final = 1.0
PEER: Final = "json.loads alone"


def measure(scale: Scale) -> list[Figure]:  # noqa: ARG001
    fills = _fills()
    messages = [json.dumps(fill).encode() for fill in fills]
    frames = [
        json.dumps(fills[first : first + FILLS_PER_FRAME]).encode()
        for first in range(0, FILLS, FILLS_PER_FRAME)
    ]
    entries = [
        {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in one.items()
        }
        for one in fills
    ]
    times = interleaved(
        TURNS,
        [
            lambda _: deque(map(json.loads, messages), maxlen=0),
            lambda _: _aggregate(map(parse_message, messages)),
            lambda _: _aggregate(map(parse_message, frames)),
            lambda _: _aggregate(map(parse_fields, entries)),
        ],
    )
    decoding, one_each, many_each, of_stream = (FILLS / taken for taken in times)
    return [
        _figure("one a message", one_each, decoding),
        _figure(f"{FILLS_PER_FRAME} a message", many_each, decoding),
        _figure("as fields of a stream", of_stream, decoding),
    ]


def _figure(how: str, ours: float, peer: float) -> Figure:
    return Figure(
        what=f"fills parsed and aggregated, {how}",
        ours=ours,
        unit="fills/s",
        better="higher",
        peer=peer,
        peer_name=PEER,
        aim=AIM_RATIO,
    )


def _aggregate(parsed: Iterable[Parsed]) -> None:
    aggregator = Aggregator(SYMBOLS, interval_ms=INTERVAL_MS)
    for samples in parsed:
        for sample in samples:
            assert not isinstance(sample, MalformedSample)
            aggregator.add(sample)
    window = aggregator.close(ORIGIN_MS)
    assert sum(got.fills or 0 for got in window.symbols.values()) == FILLS


def _fills() -> list[dict[str, object]]:
    """Return a minute of fills, their numbers with all the digits that computed ones have."""
    chance = random.Random(1)
    return [
        {
            "type": "fill",
            "ts": ORIGIN_MS + number * INTERVAL_MS // FILLS,
            "symbol": chance.choice(SYMBOLS),
            "side": chance.choice(("buy", "sell")),
            "price": 70_000 + chance.random(),
            "quantity": chance.random() + 1e-3,
            "maker": chance.random() < 0.9,
            "mid": 70_000 + chance.random(),
        }
        for number in range(FILLS)
    ]
