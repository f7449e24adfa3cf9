"""
Where secrets come from, and how they are kept out of sight.
"""

import sys
from pathlib import Path

import setproctitle

from domain.errors import BadInput
from redis_link.url import read_url_file, redact


def hide_arguments(*urls: str) -> str | None:
    """
    Take URLs with a password out of the process title, where they were given as arguments.

    Returns:
        A warning, None if nothing secret stood there.
    """
    shown = " ".join(sys.argv)
    secret = [url for url in urls if url in shown and ("@" in url or "?" in url)]
    if not secret:
        return None
    for url in secret:
        shown = shown.replace(url, redact(url))
    setproctitle.setproctitle(shown)
    return (
        "a password on the command line is seen by others until it is taken out of the process "
        "title, and stays in the shell's history; use LIVE_REDIS_URL or --redis-url-file"
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
