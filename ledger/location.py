"""
Where a ledger is: a path, or `sqlite:///...`; a store for a fleet has its own scheme here.
"""

from pathlib import Path

import msgspec

from domain.errors import BadInput


class LedgerLocation(msgspec.Struct, frozen=True):
    """A ledger's place. `str(location)` is how messages name it, without any secret."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


def parse_location(text: str) -> LedgerLocation:
    """
    Return the location that `--ledger` names.

    `sqlite:///relative` and `sqlite:////absolute` are URLs as SQLAlchemy writes them.

    Raises:
        BadInput: if the text is empty or has an unknown scheme.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "sqlite", f"/{text}"
    if scheme != "sqlite":
        raise BadInput(f"--ledger: expected a path or sqlite:///PATH, was a {scheme}:// URL")
    if not rest.startswith("/") or not rest[1:]:
        raise BadInput("--ledger: expected a path or sqlite:///PATH, was no path")
    path = Path(rest[1:])
    if path.is_dir():
        raise BadInput(f"--ledger: expected a file, was the folder {path}")
    return LedgerLocation(path)
