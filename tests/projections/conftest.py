"""One server for a module's tests, empty for each of them."""

from collections.abc import Iterator

import pytest
from redis_support import Server, running_server


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """A server that runs for all tests of a module."""
    with running_server() as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    """The module's server, empty."""
    running.admin.flushall()
    return running
