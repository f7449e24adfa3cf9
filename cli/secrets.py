"""
Where secrets come from, and how they are kept out of sight.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import setproctitle

from domain.errors import BadInput
from redis_link.url import read_url_file, redact


def hide_arguments(*urls: str, notify: Iterable[str] = ()) -> str | None:
    """
    Take URLs with a password out of the process title, where they were given as arguments.

    Args:
        notify: URLs that are secret as a whole.

    Returns:
        A warning, None if nothing secret stood there.
    """
    shown = " ".join(sys.argv)
    hidden = {url: redact(url) for url in urls if "@" in url or "?" in url}
    hidden |= {url: f"{url.partition('://')[0]}://***" for url in notify if "://" in url}
    hidden = {url: instead for url, instead in hidden.items() if url in shown}
    if not hidden:
        return None
    for url in sorted(hidden, key=len, reverse=True):  # One may be the beginning of another.
        shown = shown.replace(url, hidden[url])
    setproctitle.setproctitle(shown)
    return (
        "a password on the command line is seen by others until it is taken out of the process "
        "title, and stays in the shell's history; use a file (--redis-url-file, --notify-file) or "
        "a variable (LIVE_REDIS_URL, LIVE_NOTIFY_URLS)"
    )


def redis_url_of(url: str | None, url_file: Path | None) -> tuple[str | None, str | None]:
    """
    Return the server's URL, from the option or from its file, and a warning if there is one.

    Raises:
        BadInput: if both are given, or the file can't be read.
    """
    if url is not None and url_file is not None:
        raise BadInput("--redis-url and --redis-url-file: give one of them")
    return (url, None) if url_file is None else read_url_file(url_file)
