"""
Notifications as values: how grave, of what kind, for which level, and what is told.

Source: LIVE_MODE_GUIDE.md, Production Checklist (`prod=CRIT`); DECISIONS.md 57.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from domain.errors import BadInput


class Severity(StrEnum):
    """How grave a message is. INFO is the good end of something that was told."""

    INFO = "INFO"
    WARN = "WARN"
    CRIT = "CRIT"


class Level(StrEnum):
    """From which severity on an environment is told."""

    OFF = "OFF"
    WARN = "WARN"
    CRIT = "CRIT"

    def admits(self, severity: Severity) -> bool:
        """Return whether a message that begins something is sent at this level."""
        if self is Level.OFF or severity is Severity.INFO:
            return False
        return self is Level.WARN or severity is Severity.CRIT


class Kind(StrEnum):
    """What a message tells."""

    START = "start"
    ESCALATION = "escalation"
    PARTIAL_RECOVERY = "partial-recovery"
    RECOVERY = "recovery"
    SYMBOLS_FROZEN = "symbols-frozen"
    SYMBOLS_RECOVERED = "symbols-recovered"
    OVERRIDE_APPLIED = "override-applied"
    OVERRIDE_ENDED = "override-ended"
    EXTERNAL_WRITE = "external-write"
    TRADED_WHILE_FROZEN = "traded-while-frozen"
    CLOCK_FAULT = "clock-fault"
    LEDGER_FAULT = "ledger-fault"
    TEST = "test"


RUNBOOK: Final[Mapping[Kind, str]] = {
    Kind.SYMBOLS_FROZEN: "livesymbolfrozen",
    Kind.SYMBOLS_RECOVERED: "livesymbolfrozen",
    Kind.OVERRIDE_APPLIED: "liveoverrideexpiring",
    Kind.OVERRIDE_ENDED: "liveoverrideexpiring",
    Kind.EXTERNAL_WRITE: "liveexternalwrite",
    Kind.TRADED_WHILE_FROZEN: "livetradedwhilefrozen",
    Kind.CLOCK_FAULT: "liveclockfault",
    Kind.LEDGER_FAULT: "liveledgerstale",
    Kind.TEST: "livenotificationsfailing",
}
"""By kind, the section of the runbook; a step of an episode has that of its state."""

FROZEN_SECTION: Final = "livestatefrozen"
COOLDOWN_SECTION: Final = "livethrottlelow"


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One message: a function of the stream's records and of the settings alone.

    Attributes:
        id: names it among the stream's messages, the same whenever it is planned again.
        version: the stream's version that it follows from.
        episode: what it belongs to; all messages of an episode carry the same id.
        at_ms: when it happened, by the ledger's time.
        decided_at_ms: the wall clock when that was decided, as recorded.
    """

    id: str
    version: int
    kind: Kind
    severity: Severity
    episode: str
    at_ms: int
    title: str
    body: str
    decided_at_ms: int | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a stream is told.

    Attributes:
        stream: the stream's id, which messages begin with.
        level: from which severity on.
        debounce_ms: how long an improvement must hold before it is told, and within which what was
            told isn't told again.
        runbook_url: what the runbook's sections are linked under.
    """

    stream: str
    level: Level
    debounce_ms: int
    runbook_url: str


DEFAULT_LEVELS: Final[Mapping[str, Level]] = {
    "dev": Level.OFF,
    "staging": Level.WARN,
    "prod": Level.CRIT,
}
OTHER_LEVEL: Final = Level.WARN
"""The level of an environment that nobody named: better told too much than nothing."""


def parse_alert_policy(text: str, *, source: str = "--alert-policy") -> dict[str, Level]:
    """
    Return the levels of `dev=OFF,staging=WARN,prod=CRIT`, over the default ones.

    Raises:
        BadInput: naming the part that is wrong.
    """
    levels = dict(DEFAULT_LEVELS)
    named: set[str] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        env, separator, level = (piece.strip() for piece in part.partition("="))
        if not separator or not env or level.upper() not in Level.__members__:
            raise BadInput(f"{source}: expected ENV=OFF, WARN or CRIT, was {part!r}")
        if env in named:
            raise BadInput(f"{source}: {env} is there twice; name it once")
        named.add(env)
        levels[env] = Level[level.upper()]
    return levels
