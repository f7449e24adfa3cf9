"""
How streams are named: `{env}:{exchange}`, and `{env}:{exchange}:dry-run` for a dry run.

Source: DESIGN.md section 1, Windows.
"""

import re
from typing import Final

import msgspec

from domain.errors import BadInput

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_DRY_RUN: Final = "dry-run"


class StreamKey(msgspec.Struct, frozen=True, order=True):
    """What a stream is of. `str(key)` is its id in the ledger."""

    env: str
    exchange: str
    dry_run: bool = False

    def __str__(self) -> str:
        return ":".join([self.env, self.exchange, *([_DRY_RUN] if self.dry_run else [])])


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
    return StreamKey(env, exchange, rest == [_DRY_RUN])
