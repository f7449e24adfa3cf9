"""What `--metrics-port` takes and refuses, and that neither it nor scrapers cost a run anything."""

import json
import socket
from pathlib import Path

import pytest
from live_support import (
    Run,
    command,
    environment,
    events,
    let_windows_pass,
    mock_run,
    python,
    wait_for,
)
from scraping import metrics_url, scrape

from domain.events import GapObserved

METERED = ("--metrics-port", "0")


def url_of(run: Run) -> str:
    return wait_for(lambda: metrics_url(run.output), "metrics")


def test_scrapers_that_hang_make_no_window_late(tmp_path: Path) -> None:
    with Run(tmp_path, *mock_run(None, *METERED)) as run:
        host, _, port = url_of(run).removeprefix("http://").removesuffix("/metrics").partition(":")
        hanging = [socket.create_connection((host, int(port))) for _ in range(20)]
        for number, connection in enumerate(hanging):
            if number % 2:
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: ")
        let_windows_pass(tmp_path, 4)
        assert scrape(url_of(run)).value("live_state") == 2
        assert run.stop() == 0
        for connection in hanging:
            connection.close()
    assert not events(tmp_path, GapObserved)


def test_a_port_that_is_taken_ends_the_run_before_anything_is_decided(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        args = mock_run(None, "--metrics-port", port, "--iterations", "1")
        refused = command(tmp_path, "run", *args)
        assert (refused.code, refused.out) == (2, "")
        assert refused.err == (
            f"Error: --metrics-port: {port} on 127.0.0.1 can't be had: Address already in use\n"
        )
        assert not (tmp_path / "l.sqlite").exists()
        # A mock feed's own ledger, made anew each time, is still the last run's.
        fresh = command(tmp_path, "run", "--quiet")
        assert fresh.code == 0, fresh.err
        kept = (tmp_path / "artifacts/live/mock.sqlite").read_bytes()
        assert command(tmp_path, "run", "--metrics-port", port).code == 2
        assert (tmp_path / "artifacts/live/mock.sqlite").read_bytes() == kept


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("203.0.113.7", "203.0.113.7 can't be listened on: Cannot assign requested address"),
        ("no such host", "expected an address of this machine, was 'no such host'"),
        ("", "expected an address of this machine, was ''"),
        ("x" * 300, "expected an address of this machine, was 'xxx"),
    ],
)
def test_an_address_that_is_none_of_ours_is_refused(
    tmp_path: Path, address: str, told: str
) -> None:
    args = mock_run(None, *METERED, "--metrics-address", address, "--iterations", "1")
    refused = command(tmp_path, "run", *args)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith(f"Error: --metrics-address: {told}")
    assert not (tmp_path / "l.sqlite").exists()


def test_another_runner_on_the_stream_is_named_before_the_port_it_holds(tmp_path: Path) -> None:
    with Run(tmp_path, *mock_run(None, *METERED)) as run:
        port = url_of(run).removesuffix("/metrics").rpartition(":")[2]
        refused = command(tmp_path, "run", *mock_run(None, "--metrics-port", port))
        assert refused.code == 4, refused.err
        assert run.stop() == 0
        # A restart has the port at once, though connections to it were just closed.
        with Run(tmp_path, *mock_run(None, "--metrics-port", port)) as again:
            assert url_of(again).endswith(f":{port}/metrics")
            assert scrape(url_of(again)).names
            again.kill()
        with Run(tmp_path, *mock_run(None), env={"LIVE_METRICS_PORT": port}) as third:
            assert scrape(url_of(third)).names
            assert third.stop() == 0


def test_the_run_that_ends_answers_no_more(tmp_path: Path) -> None:
    with Run(tmp_path, *mock_run(None, *METERED)) as run:
        url = url_of(run)
        scrape(url)
        assert run.stop() == 0
    with pytest.raises(OSError, match="Connection refused"):
        scrape(url)


def test_a_run_without_metrics_imports_nothing_for_them(tmp_path: Path) -> None:
    program = (
        "import json, sys\n"
        "from cli.main import main\n"
        "try:\n"
        "    main(args=sys.argv[1:])\n"
        "except SystemExit as left:\n"
        "    assert left.code == 0\n"
        "names = [name for name in sys.modules if 'prometheus' in name or 'metrics' in name]\n"
        "print(json.dumps([*names, *[name for name in sys.modules if name == 'http.server']]))\n"
    )
    assert "LIVE_METRICS_PORT" not in environment()
    done = python(tmp_path, "-c", program, "run", "--quiet")
    assert json.loads(done.out.splitlines()[-1]) == []
