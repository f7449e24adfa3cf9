"""
Two states of one stream compared: policies, symbols, what may be traded, and what counted up.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from domain.adoption import adoption_changes
from domain.commands import AdoptPolicy
from domain.state import State
from domain.windows import format_time
from projections.episodes import override_text
from projections.wording import HASH_SHOWN


class Difference(msgspec.Struct, frozen=True):
    """
    One thing that is other at the second time.

    Attributes:
        section: `policy`, `state`, `symbol`, `override` or `count`.
        key: what it is; of a symbol, `BTCUSDT may trade`.
        before, after: as text; null where it wasn't there.
        loosens: of a policy, whether the change could mean more trading.
    """

    section: str
    key: str
    before: str | None
    after: str | None
    loosens: bool = False


def compare(before: State, after: State, symbol: str | None = None) -> Iterator[Difference]:
    """
    Yield every difference between two states of one stream, the policy first.

    Args:
        symbol: leave out what is about another one alone.
    """
    yield from _policies(before, after, symbol)
    yield from _different("state", _state_texts(before), _state_texts(after))
    yield from _different("symbol", _symbol_texts(before, symbol), _symbol_texts(after, symbol))
    overrides = (_override_texts(before, symbol), _override_texts(after, symbol))
    yield from _different("override", *overrides)
    counts = [msgspec.structs.asdict(state.counts) for state in (before, after)]
    yield from _different("count", counts[0], counts[1])


def _policies(before: State, after: State, symbol: str | None) -> Iterator[Difference]:
    command = AdoptPolicy(
        window=0, policy=after.policy, symbols=after.symbol_names, profile=after.profile
    )
    for change in adoption_changes(before, command):
        own = change.key.startswith(f"symbols.{symbol}.")
        if symbol is None or own or not change.key.startswith("symbols."):
            yield Difference("policy", change.key, change.before, change.after, change.loosens)
    if before.policy_hash != after.policy_hash:
        old, new = (state.policy_hash[:HASH_SHOWN] for state in (before, after))
        yield Difference("policy", "hash", old, new)


def _different(section: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[Difference]:
    for key in (*before, *(key for key in after if key not in before)):
        old, new = before.get(key), after.get(key)
        if old != new:
            yield Difference(section, key, _text(old), _text(new))


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return f"{value:g}" if isinstance(value, float) else str(value)


def _state_texts(state: State) -> dict[str, Any]:
    return {
        "state": state.trading_state,
        "throttle": state.throttle,
        "since": None if state.since_ms is None else format_time(state.since_ms),
        "reasons": ", ".join(state.reasons) or None,
        "triggered_by": state.triggered_by,
        "ok_windows": state.ok_windows,
        "warn_windows": state.warn_windows,
        "clock": "behind the ledger" if state.clock_behind else None,
        "run": None if state.run is None else state.run.run_id,
    }


def _symbol_texts(state: State, symbol: str | None) -> dict[str, Any]:
    effective = state.effective_throttles()
    texts: dict[str, Any] = {}
    for memory in state.symbols:
        if symbol not in (None, memory.symbol):
            continue
        texts |= {
            f"{memory.symbol} may trade": effective[memory.symbol],
            f"{memory.symbol} KPI-based": memory.throttle,
            f"{memory.symbol} ok_windows": memory.ok_windows,
            f"{memory.symbol} frozen": "yes" if memory.frozen else None,
            f"{memory.symbol} probation": "yes" if memory.probation else None,
            f"{memory.symbol} no data": ", ".join(
                f"{kpi} ({windows} windows)" for kpi, windows in memory.no_data.items()
            )
            or None,
        }
    return texts


def _override_texts(state: State, symbol: str | None) -> dict[str, Any]:
    return {
        override.id: override_text(override)
        for override in state.overrides_in_force
        if symbol is None or override.symbol in (None, symbol)
    }
