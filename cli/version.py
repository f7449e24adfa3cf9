"""
Which code this is, as it is written into every run.
"""

from importlib import metadata


def code_version() -> str:
    """Return the installed package's version, or `0+unknown` where it isn't installed."""
    try:
        return metadata.version("live-ledger")
    except metadata.PackageNotFoundError:
        return "0+unknown"
