"""
Loss avoided and edge forgone: what a policy's throttles would have made of what was traded.

The throttle decided at a window's end earns from the next window on, never from the window that it
judged. What was recorded while nothing was traded says nothing about what trading would have
earned: it is censored, counted as a share, and never scored as zero.
Source: DECISIONS.md, Of replay; FIELD_NOTES, Replay.
"""

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from replay.tracks import Timeline, Track

Unit = Literal["quote", "bps"]
"""`quote`: edge x notional, in quote currency. `bps`: edge x 1, where no notional is known."""

BPS: Final = 10_000.0


class Scores(msgspec.Struct, frozen=True):
    """
    What full trading earned in every window of every symbol where that can be said.

    Attributes:
        unit: of `values`.
        rows, symbols: whose window it is; columns as long as `values`.
        values: edge x notional as it would be at a throttle of 1.0.
        weights: the notional alone, 1.0 where none is known.
        censored: symbol-windows that aren't scored, by why.
        scaled: scored symbol-windows recorded at a throttle between 0 and 1, scaled up from it.
    """

    unit: Unit
    rows: Sequence[int]
    symbols: Sequence[str]
    values: Sequence[float]
    weights: Sequence[float]
    censored: dict[str, int]
    scaled: int


class Money(msgspec.Struct, frozen=True):
    """
    What a policy would have earned, and what of losses and gains it kept away.

    `earned == always_on + loss_avoided - edge_forgone`, all in the scores' unit.
    """

    earned: float
    always_on: float
    loss_avoided: float
    edge_forgone: float


def score_windows(timeline: Timeline, base: Track, symbols: Sequence[str]) -> Scores:
    """
    Return what full trading earned, window by window.

    Where the source knows notionals, they weigh, and a symbol's window without one is censored;
    where it knows none, every window has the weight 1.

    Args:
        base: what the recorded trading was under. A notional traded at a throttle of 0.5 is
            taken for half of what would have been traded at 1.0.
    """
    knows_notional = any(
        not math.isnan(notional) for symbol in symbols for notional in timeline.notional.of(symbol)
    )
    rows, values, weights = array("q"), array("d"), array("d")
    names: list[str] = []
    censored: Counter[str] = Counter()
    scaled = 0
    for symbol in symbols:
        columns = zip(
            timeline.edge_bps.of(symbol),
            timeline.notional.of(symbol),
            timeline.fills.of(symbol),
            base.in_force.of(symbol),
            strict=True,
        )
        for row, (edge, notional, fills, throttle) in enumerate(columns):
            if timeline.is_gap[row] or math.isnan(throttle):
                continue
            why = _why_censored(edge, notional, fills, throttle, knows_notional)
            if why is not None:
                censored[why] += 1
                continue
            weight = notional / throttle if knows_notional else 1.0
            scaled += knows_notional and throttle < 1.0
            rows.append(row)
            names.append(symbol)
            weights.append(weight)
            values.append(edge * weight / BPS if knows_notional else edge)
    unit: Unit = "quote" if knows_notional else "bps"
    return Scores(unit, rows, names, values, weights, dict(censored), scaled)


def count_money(scores: Scores, track: Track) -> Money:
    """
    Return what a track's throttles would have made of the scored windows.

    A symbol that the track doesn't have is not traded.
    """
    in_force = {symbol: track.in_force.of(symbol) for symbol in set(scores.symbols)}
    avoided: list[float] = []
    forgone: list[float] = []
    for row, symbol, value in zip(scores.rows, scores.symbols, scores.values, strict=True):
        throttle = in_force[symbol][row]
        withheld = value if math.isnan(throttle) else (1.0 - throttle) * value
        if withheld < 0:
            avoided.append(-withheld)
        else:
            forgone.append(withheld)
    always_on = math.fsum(scores.values)
    loss_avoided, edge_forgone = math.fsum(avoided), math.fsum(forgone)
    return Money(
        earned=math.fsum([always_on, loss_avoided, -edge_forgone]),
        always_on=always_on,
        loss_avoided=loss_avoided,
        edge_forgone=edge_forgone,
    )


def _why_censored(
    edge: float, notional: float, fills: float, throttle: float, knows_notional: bool
) -> str | None:
    """Return why nothing can be said of a symbol's window; None if something can."""
    if throttle == 0.0:
        return "halted"
    if fills == 0.0 or notional == 0.0:
        return "no fills"
    if math.isnan(edge):
        return "no edge"
    if knows_notional and math.isnan(notional):
        return "no notional"
    return None
