"""
What goes wrong with real runs, each in an environment of its own, and is told by the alerts.

A story begins with a healthy run, brings each of its alerts about, and mends it. It waits for what
arrives at the webhook, never for a time.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from live_support import LiveRedis, Market, Run, command, hash_run, running_redis, windows
from monitoring import Monitoring, wait_long
from scraping import metrics_url
from webhook import running_webhook

BTC, ETH = "BTCUSDT", "ETHUSDT"
ILL: Final = {"edge_bps": 2.0}
STEERED: Final = Path(__file__).with_name("steered_run.py")
POLICY: Final = {
    # Windows that a busy machine misses make no difference for long.
    "no_data_freeze_windows": 1_000,
    "min_warn_windows": 1_000,
    "min_ok_windows": 1,
    "unfreeze_after_ok_windows": 1,
    # One ill symbol is frozen alone, both freeze everything.
    "global_freeze_symbols": 2,
}


@contextmanager
def watched(
    monitoring: Monitoring,
    folder: Path,
    env: str,
    *options: str | Path,
    port: int = 0,
    steered: bool = False,
) -> Iterator[Run]:
    """Give a run that is scraped, and has decided a window."""
    folder.mkdir(exist_ok=True)
    (folder / "policy.json").write_text(json.dumps(POLICY))
    known = len(windows(folder, f"{env}:bybit"))
    fixed = ("--env", env, "--policy", "policy.json", "--metrics-port", str(port))
    more: dict[str, Any] = {"program": [STEERED]} if steered else {}
    with Run(folder, *options, *fixed, **more) as run:
        run.says("metrics at ")
        monitoring.scrape(env, urlsplit(metrics_url(run.output)).port or 0)
        wait_long(lambda: len(windows(folder, f"{env}:bybit")) > known, f"a window of {env}")
        yield run


def on_hashes(server: LiveRedis) -> list[str | Path]:
    return hash_run(server.url, "--lateness", "0.4", interval="1")


def on_mock(*more: str | Path) -> list[str | Path]:
    return [
        *("--feed", "mock://healthy", "--ledger", "l.sqlite", "--symbols", f"{BTC},{ETH}"),
        *("--ramp-profile", "C", "--interval-sec", "1", "--iterations", "0", *more),
    ]


def override(folder: Path, *words: str) -> str:
    """Have an override done and return its id."""
    reason = ("--reason", "a drill", "--by", "ann", "--ledger", "l.sqlite")
    done = command(folder, "override", *words, *reason)
    assert done.code == 0, done.err
    return done.out.split()[1].rstrip(",")


def frozen_and_killed(monitoring: Monitoring, folder: Path) -> None:
    """A symbol freezes, everything freezes, somebody bypasses it, the runner is killed."""
    with (
        running_redis() as server,
        Market(server, "prod", [BTC, ETH]) as market,
        running_webhook() as webhook,
    ):
        options = [*on_hashes(server), "--notify", webhook.url()]
        with watched(monitoring, folder, "prod", *options) as run:
            port = urlsplit(metrics_url(run.output)).port or 0
            market.kpis[BTC] = dict(ILL)
            violated = monitoring.fires("LiveKPIViolation", env="prod", symbol=BTC, kpi="edge_bps")
            frozen = monitoring.fires("LiveSymbolFrozen", env="prod", symbol=BTC)
            market.kpis[BTC] = {}
            monitoring.resolves("LiveKPIViolation", after=violated, env="prod", symbol=BTC)
            monitoring.resolves("LiveSymbolFrozen", after=frozen, env="prod", symbol=BTC)
            market.kpis = {BTC: dict(ILL), ETH: dict(ILL)}
            halted = monitoring.fires("LiveStateFrozen", env="prod")
            server.client.set("prod:bybit:live:state", "ACTIVE")
            written = monitoring.fires("LiveExternalWrite", env="prod")
            run.kill()
        absent = monitoring.fires("LiveControllerAbsent", env="prod")
        ended = [
            told
            for told in monitoring.receiver.told[halted:]
            if told.is_of("LiveStateFrozen", "resolved", {"env": "prod"})
        ]
        assert not ended, "a crash is no recovery"
        with watched(monitoring, folder, "prod", *options, port=port):
            monitoring.resolves("LiveControllerAbsent", after=absent, env="prod")
            monitoring.active("LiveStateFrozen", env="prod")
            mended = len(monitoring.receiver.told)
            market.kpis = {BTC: {}, ETH: {}}
            monitoring.resolves("LiveStateFrozen", after=mended, env="prod")
            monitoring.resolves("LiveExternalWrite", after=written, env="prod")
            wait_long(lambda: webhook.taken, "a notification")


def capped(monitoring: Monitoring, folder: Path) -> None:
    """An operator caps everything for a while."""
    with watched(monitoring, folder, "staging", *on_mock()):
        override(folder, "cap", "0.3", "--for", "45s")
        low = monitoring.fires("LiveThrottleLow", env="staging")
        expiring = monitoring.fires("LiveOverrideExpiring", env="staging", kind="cap")
        monitoring.resolves("LiveOverrideExpiring", after=expiring, env="staging")
        monitoring.resolves("LiveThrottleLow", after=low, env="staging")


def without_redis(monitoring: Monitoring, folder: Path) -> None:
    """Redis dies, and comes back."""
    with (
        running_redis() as server,
        watched(monitoring, folder, "redis", *on_mock("--redis-url", server.url)),
    ):
        server.kill()
        down = monitoring.fires("LiveRedisDown", env="redis")
        server.restart()
        monitoring.resolves("LiveRedisDown", after=down, env="redis")


def without_artifacts(monitoring: Monitoring, folder: Path) -> None:
    """The artifacts can't be written, and can again."""
    latest = folder / "artifacts/live/latest"
    with watched(monitoring, folder, "files", *on_mock()):
        latest.rename(folder / "aside")
        latest.write_text("in the way")
        lags = monitoring.fires("LiveProjectionLagging", env="files", projection="artifacts")
        latest.unlink()
        (folder / "aside").rename(latest)
        monitoring.resolves("LiveProjectionLagging", after=lags, env="files")


