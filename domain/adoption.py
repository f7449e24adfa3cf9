"""
Adopting a policy, symbols and a ramp profile: what changed, and whether that loosens.

Source: DESIGN.md section 1, Policy changes.
"""

from domain.commands import AdoptPolicy
from domain.errors import CommandRefused
from domain.events import Event, PolicyAdopted, RampProfile
from domain.policy import PolicyChange, policy_changes
from domain.state import State


def adopt_policy(state: State, command: AdoptPolicy) -> list[Event]:
    """
    Return the adoption, or [] if nothing is new.

    Raises:
        CommandRefused: if something loosens and nobody agreed, or if fewer symbols may trade than
            it takes to freeze all.
    """
    within = _within(command.symbols, command.profile)
    freezes_at = command.policy.global_freeze_symbols
    if freezes_at > len(within):
        raise CommandRefused(
            f"global_freeze_symbols: expected at most the number of symbols that may trade "
            f"({len(within)}), was {freezes_at}; the global freeze could never come"
        )
    if not state.symbols:
        changes: list[PolicyChange] = []
    else:
        changes = adoption_changes(state, command)
        if not changes:
            return []
    loosening = [change for change in changes if change.loosens]
    if loosening and not command.allow_loosening:
        raise CommandRefused(
            "this loosens the policy in force and must be agreed to (--adopt-policy):\n"
            + "\n".join(f"  {change.text}" for change in changes)
        )
    return [
        PolicyAdopted(
            policy=command.policy,
            policy_hash=command.policy.hash,
            symbols=command.symbols,
            profile=command.profile,
            changes=tuple(change.text for change in changes),
            loosened=bool(loosening),
        )
    ]


def adoption_changes(state: State, command: AdoptPolicy) -> list[PolicyChange]:
    """Return every difference between what is in force and what is to be adopted."""
    changes = policy_changes(state.policy, command.policy, command.symbols)
    before, after = state.symbol_names, command.symbols
    # A symbol that may trade no more doesn't enter the window's verdict any more either.
    leaves = bool(
        set(before) - set(after)
        or set(_within(before, state.profile)) - set(_within(after, command.profile))
    )
    if before != after:
        changes.append(PolicyChange("symbols", ",".join(before), ",".join(after), leaves))
    if state.profile != command.profile:
        changes.append(
            PolicyChange(
                "profile",
                _profile_text(state.profile),
                _profile_text(command.profile),
                leaves or _is_larger(command.profile, state.profile),
            )
        )
    return changes


def _within(symbols: tuple[str, ...], profile: RampProfile | None) -> tuple[str, ...]:
    return symbols if profile is None else symbols[: profile.max_symbols]


def _is_larger(after: RampProfile | None, before: RampProfile | None) -> bool:
    """Return whether more may be traded; no profile at all has no limit."""
    if before is None:
        return False
    if after is None:
        return True
    return after.max_notional > before.max_notional or after.max_symbols > before.max_symbols


def _profile_text(profile: RampProfile | None) -> str:
    if profile is None:
        return "none"
    return f"{profile.name} ({profile.max_notional:g} USD, {profile.max_symbols} symbols)"
