"""
What policies came to over a series: windows per state, freezes, flaps, money.
"""

from collections.abc import Sequence
from typing import Final
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

from domain.kernel.decisions import Decisions
from domain.kernel.loop import FROZEN
from domain.kernel.series import Flags, Floats, Integers, Series, SymbolColumns
from domain.kernel.stakes import Stakes, stakes_of, unit_of

FLAP_WINDOWS: Final = 60
"""A freeze that begins so soon after the last one ended is a flap, unless told otherwise."""

NEVER: Final = -1

STAKES_MAX_BYTES: Final = 512 << 20
"""What the stakes of a series may take that are kept from one sweep to the next."""


class StateOutcomes(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """
    By policy, what became of the global state. A missing window counts like any other.

    Attributes:
        windows: shape (policies, 3), windows after which it was ACTIVE, COOLDOWN, FROZEN.
        transitions: changes from one window to the next; the first window follows ACTIVE.
        freezes: windows in which it became FROZEN.
        flaps: freezes that began at most so many windows after the last one ended; it ends with
            the window that leads out of FROZEN.
        first_freeze: the first freeze's window, `NEVER` where there is none.
    """

    windows: Integers
    transitions: Integers
    freezes: Integers
    flaps: Integers
    first_freeze: Integers


class MoneyOutcomes(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """
    What the throttles let through, and what full trading would have brought.

    A throttle decided in a window holds from the next one on; the first window is traded by the
    throttle that the stream began with, in full unless it began frozen.
    Quote currency; for a symbol without any notional, basis points at unit weight.

    Attributes:
        symbols: the columns' symbols; a single column without a name is all of them together.
        gains, losses: shape (policies, columns), the throttle-weighted sums, both not negative.
        all_gains, all_losses: shape (columns,), of full trading in every window.
        censored: by symbol, the share of observed windows that aren't scored.
        unit_weight: the symbols without notional.
    """

    symbols: tuple[str, ...]
    gains: Floats
    losses: Floats
    all_gains: Floats
    all_losses: Floats
    censored: dict[str, float]
    unit_weight: tuple[str, ...]

    @property
    def earned(self) -> Floats:
        """Shape (policies, columns): gains less losses."""
        return self.gains - self.losses

    @property
    def always_on(self) -> Floats:
        """Shape (columns,): what full trading brought."""
        return self.all_gains - self.all_losses

    @property
    def loss_avoided(self) -> Floats:
        """Shape (policies, columns)."""
        return self.all_losses - self.losses

    @property
    def edge_forgone(self) -> Floats:
        """Shape (policies, columns)."""
        return self.all_gains - self.gains


class Outcomes(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """By policy, in the order given: `money` where it was asked for."""

    states: StateOutcomes
    money: MoneyOutcomes | None = None


def state_outcomes_of(decisions: Sequence[Decisions], flap_windows: int) -> StateOutcomes:
    """Return the outcomes of decisions, a policy each; what the faster engines must agree with."""
    rows = [_count(one, flap_windows) for one in decisions]
    table = np.array(rows, np.int64).reshape(-1, 7)
    return StateOutcomes(
        windows=table[:, :3],
        transitions=table[:, 3],
        freezes=table[:, 4],
        flaps=table[:, 5],
        first_freeze=table[:, 6],
    )


def joined_states(parts: Sequence[StateOutcomes]) -> StateOutcomes:
    """Return the parts' policies, one after the other."""
    return StateOutcomes(
        windows=np.concatenate([part.windows for part in parts]),
        transitions=np.concatenate([part.transitions for part in parts]),
        freezes=np.concatenate([part.freezes for part in parts]),
        flaps=np.concatenate([part.flaps for part in parts]),
        first_freeze=np.concatenate([part.first_freeze for part in parts]),
    )


def in_order(parts: Sequence[StateOutcomes], places: Integers) -> StateOutcomes:
    """Return the parts' policies joined, each in its place."""
    joined = joined_states(parts)
    order = np.argsort(places, kind="stable")
    return StateOutcomes(
        windows=joined.windows[order],
        transitions=joined.transitions[order],
        freezes=joined.freezes[order],
        flaps=joined.flaps[order],
        first_freeze=joined.first_freeze[order],
    )


def _count(decisions: Decisions, flap_windows: int) -> list[int]:
    state = decisions.state.astype(np.int64)
    before = np.concatenate([[0], state[:-1]])
    starts = np.flatnonzero((state == FROZEN) & (before != FROZEN))
    ends = np.flatnonzero((state != FROZEN) & (before == FROZEN))
    waits = starts[1:] - ends[: len(starts) - 1]
    return [
        *(int(np.count_nonzero(state == number)) for number in range(3)),
        int(np.count_nonzero(state != before)),
        len(starts),
        int(np.count_nonzero(waits <= flap_windows)),
        int(starts[0]) if len(starts) else NEVER,
    ]


def money_in_order(parts: Sequence[Floats], places: Integers) -> Floats:
    """Return the parts' sums joined, each policy in its place."""
    return np.concatenate(parts)[np.argsort(places, kind="stable")]


_stakes: "WeakKeyDictionary[Series, StakesTable]" = WeakKeyDictionary()
"""Kept as long as the series is: what was at stake is the same for every sweep over it."""


class StakesTable(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """
    All symbols' stakes, in one unit.

    Attributes:
        unit: in the quote currency.
        columns: of the series, to make a symbol's stakes again where all would take too much room.
        kept: the stakes by symbol, where they don't.
        full: shape (symbols, 2), gains and losses of full trading, in units.
        censored: shape (symbols,), the share of observed windows that aren't scored.
        has_notional: by symbol.
    """

    unit: float
    columns: Sequence[SymbolColumns]
    kept: dict[int, Stakes]
    full: Floats
    censored: Floats
    has_notional: tuple[bool, ...]

    def of(self, symbol: int) -> Stakes:
        """Return a symbol's stakes."""
        known = self.kept.get(symbol)
        return stakes_of(self.columns[symbol], self.unit) if known is None else known

    def money(self, series: Series, sums: Floats, *, per_symbol: bool) -> MoneyOutcomes:
        """
        Return the money of throttle-weighted sums in units, shape (policies, columns, 2).

        Gains come before losses; the columns are the symbols, or one for all of them.
        """
        full = self.full if per_symbol else self.full.sum(axis=0, keepdims=True)
        names = series.symbols
        return MoneyOutcomes(
            symbols=names if per_symbol else ("",),
            gains=sums[:, :, 0] * self.unit,
            losses=sums[:, :, 1] * self.unit,
            all_gains=full[:, 0] * self.unit,
            all_losses=full[:, 1] * self.unit,
            censored=dict(zip(names, self.censored.tolist(), strict=True)),
            unit_weight=tuple(
                name for name, has in zip(names, self.has_notional, strict=True) if not has
            ),
        )


def stakes_table(series: Series) -> StakesTable:
    """Return what was at stake, symbol by symbol."""
    known = _stakes.get(series)
    if known is not None:
        return known
    unit, symbols = unit_of(series.columns), len(series.symbols)
    is_small = series.rows * symbols * 8 <= STAKES_MAX_BYTES
    full, censored = np.zeros((symbols, 2)), np.zeros(symbols)
    kept: dict[int, Stakes] = {}
    has_notional = []
    for symbol, columns in enumerate(series.columns):
        stakes = stakes_of(columns, unit)
        full[symbol] = _both(stakes.change)
        censored[symbol] = stakes.censored / series.rows
        has_notional.append(stakes.has_notional)
        if is_small:
            kept[symbol] = stakes
    _stakes[series] = StakesTable(
        unit=unit,
        columns=series.columns,
        kept=kept,
        full=full,
        censored=censored,
        has_notional=tuple(has_notional),
    )
    return _stakes[series]


def weighted_sums(series: Series, table: StakesTable, decisions: Decisions) -> Floats:
    """
    Return gains and losses let through under decisions, in units, shape (symbols, 2).

    Exact: whole units are added up by throttle, and weighted once.
    """
    sums = np.zeros((len(series.symbols), 2))
    for symbol in range(len(series.symbols)):
        stakes = table.of(symbol)
        effective = decisions.effective_throttle(symbol)
        before = _held(effective, series.index, decisions.initial[symbol])
        for throttle in np.unique(before):
            gains, losses = _both(stakes.change[before == throttle])
            sums[symbol] += throttle * np.array([gains, losses])
    return sums


def _held(effective: Floats, index: Integers, initial: float) -> Floats:
    """Return the throttle that held during each observed window: that decided before it."""
    held = np.concatenate([[initial], effective[:-1]])
    at: Floats = held[index]
    return at


def _both(change: Integers) -> tuple[int, int]:
    gained: Flags = change > 0
    return int(change[gained].sum()), -int(change[~gained].sum())
