"""
How streams are named: `{env}:{exchange}`, and `{env}:{exchange}:dry-run` for a dry run.

Beside either there may be shadows, `{env}:{exchange}:shadow-NAME`: what a candidate policy would
have decided. They are no controllers' streams. Source: DESIGN.md section 1, Windows; issue 6.
"""

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from domain.errors import BadInput

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_DRY_RUN: Final = "dry-run"
_SHADOW: Final = "shadow-"


class StreamKey(msgspec.Struct, frozen=True, order=True):
    """
    What a stream is of. `str(key)` is its id in the ledger.

    `shadow` names the candidate policy that decided it; empty for a controller's own stream.
    """

    env: str
    exchange: str
    dry_run: bool = False
    shadow: str = ""

    def __str__(self) -> str:
        dry_run = [_DRY_RUN] if self.dry_run else []
        shadow = [_SHADOW + self.shadow] if self.shadow else []
        return ":".join([self.env, self.exchange, *dry_run, *shadow])


def stream_key(env: str, exchange: str, *, dry_run: bool) -> StreamKey:
    """
    Return the key, its parts checked: they become parts of Redis keys and of folder names.

    Raises:
        BadInput: if a part isn't 1 to 32 of a-z 0-9 _ -.
    """
    for option, name in (("--env", env), ("--exchange", exchange)):
        if not _NAME.fullmatch(name):
            raise BadInput(
                f"{option}: expected 1 to 32 of a-z 0-9 _ -, the first a letter or a digit, "
                f"was {name!r}"
            )
    return StreamKey(env, exchange, dry_run)


def parse_stream_id(stream: str) -> StreamKey:
    """Return the key of a stream's id; see `StreamKey`."""
    env, exchange, *rest = stream.split(":")
    last = rest[-1] if rest else ""
    shadow = last.removeprefix(_SHADOW) if last.startswith(_SHADOW) else ""
    return StreamKey(env, exchange, _DRY_RUN in rest, shadow)


def shadow_key(of: StreamKey, name: str) -> StreamKey:
    """
    Return the key of a shadow beside a controller's stream.

    Raises:
        BadInput: if the name isn't 1 to 32 of a-z 0-9 _ -.
    """
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"--shadow: expected a name of 1 to 32 of a-z 0-9 _ -, the first a letter or a digit, "
            f"was {name!r}; it is the policy file's name without its ending"
        )
    return StreamKey(of.env, of.exchange, of.dry_run, name)


def controllers(ids: Iterable[str]) -> list[str]:
    """Return those of the streams that are controllers' own: no shadows."""
    return [stream for stream in ids if not parse_stream_id(stream).shadow]


def shadows_of(ids: Iterable[str], stream: str) -> dict[str, str]:
    """Return the shadows beside a stream: their streams by name."""
    of = parse_stream_id(stream)
    keys = {other: parse_stream_id(other) for other in ids}
    return {
        key.shadow: other
        for other, key in keys.items()
        if key.shadow and shadow_key(of, key.shadow) == key
    }
