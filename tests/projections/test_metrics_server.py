"""The server behind `/metrics`: what it answers, and that nobody can hold it up."""

import contextlib
import http.client
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from metrics_support import Metered, metered
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from redis_support import BTC, CRIT, MINUTE_MS, Stream, wait_until
from scraping import parsed, scrape

import projections.metrics_server as module
from projections.metrics_server import CONNECTIONS_MAX, Health, MetricsServer, Page

OPENMETRICS = "application/openmetrics-text;version=1.0.0"


@pytest.fixture
def run() -> Iterator[Metered]:
    with metered(Stream(BTC)) as run:
        for name in ("redis", "artifacts"):
            run.metrics.add_projection(name)
        run.tells(lambda story: story.window(BTCUSDT=CRIT))
        yield run


def ask(
    server: MetricsServer, path: str = "/metrics", method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], str]:
    """Return status, headers and body of an answer."""
    host, port = server.server_address[:2]
    connection = http.client.HTTPConnection(str(host), port, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def read_openmetrics(page: str) -> list[Family]:
    """Return what a strict reader finds."""
    read: Any = text_string_to_metric_families
    return list(read(page))


def connect(server: MetricsServer) -> socket.socket:
    host, port = server.server_address[:2]
    return socket.create_connection((str(host), port), timeout=30)


def test_two_paths_are_answered_and_no_other(run: Metered) -> None:
    status, headers, body = ask(run.server)
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert parsed(body).value("live_state") == 0
    assert ask(run.server, "/metrics?x=1")[0] == 200
    for path in ("/", "/metrics/", "/favicon.ico", "/-/healthy/x", "/metric"):
        status, _, body = ask(run.server, path)
        assert (status, body) == (404, "expected /metrics or /-/healthy\n"), path


def test_head_is_get_without_the_page(run: Metered) -> None:
    status, headers, body = ask(run.server, method="HEAD")
    assert (status, body) == (200, "")
    assert int(headers["content-length"]) > 1_000


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "LIVE"])
def test_nothing_can_be_changed(run: Metered, method: str) -> None:
    status, _, body = ask(run.server, method=method)
    assert (status, body) == (501, f"501 Unsupported method ('{method}')\n")


def test_health_is_the_runs(run: Metered) -> None:
    status, _, body = ask(run.server, "/-/healthy")
    assert status == 200
    assert body.startswith("the last decision is valid until 20")
    run.now_ms += 10 * MINUTE_MS
    assert ask(run.server, "/-/healthy")[0] == 503


def test_prometheus_own_format_says_the_same(run: Metered) -> None:
    status, headers, body = ask(run.server, Accept=OPENMETRICS)
    assert status == 200
    assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith("# EOF\n") and body.count("# EOF") == 1
    found = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in read_openmetrics(body)
        for sample in family.samples
        if not sample.name.startswith("process_")
    }
    plain = {
        series: value
        for series, value in scrape(run.server.url).series.items()
        if not series[0].startswith("process_")
    }
    assert repr(sorted(found.items(), key=repr)) == repr(sorted(plain.items(), key=repr))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool isn't installed")
def test_prometheus_own_tool_finds_nothing_wrong(run: Metered) -> None:
    run.metrics.set_redis_up(True)
    run.metrics.notified(pending=0, delivered=0, failed=0, abandoned=0)
    page = ask(run.server)[2]
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_connections_that_say_nothing_give_way_to_those_that_ask(run: Metered) -> None:
    silent = [connect(run.server) for _ in range(4 * CONNECTIONS_MAX)]
    try:
        assert scrape(run.server.url).value("live_state") == 0
        for connection in silent[: -2 * CONNECTIONS_MAX]:
            assert connection.recv(1) == b"", "it was hung up on"
        wait_until(lambda: handlers() <= CONNECTIONS_MAX)
    finally:
        for connection in silent:
            connection.close()


def handlers() -> int:
    return sum("process_request" in thread.name for thread in threading.enumerate())


def test_a_scraper_that_takes_nothing_holds_nobody_up(run: Metered) -> None:
    """The page is larger than what the system takes of it, so that its thread waits."""
    server = MetricsServer("127.0.0.1", 0)
    server.serve(lambda _: Page("text/plain", b"x" * (64 << 20)), lambda: Health(True, ""))
    stuck = connect(server)
    try:
        stuck.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert stuck.recv(1)
        assert ask(server, "/-/healthy")[0] == 200
        assert run.tells(Stream.window).value("live_ledger_version") == run.story.version
    finally:
        stuck.close()
        server.close()


def test_a_scraper_that_takes_too_long_to_ask_is_hung_up_on(
    run: Metered, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module._Handler, "timeout", 0.05)
    slow = connect(run.server)
    slow.sendall(b"GET /met")
    assert slow.recv(1) == b""
    slow.close()
    assert capfd.readouterr() == ("", "")


def test_scrapers_that_go_away_are_no_news(run: Metered, capfd: pytest.CaptureFixture[str]) -> None:
    server = MetricsServer("127.0.0.1", 0)
    server.serve(lambda _: Page("text/plain", b"x" * (64 << 20)), lambda: Health(True, ""))
    for ask_for in (b"", b"\0\xff\r\n\r\n", b"GET /metrics HTTP/1.1\r\n\r\n", b"GET / HTTP/9\r\n"):
        with connect(server) as rude:
            rude.sendall(ask_for)
    server.close()
    wait_until(lambda: handlers() == 0)
    assert capfd.readouterr() == ("", "")


def test_a_fault_of_our_own_is_told_and_ends_one_answer_only(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def broken(_: str) -> Page:
        raise RuntimeError("a fault of our own")

    server = MetricsServer("127.0.0.1", 0)
    server.serve(broken, lambda: Health(True, ""))
    with pytest.raises(http.client.HTTPException):
        ask(server)
    assert ask(server, "/-/healthy")[0] == 200
    server.close()
    assert "a fault of our own" in capfd.readouterr().err


def test_closing_lets_go_of_the_port_and_of_whoever_is_connected(run: Metered) -> None:
    host, port = run.server.server_address[:2]
    silent = connect(run.server)
    run.tells(Stream.window)
    run.server.close()
    assert silent.recv(1) == b""
    silent.close()
    with pytest.raises(ConnectionRefusedError):
        connect(run.server)
    again = MetricsServer(str(host), port)
    again.close()


def test_a_connection_before_the_first_answer_waits_for_it() -> None:
    server = MetricsServer("127.0.0.1", 0)
    with connect(server) as early:
        early.sendall(b"GET /-/healthy HTTP/1.1\r\n\r\n")
        server.serve(lambda _: Page("", b""), lambda: Health(True, "well"))
        answer = b""
        while more := early.recv(4096):
            answer += more
    server.close()
    assert answer.startswith(b"HTTP/1.0 200 OK") and answer.endswith(b"\r\n\r\nwell\n")


@pytest.mark.parametrize(("address", "shown"), [("::1", "[::1]"), ("localhost", "127.0.0.1")])
def test_other_addresses_of_this_machine_do_too(address: str, shown: str) -> None:
    try:
        server = MetricsServer(address, 0)
    except OSError as error:
        pytest.skip(f"{address} isn't to be had here: {error}")
    server.serve(lambda _: Page("text/plain", b"here\n"), lambda: Health(True, ""))
    with contextlib.closing(server):
        url: Any = server.url
        assert url == f"http://{shown}:{server.server_address[1]}/metrics"
        assert ask(server)[2] == "here\n"
