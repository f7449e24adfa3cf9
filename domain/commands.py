"""
The commands: what the controller can be told. Time arrives in them, in milliseconds UTC.
"""

import msgspec

from domain.events import LATENESS_MS, Override, RampProfile, TradingState
from domain.policy import Policy
from domain.windows import WindowReadings


class _Command(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all commands."""


class StartRun(_Command, frozen=True):
    """
    Begin to write to the stream; what a `RunStarted` records.

    `published` is the worst that others still publish for a stream whose ledger is new: it starts
    in that state rather than in ACTIVE.
    """

    run_id: str
    ledger_id: str
    env: str
    exchange: str
    dry_run: bool
    interval_ms: int
    feed: str
    feed_kind: str
    code_version: str
    started_at_ms: int
    host: str = ""
    process_id: int = 0
    fencing_token: int | None = None
    published: TradingState = TradingState.ACTIVE
    lateness_ms: int = LATENESS_MS


class AdoptPolicy(_Command, frozen=True):
    """
    Decide by this policy, these symbols and limits from the given window on.

    `allow_loosening` says whether somebody agreed to whatever loosens.
    """

    window: int
    policy: Policy
    symbols: tuple[str, ...]
    profile: RampProfile | None = None
    allow_loosening: bool = True


class ObserveWindow(_Command, frozen=True):
    """
    Decide one window.

    The state doesn't hold every window, so for one that isn't newer than the last the caller looks
    up what the ledger has of it.

    Attributes:
        recorded_content: its content hash, None if it was missing.
        recorded_symbols: the symbols that it was of; None for those of now.
        known_late: whether this very content was recorded as late before.
    """

    readings: WindowReadings
    recorded_content: str | None = None
    recorded_symbols: tuple[str, ...] | None = None
    known_late: bool = False


class PassWindows(_Command, frozen=True):
    """Count the windows from the ledger's last up to, not including, this one as missing."""

    until: int


class ObserveClock(_Command, frozen=True):
    """Compare the window that the clock is in with the ledger's last."""

    window: int


class ApplyOverride(_Command, frozen=True):
    """Put an operator's word above the rules."""

    override: Override


class ClearOverride(_Command, frozen=True):
    """End an override before it expires."""

    id: str
    at_ms: int
    actor: str
    reason: str = ""


class ExpireOverrides(_Command, frozen=True):
    """End the overrides whose time has come."""

    at_ms: int


class ReportExternalWrite(_Command, frozen=True):
    """
    Somebody else wrote one of our keys.

    `symbol` is None for the `state` key; `found` is what is there, `expected` what was published.
    `id` names the override that it becomes if it asks for less trading.
    """

    id: str
    key: str
    symbol: str | None
    found: str
    expected: str
    at_ms: int


class ReportFill(_Command, frozen=True):
    """A fill that adds risk, for a symbol whose published effective throttle was 0.0."""

    symbol: str
    filled_at_ms: int
    frozen_since_ms: int
    notional: float
    grace_ms: int


class StopRun(_Command, frozen=True):
    """End the run."""

    run_id: str
    reason: str
    at_ms: int


Command = (
    StartRun
    | AdoptPolicy
    | ObserveWindow
    | PassWindows
    | ObserveClock
    | ApplyOverride
    | ClearOverride
    | ExpireOverrides
    | ReportExternalWrite
    | ReportFill
    | StopRun
)
