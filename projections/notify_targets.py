"""
Where notifications go: URLs of the apprise library, checked, named without their secrets, sent to.

A URL is a secret as a whole: a webhook's path, a bot's token. So a target's name is its scheme, its
host where that is one (in `slack://` it is a token), and a short, slow hash that tells two apart.
The library is imported when a URL is opened, and what it would log is thrown away: it names paths.
"""

import hashlib
import logging
import re
import stat
import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from domain.errors import BadInput
from projections.notify_messages import Severity

if TYPE_CHECKING:
    from apprise import NotifyBase

CONNECT_SEC_MAX: Final = 5.0
READ_SEC_MAX: Final = 10.0
TARGETS_MAX: Final = 16
URL_CHARS_MAX: Final = 4096
FILE_BYTES_MAX: Final = 1 << 16

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,31})://.")
_BETWEEN: Final = re.compile(r"\s+|,(?=\s*[A-Za-z][A-Za-z0-9+.-]*://)")
_HOST: Final = re.compile(r"[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]+")
_WITH_HOST: Final = frozenset(
    {"json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos", "http", "https"}
)
"""The schemes in which a host is a host."""

_LOGGERS: Final = ("apprise", "urllib3", "requests", "requests_oauthlib", "oauthlib")


class Target:
    """One place to send to. `name` may be shown, nothing else of it."""

    def __init__(self, name: str, service: "NotifyBase") -> None:
        self.name = name
        self._service = service

    def __repr__(self) -> str:
        return f"<Target {self.name}>"

    def send(self, title: str, body: str, severity: Severity) -> bool:
        """
        Return whether the service took a message.

        It is asked for a bounded time at each step; what it answers, and what goes wrong on the
        way, is neither raised nor logged, as it may quote the URL.
        """
        from apprise import Apprise, NotifyFormat, NotifyType  # noqa: PLC0415

        kinds = {
            Severity.INFO: NotifyType.SUCCESS,
            Severity.WARN: NotifyType.WARNING,
            Severity.CRIT: NotifyType.FAILURE,
        }
        sender = Apprise(asset=self._service.asset)
        try:
            # Each of the library's results is falsy if anything at all went wrong.
            return sender.add(self._service) and bool(
                sender.notify(
                    title=title,
                    body=body,
                    notify_type=kinds[severity],
                    body_format=NotifyFormat.TEXT,
                )
            )
        except Exception:  # Any of a hundred services' own: not delivered, which is told.
            return False


def split_urls(texts: Iterable[str]) -> list[str]:
    """Return the URLs in texts that separate them by blanks, commas or lines, each once."""
    found = (url for text in texts for url in _BETWEEN.split(text) if url)
    return list(dict.fromkeys(found))


def read_notify_file(path: Path, *, source: str = "--notify-file") -> tuple[list[str], str | None]:
    """
    Return a file's URLs, a line each and `#` before a remark; and a warning if others can read it.

    Raises:
        BadInput: if there is no such file, it is too large, or no URL is in it.
    """
    try:
        with path.open("rb") as file:
            mode = path.stat().st_mode
            text = file.read(FILE_BYTES_MAX + 1)
        lines = text.decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadInput(f"{source}: {path} can't be read: {cause}") from None
    urls = split_urls(line for line in lines if not line.lstrip().startswith("#"))
    if len(text) > FILE_BYTES_MAX or not urls:
        raise BadInput(f"{source}: {path}: expected a URL a line, was nothing or over 64 KiB")
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        return urls, f"{source}: {path} can be read by others; make it yours: chmod 600 {path}"
    return urls, None


def open_targets(
    urls: Sequence[str], *, env: str | None = None, source: str = "--notify"
) -> list[Target]:
    """
    Return the targets, in order.

    Args:
        env: in `prod`, switching a certificate check off is refused.

    Raises:
        BadInput: naming the source, which URL it is by number and scheme, and nothing else of it.
    """
    if len(urls) > TARGETS_MAX:
        raise BadInput(f"{source}: expected at most {TARGETS_MAX} URLs, was {len(urls)}")
    return [
        _open(url, env=env, place=f"{source}: URL {number} of {len(urls)}")
        for number, url in enumerate(urls, start=1)
    ]


@lru_cache(maxsize=64)
def target_name(url: str) -> str:
    """Return how a URL is named: `slack#1f0c77a2`, `json://127.0.0.1:8080#91aa03de`."""
    found = _SCHEME.match(url)
    scheme = found[1].lower() if found else "unknown"
    # Slow on purpose: whoever reads the ledger must not find a short password by trying.
    digest = hashlib.scrypt(url.encode(), salt=b"live-ledger notify", n=2**14, r=8, p=1, dklen=4)
    return f"{scheme}{_place(scheme, url)}#{digest.hex()}"


def _place(scheme: str, url: str) -> str:
    if scheme not in _WITH_HOST:
        return ""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if not host or not _HOST.fullmatch(host):
        return ""
    return f"://{host}" + (f":{port}" if port else "")


def _open(url: str, *, env: str | None, place: str) -> Target:
    found = _SCHEME.match(url)
    if found is None or len(url) > URL_CHARS_MAX:
        raise BadInput(f"{place}: expected a URL such as slack://..., tgram://... or jsons://...")
    service = _service(url)
    if service is None:
        raise BadInput(
            f"{place}: {found[1].lower()}://... is no URL that apprise knows, or it lacks something"
        )
    if env == "prod" and not service.verify_certificate:
        raise BadInput(f"{place}: it switches certificate checks off, which prod doesn't allow")
    _bound(service)
    return Target(target_name(url), service)


def _service(url: str) -> "NotifyBase | None":
    """Return the library's object for a URL, None if it has none."""
    silence_library()
    with warnings.catch_warnings():
        # It loads all of its services at once, deprecated modules of Python among their imports.
        warnings.simplefilter("ignore", DeprecationWarning)
        from apprise import Apprise, AppriseAsset, PersistentStoreMode  # noqa: PLC0415

        # Without a limit of its own the library sends on the caller's thread. With one, it leaves
        # a pool of threads that the interpreter waits for at its end. Nothing is kept on the disk.
        asset = AppriseAsset(
            service_timeout=0, async_mode=False, storage_mode=PersistentStoreMode.MEMORY
        )
        try:
            return Apprise.instantiate(url, asset=asset)
        except Exception:  # Any of a hundred services' own, which may quote the URL.
            return None


def _bound(service: Any) -> None:
    """Bound what a service may take; a shorter `cto` or `rto` of the URL's own stands."""
    service.socket_connect_timeout = min(service.socket_connect_timeout, CONNECT_SEC_MAX)
    service.socket_read_timeout = min(service.socket_read_timeout, READ_SEC_MAX)


def silence_library() -> None:
    """Throw away what the library, and those that it sends by, would log: URLs are in it."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
