"""
From options to a run: what is given, what continues as in the ledger, and what is not allowed.

Precedence: default < profile < policy file < variable < option; what isn't given continues as in
the ledger. Source: DESIGN.md section 1, Policy changes and Profile limits; section 4.
"""

import os
import socket
import uuid
from pathlib import Path
from typing import Final

import msgspec

from cli.version import code_version
from domain.commands import AdoptPolicy, StartRun
from domain.errors import BadInput
from domain.events import RampProfile
from domain.policy import Policy, overlay_policy
from domain.state import State
from ledger.streams import StreamKey
from profiles.loader import DEFAULT_PROFILE, Profiles, load_profiles

PROD: Final = "prod"
POLICY_BYTES_MAX: Final = 1 << 20


class Limits(msgspec.Struct, frozen=True):
    """The policy and the profile of a run, and what to warn about."""

    policy: Policy
    profile: RampProfile
    warnings: tuple[str, ...] = ()


def read_policy_file(path: Path, base: Policy, *, named: str = "--policy") -> Policy:
    """
    Return the base policy with a policy file laid over it; `named` is how the user gave it.

    Raises:
        BadInput: naming the file and the key.
    """
    try:
        with path.open("rb") as file:
            data = file.read(POLICY_BYTES_MAX + 1)
    except OSError as error:
        raise BadInput(f"{named}: {path} can't be read: {error.strerror}") from None
    if len(data) > POLICY_BYTES_MAX:
        raise BadInput(f"{named}: {path} is larger than {POLICY_BYTES_MAX} bytes")
    return overlay_policy(base, data, source=str(path))


def resolve_limits(
    state: State,
    symbols: tuple[str, ...],
    *,
    env: str,
    profile_name: str | None,
    policy_file: Path | None,
    named: str = "--policy",
) -> Limits:
    """
    Return the policy and the profile that a run adopts; `named` is the option of the file.

    Raises:
        BadInput: if a name, a key or a value is wrong, or in prod the profile is too small.
    """
    profiles = load_profiles()
    if profile_name is None and state.profile is not None:
        profile = state.profile
    else:
        profile = profiles.limits(profile_name or DEFAULT_PROFILE)
    if policy_file is not None:
        base = _profile_policy(profiles, profile, Policy())
        policy = read_policy_file(policy_file, base, named=named)
    elif not state.symbols:
        policy = _profile_policy(profiles, profile, Policy())
    elif profile_name is not None and state.profile != profile:
        policy = _profile_policy(profiles, profile, state.policy)
    else:
        policy = state.policy
    return Limits(policy, profile, _check_limit(profiles, profile, symbols, env=env))


def start_run(
    key: StreamKey,
    state: State,
    *,
    interval_ms: int,
    feed: str,
    feed_kind: str,
    lateness_ms: int,
    now_ms: int,
) -> StartRun:
    """Return the command that begins a run of this process on the stream."""
    return StartRun(
        run_id=uuid.uuid4().hex,
        ledger_id=state.ledger_id or uuid.uuid4().hex,
        env=key.env,
        exchange=key.exchange,
        dry_run=key.dry_run,
        interval_ms=interval_ms,
        feed=feed,
        feed_kind=feed_kind,
        code_version=code_version(),
        started_at_ms=now_ms,
        host=socket.gethostname(),
        process_id=os.getpid(),
        lateness_ms=lateness_ms,
    )


def adoption(limits: Limits, symbols: tuple[str, ...], *, allow_loosening: bool) -> AdoptPolicy:
    """Return the command that adopts the limits from the run's first window on."""
    return AdoptPolicy(
        window=0,
        policy=limits.policy,
        symbols=symbols,
        profile=limits.profile,
        allow_loosening=allow_loosening,
    )


def _profile_policy(profiles: Profiles, profile: RampProfile, base: Policy) -> Policy:
    """Return the base with the profile's policy; a profile that is only recorded has none."""
    return profiles.policy(profile.name, base) if profile.name in profiles.entries else base


def _check_limit(
    profiles: Profiles, profile: RampProfile, symbols: tuple[str, ...], *, env: str
) -> tuple[str, ...]:
    if len(symbols) <= profile.max_symbols:
        return ()
    would_do = ", ".join(profiles.that_allow(len(symbols))) or "none"
    text = (
        f"profile {profile.name} lets {profile.max_symbols} of {len(symbols)} symbols trade "
        f"(profiles that would do: {would_do})"
    )
    if env == PROD:
        raise BadInput(f"--symbols: {text}")
    beyond = ", ".join(symbols[profile.max_symbols :])
    return (f"{text}; {beyond} will be watched, with an effective throttle of 0.0",)
