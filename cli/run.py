"""
`live run`: decide windows as a feed delivers them.

Source: LIVE_MODE_GUIDE.md, Quick Start; DESIGN.md section 4.
"""

from pathlib import Path
from typing import Any, Final

import click

from cli.clock import SystemClock
from cli.feeding import check_source
from cli.metering import listening
from cli.notify_options import notify_options, notify_options_of, notify_policy_options
from cli.options import (
    DEFAULT_ENV,
    DEFAULT_EXCHANGE,
    DEFAULT_LEDGER,
    MOCK_LEDGER,
    artifacts_option,
    ledger_option,
    live_option,
    redis_url_options,
)
from cli.run_options import (
    DEFAULT_KPI_KEY,
    TTL_SEC_MAX,
    FeedOptions,
    MetricsOptions,
    RedisOptions,
    RunOptions,
)
from cli.running import check_options, execute
from cli.secrets import hide_arguments, redis_url_of
from cli.texts import interval_ms_of, seconds_ms_of, split_symbols, warn
from domain.errors import BadInput
from ledger.application import Ledger
from ledger.location import LedgerLocation, parse_location
from ledger.lock import StreamLock
from ledger.sqlite import remove_ledger
from ledger.streams import stream_key
from projections.files import prepare_folder
from projections.history_manifest import default_folder
from redis_link.url import parse_redis_url

MOCK_FEED: Final = "mock://healthy"


