"""URLs are taken apart, checked, and told without their secrets."""

import traceback
from pathlib import Path
from urllib.parse import quote

import pytest

from domain.errors import BadInput
from redis_link.client import open_redis
from redis_link.url import parse_redis_url, read_url_file, redact

CANARY = "canary/p@ss:word?#1"
QUOTED = quote(CANARY, safe="")


@pytest.mark.parametrize(
    "options",
    [
        "ssl_cert_reqs=none",
        "ssl_cert_reqs=None",
        "ssl_cert_reqs=NONE",
        "ssl_cert_reqs=CERT_NONE",
        "ssl_cert_reqs=optional",
        "ssl%5Fcert%5Freqs=n%6Fne",
        "db=1&ssl_cert_reqs=none",
        "ssl_check_hostname=false",
        "ssl_check_hostname=False",
        "ssl_check_hostname=0",
        "ssl_check_hostname=no",
        "ssl_check_hostname=F",
    ],
)
def test_prod_refuses_every_spelling_of_unchecked(options: str) -> None:
    with pytest.raises(BadInput, match="certificate checks off"):
        open_redis(f"rediss://redis.example.com?{options}", env="prod")
    parse_redis_url(f"rediss://redis.example.com?{options}", env="staging")


@pytest.mark.parametrize(
    "options",
    [
        "ssl_cert_reqs=",
        "ssl_cert_reqs=required&ssl_cert_reqs=none",
        "ssl_check_hostname=",
        "ssl_check_hostname=maybe",
        "ssl_cert_reqs=0",
        "SSL_CERT_REQS=none",
        "ssl_exclude_verify_flags=VERIFY_X509_STRICT",
        "ssl_ciphers=ALL",
        "socket_timeout=60",
        "retry_on_timeout=yes",
        "db=one",
    ],
)
def test_an_option_that_isnt_known_or_isnt_clear_is_refused_everywhere(options: str) -> None:
    for env in ("dev", "prod"):
        with pytest.raises(BadInput):
            open_redis(f"rediss://redis.example.com?{options}", env=env)


def test_prod_takes_a_url_that_says_what_is_so_anyway() -> None:
    url = "rediss://redis.example.com?ssl_cert_reqs=required&ssl_check_hostname=true"
    options = parse_redis_url(url, env="prod").options
    assert (options["ssl_cert_reqs"], options["ssl_check_hostname"]) == ("required", True)


def test_a_url_is_taken_apart() -> None:
    parsed = parse_redis_url(f"rediss://bot:{QUOTED}@[::1]:7000/3", env="prod")
    assert parsed.options == {
        "username": "bot",
        "password": CANARY,
        "host": "::1",
        "port": 7000,
        "db": 3,
    }
    assert parse_redis_url("redis://h", env="dev").options == {"host": "h", "port": 6379}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        f"http://user:{QUOTED}@host",
        f"{CANARY}://host",
        f"redis://user:{CANARY}@host",
        f"redis://:{CANARY}",
        f"redis://host:port{QUOTED}",
        f"redis://{QUOTED}:x@host:y",
        f"redis://host/{QUOTED}",
        f"redis://host?password={CANARY}",
        f"redis://host?{QUOTED}=1",
        f"rediss://host?db={QUOTED}",
        f"rediss://host?ssl_cert_reqs={QUOTED}",
        f"redis://host#{QUOTED}",
        f"redis://[{QUOTED}@host",
        f"redis://host\n{QUOTED}",
        f"redis://u:{QUOTED}\udcff@host",
        f"redis://u:{QUOTED}@host" + "x" * 5000,
        f"redis://u:{QUOTED}@",
        f"redis://:{CANARY}?x@host/0",
        f"redis://u:{QUOTED}@" + "a" * 70 + ".." + "/0",
    ],
)
def test_no_error_tells_a_secret_of_a_url(url: str) -> None:
    with pytest.raises(BadInput) as caught:
        open_redis(url, env="prod")
    told = "".join(traceback.format_exception_only(caught.value)) + repr(caught.value)
    assert "canary" not in told
    assert "canary" not in redact(url)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_what_may_be_told_of_a_url_is_where_it_leads() -> None:
    assert redact(f"redis://bot:{QUOTED}@host:7000/2?password=x") == "redis://***@host:7000/2"
    assert redact(f"rediss://{QUOTED}@[::1]:7000") == "rediss://***@[::1]:7000"
    assert redact("redis://redis.example.com") == "redis://redis.example.com"
    assert redact(f"unix:///run/redis.sock?password={QUOTED}") == "unix:///run/redis.sock"
    assert redact(CANARY) == "something else"


def test_a_url_can_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"  redis://:{QUOTED}@host  \nmore\n")
    file.chmod(0o600)
    assert read_url_file(file) == (f"redis://:{QUOTED}@host", None)
    for mode, who in ((0o644, "everybody"), (0o640, "its group"), (0o604, "everybody")):
        file.chmod(mode)
        _, warning = read_url_file(file)
        assert warning is not None
        assert who in warning
        assert "chmod 600" in warning
        assert "canary" not in warning


def test_a_file_without_a_url_is_bad_input(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text("\nredis://host\n")
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (empty, binary, tmp_path, tmp_path / "none"):
        with pytest.raises(BadInput, match="--redis-url-file"):
            read_url_file(path)