def stalled(monitoring: Monitoring, folder: Path) -> None:
    """The ledger's disk stalls: the process is there and decides nothing."""
    with watched(monitoring, folder, "stall", *on_mock(), steered=True):
        (folder / "hold").touch()
        stale = monitoring.fires("LiveLedgerStale", env="stall")
        (folder / "hold").unlink()
        monitoring.resolves("LiveLedgerStale", after=stale, env="stall")


def silent(monitoring: Monitoring, folder: Path) -> None:
    """The pipeline that writes the KPIs stands still."""
    with (
        running_redis() as server,
        Market(server, "feed", [BTC, ETH]) as market,
        watched(monitoring, folder, "feed", *on_hashes(server)),
    ):
        still = {"ts": time.time()}
        market.kpis = {BTC: dict(still), ETH: dict(still)}
        told = monitoring.fires("LiveFeedSilent", env="feed")
        market.kpis = {BTC: {}, ETH: {}}
        monitoring.resolves("LiveFeedSilent", after=told, env="feed")


def disobeyed(monitoring: Monitoring, folder: Path) -> None:
    """The bot goes on trading while everything is frozen."""
    with running_redis() as server:
        client: Any = server.client

        def trade() -> None:
            fill = {"type": "fill", "ts": str(time.time_ns() // 1_000_000), "symbol": BTC}
            fill |= {"side": "buy", "price": "100", "quantity": "1", "mid": "100.04"}
            fill |= {"maker": "true", "latency_ms": "120"}
            fill |= {"position_notional": "100", "limit_notional": "1000"}
            client.xadd("fills", fill)

        trade()
        options = [
            *("--feed", "redis-stream:fills", "--redis-url", server.url, "--ledger", "l.sqlite"),
            *("--symbols", f"{BTC},{ETH}", "--ramp-profile", "C", "--interval-sec", "1"),
            *("--iterations", "0", "--lateness", "0.4"),
        ]
        with watched(monitoring, folder, "fills", *options):
            frozen = override(folder, "freeze")

            def told() -> bool:
                trade()
                return any(
                    told.is_of("LiveTradedWhileFrozen", "firing", {"env": "fills"})
                    for told in monitoring.receiver.told
                )

            wait_long(told, "LiveTradedWhileFrozen firing")
            override(folder, "clear", frozen)
            monitoring.resolves("LiveTradedWhileFrozen", env="fills")


def clock_behind(monitoring: Monitoring, folder: Path) -> None:
    """The machine's clock goes back by half a minute, and is put right."""
    with watched(monitoring, folder, "clock", *on_mock(), steered=True):
        (folder / "clock").write_text("-30000")
        told = monitoring.fires("LiveClockFault", env="clock")
        (folder / "clock").write_text("0")
        monitoring.resolves("LiveClockFault", after=told, env="clock")


def unheard(monitoring: Monitoring, folder: Path) -> None:
    """The service for notifications fails, and works again."""
    with running_webhook() as webhook:
        webhook.mode = "fail"
        options = on_mock("--notify", webhook.url(), "--notify-debounce", "0")
        with watched(monitoring, folder, "notify", *options):
            frozen = override(folder, "freeze")
            told = monitoring.fires("LiveNotificationsFailing", env="notify")
            webhook.mode = "ok"
            override(folder, "clear", frozen)
            override(folder, "freeze")  # A CRIT is tried at once, whatever the pause.
            wait_long(lambda: webhook.taken, "a notification")
            monitoring.resolves("LiveNotificationsFailing", after=told, env="notify")


Story = Callable[[Monitoring, Path], None]

STORIES: Final[Mapping[Story, tuple[str, ...]]] = {
    frozen_and_killed: (
        "LiveKPIViolation",
        "LiveSymbolFrozen",
        "LiveStateFrozen",
        "LiveExternalWrite",
        "LiveControllerAbsent",
    ),
    capped: ("LiveThrottleLow", "LiveOverrideExpiring"),
    without_redis: ("LiveRedisDown",),
    without_artifacts: ("LiveProjectionLagging",),
    stalled: ("LiveLedgerStale",),
    silent: ("LiveFeedSilent",),
    disobeyed: ("LiveTradedWhileFrozen",),
    clock_behind: ("LiveClockFault",),
    unheard: ("LiveNotificationsFailing",),
}
"""By story, the alerts that it sees firing and resolving."""