@click.command()
@live_option(
    "--symbols",
    metavar="A,B,...",
    help="Symbols, in order. [default: as in the ledger, else those of a file feed, else BTCUSDT]",
)
@live_option("--ramp-profile", metavar="A|B|C", help="Limits. [default: as in the ledger, else A]")
@redis_url_options
@live_option("--env", default=DEFAULT_ENV, show_default=True, help="dev, staging, prod, ...")
@live_option("--exchange", default=DEFAULT_EXCHANGE, show_default=True, help="The venue.")
@live_option(
    "--iterations",
    type=click.IntRange(min=0),
    help="Windows to decide; 0 for ever. [default: mock 1, file to its end, else 0]",
)
@live_option(
    "--interval-sec",
    type=float,
    help="A window's length. [default: the stream's, else the file's, else 60]",
)
@live_option(
    "--ttl",
    type=click.IntRange(min=1, max=TTL_SEC_MAX),
    default=3600,
    show_default=True,
    help="Lifetime of the Redis keys, in seconds.",
)
@live_option("--dry-run", is_flag=True, help="Decide and record, publish and notify nothing.")
@live_option(
    "--feed",
    metavar="SOURCE",
    help="mock://SCENARIO?seed=N, file:PATH (Parquet, CSV, JSONL), redis-stream:KEY, ws://... or "
    "wss://... [default: the hashes of --redis-url, else mock]",
)
@ledger_option(
    f"The ledger: a path or sqlite:///PATH. [default: {DEFAULT_LEDGER}; for a mock feed "
    f"{MOCK_LEDGER}, made anew each time]"
)
@artifacts_option()
@live_option(
    "--history",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder of the Parquet history. [default: LEDGER.history beside the ledger; none for "
    "a ledger that is made anew each time]",
)
@live_option("--no-history", is_flag=True, help="Keep no history; it can be made later.")
@live_option(
    "--policy",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Thresholds and hysteresis as JSON. [default: as in the ledger]",
)
@live_option(
    "--shadow",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Let this policy decide the same windows beside, recorded and published nowhere. Several "
    "may be given.",
)
@live_option("--adopt-policy", is_flag=True, help="Agree to a change that loosens, in prod.")
@live_option("--speed", type=float, help="Play a file feed at this multiple of its own pace.")
@live_option(
    "--kpi-key",
    default=DEFAULT_KPI_KEY,
    show_default=True,
    help="The hashes that a Redis feed reads.",
)
@live_option("--allow-untimed", is_flag=True, help="Believe hashes without ts in prod too.")
@live_option(
    "--lateness",
    type=click.FloatRange(min=0),
    default=2.0,
    show_default=True,
    help="How long after a window's end its samples are still taken, in seconds; at most half an "
    "interval is.",
)
@live_option(
    "--kpi-max-age",
    type=click.FloatRange(min=0),
    help="How old a KPI may be at a window's end, in seconds. [default: two intervals]",
)
@live_option(
    "--lookback-windows",
    type=click.IntRange(min=1, max=1000),
    default=5,
    show_default=True,
    help="Over how many windows' fills edge and maker ratio are.",
)
@live_option("--derive-anomaly", is_flag=True, help="Derive anomaly scores that the feed lacks.")
@live_option("--dead-man", is_flag=True, help="Let state and throttles expire with valid_until.")
@live_option(
    "--on-exit",
    type=click.Choice(["keep", "freeze"]),
    default="keep",
    show_default=True,
    help="What Redis holds when the run has ended.",
)
@live_option(
    "--metrics-port",
    type=click.IntRange(min=0, max=65_535),
    help="Serve /metrics for Prometheus on this port; 0 for one that is free. [default: off]",
)
@live_option(
    "--metrics-address",
    default="127.0.0.1",
    show_default=True,
    help="The address that /metrics is served on, to whoever can reach it.",
)
@live_option("--adopt", is_flag=True, help="Take another ledger's Redis keys over.")
@notify_options
@notify_policy_options
@live_option("--quiet", is_flag=True, help="Don't tell what happened window by window.")
def run(symbols: str | None, ledger: str | None, iterations: int | None, **given: Any) -> None:
    """
    Decide windows as a feed delivers them, and record every decision.

    Each window: KPIs in, events into the ledger, LIVE_* artifacts out. A restart continues from
    the ledger; running the same file again changes nothing. Exit codes: 0 fine, 2 bad usage or
    input, 4 another runner writes to the stream, 5 the ledger is damaged or can't be written.
    """
    env = given["env"]
    url, warning = redis_url_of(given["redis_url"], given["redis_url_file"])
    if url is not None:
        # Even where it isn't used, as in a dry run: it would be in the run after this one.
        parse_redis_url(url, env=env)
    feed = _feed_options(given, url)
    check_source(feed, env=env, redis_url=url)
    notify, notify_warnings = notify_options_of(given, env)
    secrets = [url, feed.source if feed.scheme in {"ws", "wss"} else None]
    hidden = hide_arguments(*filter(None, secrets), notify=given["notify"])
    for told in (warning, hidden, *notify_warnings):
        warn(told)
    is_fresh = ledger is None and feed.scheme == "mock"
    location = parse_location(_default_ledger(is_fresh) if ledger is None else ledger)
    interval_sec = given["interval_sec"]
    options = RunOptions(
        key=stream_key(env, given["exchange"], dry_run=given["dry_run"]),
        feed=feed,
        redis=None if url is None else _redis_options(given, url),
        metrics=_metrics_options(given),
        notify=notify,
        location=location,
        is_fresh=is_fresh,
        artifacts=given["artifacts"],
        history=_history_folder(given, location, is_fresh=is_fresh),
        symbols=None if symbols is None else split_symbols(symbols),
        interval_ms=None if interval_sec is None else interval_ms_of(interval_sec),
        iterations=1 if iterations is None and feed.scheme == "mock" else iterations,
        profile=given["ramp_profile"],
        policy=given["policy"],
        shadows=given["shadow"],
        adopt_policy=given["adopt_policy"],
        quiet=given["quiet"],
    )
    check_options(options)
    prepare_folder(options.artifacts)
    prepare_folder(options.location.path.parent, option="--ledger")
    clock = SystemClock()
    with (
        StreamLock(options.location, str(options.key), now_ms=clock.now_ms()) as lock,
        listening(options.metrics) as metrics_server,
    ):
        if options.is_fresh:
            remove_ledger(options.location.path)
        with Ledger.open(options.location) as opened:
            execute(options, opened, lock, clock, metrics_server)


def _feed_options(given: dict[str, Any], redis_url: str | None) -> FeedOptions:
    """Return where windows come from: what was named, else Redis, else the mock market."""
    speed = given["speed"]
    if speed is not None and not 0 < speed < float("inf"):
        raise BadInput(f"--speed: expected more than 0, was {speed}")
    return FeedOptions(
        source=given["feed"] or (MOCK_FEED if redis_url is None else "redis:"),
        speed=speed,
        kpi_key=given["kpi_key"],
        allow_untimed=given["allow_untimed"],
        lateness_ms=seconds_ms_of("--lateness", given["lateness"]) or 0,
        kpi_max_age_ms=seconds_ms_of("--kpi-max-age", given["kpi_max_age"]),
        lookback_windows=given["lookback_windows"],
        derive_anomaly=given["derive_anomaly"],
    )


def _default_ledger(is_fresh: bool) -> str:
    return MOCK_LEDGER if is_fresh else DEFAULT_LEDGER


def _metrics_options(given: dict[str, Any]) -> MetricsOptions | None:
    port = given["metrics_port"]
    return None if port is None else MetricsOptions(port, given["metrics_address"])


def _history_folder(
    given: dict[str, Any], location: LedgerLocation, *, is_fresh: bool
) -> Path | None:
    """Return where the history is kept, None if none is."""
    folder: Path | None = given["history"]
    if folder is not None and given["no_history"]:
        raise BadInput("--history and --no-history exclude each other")
    if folder is not None and is_fresh:
        raise BadInput(
            "--history: the mock feed's ledger is made anew each time; name one with --ledger"
        )
    if given["no_history"] or is_fresh:
        return None
    return folder or default_folder(location.path)


def _redis_options(given: dict[str, Any], url: str) -> RedisOptions:
    return RedisOptions(
        url=url,
        ttl_sec=given["ttl"],
        dead_man=given["dead_man"],
        freeze_on_exit=given["on_exit"] == "freeze",
        adopt=given["adopt"],
    )
