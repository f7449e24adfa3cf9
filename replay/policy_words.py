"""
What one policy tightens and loosens of another, in words.

What differs and whether it loosens is `domain.policy.policy_changes`, by which a run decides
whether it must be agreed to; here it is only told. Source: DESIGN.md section 1, Policy changes.
"""

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from domain.kpis import KPI_BY_POLICY_KEY
from domain.policy import Policy, PolicyChange, policy_changes

Effect = Literal["tightens", "loosens"]


class Difference(msgspec.Struct, frozen=True):
    """One thing that differs: its key and values, which way it goes, and what it means."""

    key: str
    before: str
    after: str
    effect: Effect
    text: str


_COUNTS: Final = {
    "min_warn_windows": "COOLDOWN comes after {after} WARN windows in a row, was {before}",
    "min_ok_windows": "COOLDOWN and a probation end after {after} OK windows in a row, "
    "was {before}",
    "unfreeze_after_ok_windows": "FROZEN and a symbol's own freeze end after {after} OK windows in "
    "a row, was {before}",
    "no_data_freeze_windows": "missing data is CRIT from its window {after} in a row on, "
    "was {before}",
    "global_freeze_symbols": "it takes {after} CRIT symbols at once to freeze everything, "
    "was {before}",
    "cooldown_throttle": "COOLDOWN allows {after} of the full size, was {before}",
}


def policy_differences(before: Policy, after: Policy) -> list[Difference]:
    """Return all that differs, what loosens last, for the symbols that either names."""
    symbols = tuple(dict.fromkeys([*before.symbols, *after.symbols]))
    found = [
        difference
        for change in policy_changes(before, after, symbols)
        for difference in _tell(change, before, after)
    ]
    return sorted(found, key=lambda difference: difference.effect == "loosens")


def _tell(change: PolicyChange, before: Policy, after: Policy) -> Iterator[Difference]:
    """Yield the change in words; some go both ways at once."""
    match change.key:
        case "required_kpis" | "waived_when_halted":
            yield from _tell_kpis(change, before, after)
        case "global_freeze_symbols" if after.global_freeze_symbols < before.global_freeze_symbols:
            yield _difference(change, "tightens", _COUNTS[change.key])
            if change.loosens:
                yield _difference(
                    change,
                    "loosens",
                    "a window in which every symbol is frozen on its own is no longer WARN",
                )
        case key if key in _COUNTS:
            yield _difference(change, _effect(change.loosens), _COUNTS[key])
        case _:
            yield _difference(change, _effect(change.loosens), _threshold_text(change.key))


def _tell_kpis(change: PolicyChange, before: Policy, after: Policy) -> Iterator[Difference]:
    old: tuple[str, ...] = getattr(before, change.key)
    new: tuple[str, ...] = getattr(after, change.key)
    is_required = change.key == "required_kpis"
    for kpi in new:
        if kpi not in old:
            told = "must be there now" if is_required else "may now be absent for a halted symbol"
            yield _difference(change, _effect(not is_required), f"{kpi} {told}")
    for kpi in old:
        if kpi not in new:
            told = (
                "need no longer be there"
                if is_required
                else "must be there for a halted symbol too"
            )
            yield _difference(change, _effect(is_required), f"{kpi} {told}")


def _threshold_text(key: str) -> str:
    at, _, policy_key = key.rpartition(".")
    kpi = KPI_BY_POLICY_KEY[policy_key]
    side = "below" if kpi.breached_when == "<" else "above"
    symbol = at.removeprefix("symbols.") + ": " if at.startswith("symbols.") else ""
    return f"{symbol}{kpi.name} {side} {{after}} is {kpi.verdict}, was {side} {{before}}"


def _difference(change: PolicyChange, effect: Effect, text: str) -> Difference:
    told = text.format(before=change.before, after=change.after)
    return Difference(change.key, change.before, change.after, effect, told)


def _effect(loosens: bool) -> Effect:
    return "loosens" if loosens else "tightens"
