"""
Redis URLs: taken apart, checked, and told without their secrets.

    redis://[user[:password]@]host[:port][/db]      plain
    rediss://...                                    TLS, the certificate checked
    unix://[user[:password]@]/path/to/socket        a socket of this machine

An option that isn't known is refused rather than passed on: redis-py lets a URL set its own
timeouts and retries, and switch certificate checks off. Source: DESIGN.md section 3.
"""

import re
import stat
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from domain.errors import BadInput

PORT: Final = 6379
URL_CHARS_MAX: Final = 4096

_SCHEMES: Final = ("redis", "rediss", "unix")
_KINDS: Final = "redis://, rediss:// or unix://"
_PLAIN: Final = frozenset({"db", "client_name"})
_SECRET: Final = frozenset({"username", "password", "ssl_password"})
_TLS: Final = frozenset(
    {
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_password",
        "ssl_cert_reqs",
        "ssl_check_hostname",
    }
)
_OPTIONS: Final = _PLAIN | _SECRET | _TLS
_CHECKS: Final = ("none", "optional", "required")
_TRUE: Final = frozenset({"true", "t", "yes", "y", "1"})
_FALSE: Final = frozenset({"false", "f", "no", "n", "0"})
_UNFIT: Final = re.compile(r"[\x00-\x20\x7f\ud800-\udfff]")


class RedisUrl(msgspec.Struct, frozen=True):
    """A URL taken apart: `options` are a redis-py connection's, `secrets` mustn't be told."""

    scheme: str
    options: dict[str, Any]
    secrets: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<RedisUrl {self.scheme}>"

    @property
    def place(self) -> str:
        """Host, port and database: `127.0.0.1:6379/0`; no path, which the ledger has none of."""
        if self.scheme == "unix":
            return "unix socket"
        return f"{self.options['host']}:{self.options['port']}/{self.options.get('db', 0)}"


def parse_redis_url(url: str, *, env: str, source: str = "--redis-url") -> RedisUrl:
    """
    Return the URL taken apart.

    Args:
        env: in `prod`, switching a certificate check off is refused, however it is spelled.
        source: where the URL came from, for the errors.

    Raises:
        BadInput: naming the source and what is wrong, but no part of the URL that may be secret.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise BadInput(f"{source}: expected {_KINDS}, was {redact(url)}")
    if len(url) > URL_CHARS_MAX or _UNFIT.search(url):
        raise BadInput(
            f"{source}: {redact(url)} is too long or has a blank or control character in it; "
            "write special characters of a password as %XX"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError:
        raise _unreadable(url, source) from None
    if parts.fragment or "@" in parts.path + parts.query or (scheme != "unix" and not host):
        raise _unreadable(url, source)
    options = _query(parts.query, scheme, source)
    for name, value in (("username", parts.username), ("password", parts.password)):
        if value:
            options[name] = unquote(value)
    secrets = [str(options[name]) for name in ("password", "ssl_password") if name in options]
    secrets += [value for value in (parts.password,) if value]
    if "username" in options and "password" not in options:
        secrets += [options["username"], parts.username or ""]
    if scheme == "unix":
        options["path"] = unquote(parts.path)
    else:
        options.update(host=unquote(host or ""), port=PORT if port is None else port)
        _set_database(options, parts.path, source)
    _check_certificates(options, env, source)
    return RedisUrl(scheme, options, tuple(secrets))


def redact(url: str) -> str:
    """
    Return what may be told of a URL: its scheme, host, port and database, or its path.

    Whatever stands before the last @, and after a ? or #, is left out, well formed or not.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        return "something else"
    _, at, rest = rest.rpartition("@")
    place = re.split(r"[?#]", rest)[0]
    if scheme == "unix":
        shown = place if place.startswith("/") else "..."
    else:
        found = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?(/\d*)?", place)
        shown = place if found else "..."
    return f"{scheme}://{'***@' if at else ''}{shown}"


def read_url_file(path: Path, *, source: str = "--redis-url-file") -> tuple[str, str | None]:
    """
    Return a file's first line, and a warning if others can read the file.

    Raises:
        BadInput: if there is no such file, or no first line.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = path.stat().st_mode
            url = file.readline(URL_CHARS_MAX + 1).strip()
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadInput(f"{source}: {path} can't be read: {cause}") from None
    if not url:
        raise BadInput(f"{source}: {path}: expected the URL in the first line, was nothing")
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        who = "everybody" if mode & stat.S_IROTH else "its group"
        return url, f"{source}: {path} can be read by {who}; make it yours alone: chmod 600 {path}"
    return url, None


def _unreadable(url: str, source: str) -> BadInput:
    return BadInput(
        f"{source}: {redact(url)} can't be read as {_KINDS}; write @ : / ? # of a user or "
        "password as %40 %3A %2F %3F %23"
    )


def _query(query: str, scheme: str, source: str) -> dict[str, Any]:
    """Return the URL's options, each known, given once, and not empty."""
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS:
            raise BadInput(f"{source}: the URL has an unknown option; known: {_names(_OPTIONS)}")
        if name in _TLS and scheme != "rediss":
            raise BadInput(f"{source}: {name} goes with rediss:// only")
        if name in options or not value:
            raise BadInput(f"{source}: {name}: expected one value, was none or several")
        options[name] = value
    if "db" in options:
        options["db"] = _number(options["db"], source)
    return options


def _set_database(options: dict[str, Any], path: str, source: str) -> None:
    number = path.strip("/")
    if number and "db" not in options:
        options["db"] = _number(number, source)


def _number(text: str, source: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise BadInput(f"{source}: expected the number of a database after the host")
    return int(text)


def _check_certificates(options: dict[str, Any], env: str, source: str) -> None:
    """Put the certificate checks into redis-py's form; refuse in prod to go without."""
    required = str(options.get("ssl_cert_reqs", "required")).lower().removeprefix("cert_")
    if required not in _CHECKS:
        raise BadInput(f"{source}: ssl_cert_reqs: expected one of {', '.join(_CHECKS)}")
    checked = str(options.get("ssl_check_hostname", "true")).lower()
    if checked not in _TRUE | _FALSE:
        raise BadInput(f"{source}: ssl_check_hostname: expected true or false")
    is_checked = required == "required" and checked in _TRUE
    if env == "prod" and not is_checked:
        raise BadInput(
            f"{source}: the URL switches certificate checks off (ssl_cert_reqs or "
            "ssl_check_hostname), which prod doesn't allow; leave them out, and name your own "
            "authority with ssl_ca_certs=FILE"
        )
    if "ssl_cert_reqs" in options:
        options["ssl_cert_reqs"] = required
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = checked in _TRUE


def _names(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
