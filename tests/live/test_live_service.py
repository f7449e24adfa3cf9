"""A service manager hears that a run is up, alive and ending; one which hangs is silent."""

import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_support import DRIVER, WAIT_SEC, Run, mock_run, windows

from cli.service import NO_MANAGER, service_manager

WATCHDOG_SEC = 2.0


class Manager:
    """What systemd does with a unit of Type=notify: it listens, and loses patience."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.heard: list[str] = []

    def environment(self) -> dict[str, str]:
        usec = str(round(WATCHDOG_SEC * 1_000_000))
        return {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": usec}

    def hear(self, line: str, *, patience_sec: float = WAIT_SEC) -> str | None:
        """Return the first line from now on that a pattern fits; None after so long a silence."""
        self._socket.settimeout(patience_sec)
        while True:
            try:
                text = self._socket.recv(4096).decode()
            except TimeoutError:
                return None
            lines = text.splitlines()
            self.heard += lines
            for found in lines:
                if re.fullmatch(line, found):
                    return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    short = f"@live-{tmp_path.parent.name}-{tmp_path.name}"[:100]
    found = Manager(str(tmp_path / "notify") if request.param == "path" else short)
    yield found
    found.close()


def test_a_run_is_ready_alive_and_stopping_in_this_order(manager: Manager, tmp_path: Path) -> None:
    with Run(tmp_path, *mock_run(None), env=manager.environment()) as run:
        assert manager.hear("READY=1"), run.output
        assert not windows(tmp_path), "it is up before its first window is over"
        for _ in range(3):
            assert manager.hear("WATCHDOG=1")
        told = manager.hear(r"STATUS=ACTIVE, throttle 1, version \d+")
        assert told is not None
        assert run.stop() == 0
        assert manager.hear("STOPPING=1")
    assert manager.heard.index("STATUS=no window is decided yet") < manager.heard.index(told)
    assert manager.heard.count("READY=1") == 1


def test_a_file_that_is_played_is_alive_between_its_windows(
    manager: Manager, tmp_path: Path
) -> None:
    lines = [
        f'{{"window_start": "2026-01-05T22:{minute:02d}:00Z", "symbol": "BTCUSDT", "edge_bps": 3.0,'
        ' "maker_taker_ratio": 0.9, "risk_ratio": 0.2, "p95_latency_ms": 100}\n'
        for minute in range(10)
    ]
    (tmp_path / "kpis.jsonl").write_text("".join(lines))
    options = ("--feed", "file:kpis.jsonl", "--ledger", "l.sqlite", "--speed", "0.5")
    with Run(tmp_path, *options, env=manager.environment()) as run:
        assert manager.hear("READY=1"), run.output
        for _ in range(3):
            assert manager.hear("WATCHDOG=1")
        assert run.stop() == 0
        assert manager.hear("STOPPING=1")


@pytest.mark.parametrize("step", ["append", "artifacts"])
def test_a_run_that_hangs_is_silent_and_is_aborted(
    manager: Manager, tmp_path: Path, step: str
) -> None:
    program = (DRIVER, step, "hang", "3")
    with Run(tmp_path, *mock_run(None), program=program, env=manager.environment()) as run:
        assert manager.hear("READY=1"), run.output
        # What systemd does when WatchdogSec is over: SIGABRT. It comes to this only by silence.
        while manager.hear("WATCHDOG=1", patience_sec=WATCHDOG_SEC):
            pass
        run.signal(signal.SIGABRT)
        assert run.process.wait(WAIT_SEC) == -signal.SIGABRT
    assert "WATCHDOG=1" in manager.heard
    assert "STOPPING=1" not in manager.heard
    assert len(windows(tmp_path)) >= 1


def test_without_a_manager_nothing_is_told() -> None:
    for environment in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}):
        assert service_manager(environment) is NO_MANAGER
    NO_MANAGER.ready("up")
    NO_MANAGER.alive()


@pytest.mark.parametrize(
    "more", [{}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}]
)
def test_a_watchdog_of_nobody_or_of_another_process_gets_no_signs_of_life(
    tmp_path: Path, more: dict[str, str]
) -> None:
    manager = Manager(str(tmp_path / "notify"))
    told = service_manager({"NOTIFY_SOCKET": manager.address, **more})
    told.alive()
    told.ready("up")
    assert manager.hear("STATUS=up")
    assert manager.heard == ["READY=1", "STATUS=up"]
    told.close()
    manager.close()


def test_a_manager_that_has_gone_or_does_not_listen_stops_nobody(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    told = service_manager({"NOTIFY_SOCKET": manager.address})
    for number in range(10_000):  # Until its queue is full.
        told.status(str(number))
    manager.close()
    told.stopping()
    told.close()
