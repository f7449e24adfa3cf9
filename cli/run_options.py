"""
What `live run` was told, checked as far as can be without a ledger.
"""

from pathlib import Path
from typing import Final

import msgspec

from domain.events import LATENESS_MS
from ledger.location import LedgerLocation
from ledger.streams import StreamKey
from projections.notify_messages import Level

DEFAULT_KPI_KEY: Final = "{env}:{exchange}:shadow:latest:{symbol}"
TTL_SEC_MAX: Final = 366 * 86_400
LOOKBACK_WINDOWS: Final = 5


class FeedOptions(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where windows come from.

    Attributes:
        source: `mock://...`, `file:PATH`, `redis:`, `redis-stream:KEY`, `ws://...`, `wss://...`.
        speed: a file's pace over its own; None for no waiting.
        kpi_key: the template of the hashes that a Redis feed reads.
        allow_untimed: whether a hash without `ts` is believed in prod too.
        lateness_ms: how long after a window's end its samples are still taken.
        kpi_max_age_ms: how old a reading may be at a window's end; None for two intervals.
        lookback_windows: over how many windows' fills edge and maker ratio are.
        derive_anomaly: whether a missing anomaly score is derived from the other KPIs.
    """

    source: str
    speed: float | None = None
    kpi_key: str = DEFAULT_KPI_KEY
    allow_untimed: bool = False
    lateness_ms: int = LATENESS_MS
    kpi_max_age_ms: int | None = None
    lookback_windows: int = LOOKBACK_WINDOWS
    derive_anomaly: bool = False

    def lateness_within(self, interval_ms: int) -> int:
        """Return the lateness, cut to half an interval: a window must be decided within one."""
        return min(self.lateness_ms, interval_ms // 2)

    @property
    def scheme(self) -> str:
        """What comes before the first colon."""
        return self.source.partition(":")[0]


class RedisOptions(msgspec.Struct, frozen=True, kw_only=True):
    """
    The server to publish to, and how. `url` may hold a password and is never shown.

    Attributes:
        ttl_sec: the keys' lifetime.
        dead_man: whether what a bot obeys expires when it can't be believed any more.
        freeze_on_exit: whether FROZEN is published when the run ends.
        adopt: whether another ledger's keys may be taken over.
    """

    url: str
    ttl_sec: int
    dead_man: bool = False
    freeze_on_exit: bool = False
    adopt: bool = False


class MetricsOptions(msgspec.Struct, frozen=True):
    """Where metrics are served; port 0 is one that is free."""

    port: int
    address: str


class NotifyOptions(msgspec.Struct, frozen=True, kw_only=True):
    """
    Who is told, and what. `urls` are secrets and are never shown.

    Attributes:
        level: from which severity on the run's environment is told.
        debounce_ms: see `projections.notify_messages.Settings`.
        runbook_url: what the runbook's sections are linked under.
    """

    urls: tuple[str, ...]
    level: Level
    debounce_ms: int
    runbook_url: str


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """All of it; what is None continues as in the ledger, a history that is None isn't kept."""

    key: StreamKey
    feed: FeedOptions
    redis: RedisOptions | None
    metrics: MetricsOptions | None = None
    notify: NotifyOptions | None = None
    location: LedgerLocation
    is_fresh: bool
    artifacts: Path
    history: Path | None
    symbols: tuple[str, ...] | None
    interval_ms: int | None
    iterations: int | None
    profile: str | None
    policy: Path | None
    shadows: tuple[Path, ...] = ()
    adopt_policy: bool
    quiet: bool
