"""TLS by the server itself: Debian's Redis, where it is installed."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_proxy import Authority
from redis_support import KEYS, Stream, connected, wait_until

from domain.errors import BadInput
from projections.redis_exchange import Outcome
from projections.redis_publisher import RedisPublisher
from redis_link.client import BoundedRedis, open_redis

REDIS_SERVER = shutil.which("redis-server")

pytestmark = pytest.mark.skipif(
    REDIS_SERVER is None and "LIVE_REQUIRE_SYSTEM" not in os.environ,
    reason="redis-server (Debian's package redis-server) is not installed",
)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "known")


@pytest.fixture
def port(tmp_path: Path, authority: Authority) -> Iterator[int]:
    assert REDIS_SERVER is not None, "LIVE_REQUIRE_SYSTEM is set, and redis-server isn't installed"
    # A port that the system gives nobody by itself: other tests run at the same time.
    port, file = random.randrange(20_000, 32_000), str(authority.server_file())
    process = subprocess.Popen(
        [
            REDIS_SERVER, "--port", "0", "--tls-port", str(port), "--save", "",
            "--dir", str(tmp_path), "--tls-cert-file", file, "--tls-key-file", file,
            "--tls-ca-cert-file", str(authority.file), "--tls-auth-clients", "no",
        ],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip

    def answers() -> bool:
        with connected(f"rediss://127.0.0.1:{port}?ssl_ca_certs={authority.file}") as connection:
            return outcome_of(connection) is not Outcome.DOWN

    wait_until(answers)
    yield port
    process.kill()
    process.wait()


def outcome_of(connection: BoundedRedis) -> Outcome:
    publisher = RedisPublisher(connection, KEYS)
    return publisher.publish(Stream().window().publication()).outcome


def test_a_known_authority_is_trusted_in_prod(port: int, authority: Authority) -> None:
    url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={authority.file}"
    with connected(url, env="prod", timeout_sec=5.0) as connection:
        assert outcome_of(connection) is Outcome.ACCEPTED
        assert connection.get(KEYS.state) == "ACTIVE"


def test_an_unknown_authority_is_not(port: int, tmp_path: Path) -> None:
    unknown = Authority(tmp_path, "unknown")
    for options in (f"?ssl_ca_certs={unknown.file}", ""):
        url = f"rediss://127.0.0.1:{port}{options}"
        with connected(url, env="prod", timeout_sec=5.0) as connection:
            assert outcome_of(connection) is Outcome.DOWN


def test_checks_can_be_switched_off_except_in_prod(port: int) -> None:
    url = f"rediss://127.0.0.1:{port}?ssl_cert_reqs=none"
    with connected(url, env="dev", timeout_sec=5.0) as connection:
        assert outcome_of(connection) is Outcome.ACCEPTED
    with pytest.raises(BadInput, match="certificate checks off"):
        open_redis(url, env="prod")
