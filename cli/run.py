"""
`live run`: decide windows as a feed delivers them.

Source: LIVE_MODE_GUIDE.md, Quick Start; DESIGN.md section 4.
"""

import contextlib
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final
from urllib.parse import urlsplit

import click
import msgspec

from cli.account import tell_cause
from cli.clock import SystemClock, window_at
from cli.options import (
    DEFAULT_ENV,
    DEFAULT_EXCHANGE,
    DEFAULT_LEDGER,
    MOCK_LEDGER,
    artifacts_option,
    ledger_option,
    live_option,
)
from cli.runner import Outcome, Runner
from cli.session import Session
from cli.setup import PROD, adoption, check_feed_allowed, resolve_limits, start_run
from cli.texts import interval_ms_of, split_symbols
from domain.errors import BadInput
from domain.events import KpiObserved
from domain.state import State
from domain.windows import WindowReadings
from feeds.base import LiveFeed, SeriesFeed
from ledger.application import Ledger, StreamState
from ledger.location import LedgerLocation, parse_location
from ledger.sqlite import remove_ledger
from ledger.streams import StreamKey, stream_key
from projections.files import prepare_folder

DEFAULT_SYMBOLS: Final = ("BTCUSDT",)
DEFAULT_INTERVAL_MS: Final = 60_000
MOCK_FEED: Final = "mock://healthy"


class RunOptions(msgspec.Struct, frozen=True):
    """What `live run` was told, checked as far as can be without a ledger."""

    key: StreamKey
    feed: str
    location: LedgerLocation
    is_fresh: bool
    artifacts: Path
    symbols: tuple[str, ...] | None
    interval_ms: int | None
    iterations: int | None
    profile: str | None
    policy: Path | None
    speed: float | None
    adopt_policy: bool
    quiet: bool


@click.command()
@live_option(
    "--symbols",
    metavar="A,B,...",
    help="Symbols, in order. [default: as in the ledger, else those of a file feed, else BTCUSDT]",
)
@live_option("--ramp-profile", metavar="A|B|C", help="Limits. [default: as in the ledger, else A]")
@live_option("--redis-url", metavar="URL", help="Redis to read KPIs from and publish to.")
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
    type=click.IntRange(min=1),
    default=3600,
    show_default=True,
    help="Lifetime of the Redis keys, in seconds.",
)
@live_option("--dry-run", is_flag=True, help="Decide and record, publish and notify nothing.")
@live_option(
    "--feed",
    metavar="SOURCE",
    help="mock://SCENARIO?seed=N or file:PATH (Parquet, CSV, JSONL). [default: mock]",
)
@ledger_option(
    f"The ledger: a path or sqlite:///PATH. [default: {DEFAULT_LEDGER}; for a mock feed "
    f"{MOCK_LEDGER}, made anew each time]"
)
@artifacts_option()
@live_option(
    "--policy",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Thresholds and hysteresis as JSON. [default: as in the ledger]",
)
@live_option("--adopt-policy", is_flag=True, help="Agree to a change that loosens, in prod.")
@live_option("--speed", type=float, help="Play a file feed at this multiple of its own pace.")
@live_option("--quiet", is_flag=True, help="Don't tell what happened window by window.")
def run(
    symbols: str | None,
    ramp_profile: str | None,
    redis_url: str | None,
    env: str,
    exchange: str,
    iterations: int | None,
    interval_sec: float | None,
    ttl: int,
    dry_run: bool,
    feed: str | None,
    ledger: str | None,
    artifacts: Path,
    policy: Path | None,
    adopt_policy: bool,
    speed: float | None,
    quiet: bool,
) -> None:
    """
    Decide windows as a feed delivers them, and record every decision.

    Each window: KPIs in, events into the ledger, LIVE_* artifacts out. A restart continues from
    the ledger; running the same file again changes nothing. Exit codes: 0 fine, 2 bad usage or
    input, 4 another runner writes to the stream, 5 the ledger is damaged or can't be written.
    """
    del ttl  # Only Redis keys have a lifetime.
    if redis_url is not None:
        raise BadInput("--redis-url: Redis is not wired yet; use --feed mock://... or file:PATH")
    if speed is not None and not 0 < speed < float("inf"):
        raise BadInput(f"--speed: expected more than 0, was {speed}")
    source = feed or MOCK_FEED
    is_fresh = ledger is None and _scheme(source) == "mock"
    options = RunOptions(
        key=stream_key(env, exchange, dry_run=dry_run),
        feed=source,
        location=parse_location(ledger or (MOCK_LEDGER if is_fresh else DEFAULT_LEDGER)),
        is_fresh=is_fresh,
        artifacts=artifacts,
        symbols=None if symbols is None else split_symbols(symbols),
        interval_ms=None if interval_sec is None else interval_ms_of(interval_sec),
        iterations=iterations,
        profile=ramp_profile,
        policy=policy,
        speed=speed,
        adopt_policy=adopt_policy,
        quiet=quiet,
    )
    check_feed_allowed(env, _scheme(source))
    _run(options, SystemClock())


def _run(options: RunOptions, clock: SystemClock) -> None:
    """Open what the run needs, run it, and say what it came to."""
    prepare_folder(options.artifacts)
    prepare_folder(options.location.path.parent, option="--ledger")
    if options.is_fresh:
        remove_ledger(options.location.path)
    with Ledger.open(options.location) as ledger:
        stream = ledger.stream(str(options.key))
        series = _open_series(options, stream.state)
        symbols = _symbols(options, stream.state, series)
        interval_ms = _interval(options, stream.state, series)
        live = None if series else _open_mock(options, ledger, stream, symbols, interval_ms, clock)
        feed: SeriesFeed | LiveFeed | None = series or live
        assert feed is not None
        limits = resolve_limits(
            stream.state,
            symbols,
            env=options.key.env,
            profile_name=options.profile,
            policy_file=options.policy,
        )
        for warning in (*limits.warnings, *(series.warnings if series else ())):
            click.secho(f"WARNING: {warning}", err=True, fg="yellow")
        start = start_run(
            options.key,
            stream.state,
            interval_ms=interval_ms,
            feed=feed.description,
            feed_kind=feed.kind,
            now_ms=clock.now_ms(),
        )
        may_loosen = options.key.env != PROD or options.adopt_policy
        adopt = adoption(limits, symbols, allow_loosening=may_loosen)
        session = Session(ledger, stream, start, adopt)
        say = _mute if options.quiet else click.echo
        runner = Runner(session, ledger, options.artifacts, clock, say)
        with _stopped_by_signals(clock):
            outcome = _drive(runner, options, series, live, interval_ms, clock)
        _say_outcome(outcome, options, session.stream.state)


def _drive(
    runner: Runner,
    options: RunOptions,
    series: SeriesFeed | None,
    live: LiveFeed | None,
    interval_ms: int,
    clock: SystemClock,
) -> Outcome:
    if series is not None:
        click.echo(f"interval {interval_ms / 1000:g} s, {series.window_count} windows", err=True)
        total = min(options.iterations or series.window_count, series.window_count)
        with _progress(series.windows(), total) as windows:
            return runner.run_series(
                windows,
                iterations=options.iterations or 0,
                speed=options.speed,
                interval_ms=interval_ms,
            )
    assert live is not None
    iterations = 1 if options.iterations is None else options.iterations
    if options.is_fresh and iterations:
        # The mock market is as ready to tell its past as its present: nobody waits for it.
        first = window_at(clock.now_ms(), interval_ms) - iterations * interval_ms
        past = _past_windows(live, first, iterations, interval_ms)
        with _progress(past, iterations) as windows:
            return runner.run_series(windows, iterations=0, speed=None, interval_ms=interval_ms)
    return runner.run_live(live, iterations=iterations, interval_ms=interval_ms)


def _open_series(options: RunOptions, state: State) -> SeriesFeed | None:
    """Return the file feed, checked to its end; None for another feed."""
    scheme, _, path = options.feed.partition(":")
    if scheme == "mock":
        if options.speed is not None:
            raise BadInput("--speed: only a file feed can be played at another pace")
        return None
    if scheme != "file" or not path:
        raise BadInput(
            f"--feed: expected mock://SCENARIO?seed=N or file:PATH, was {scheme}:..."
            if path
            else f"--feed: expected mock://SCENARIO?seed=N or file:PATH, was {options.feed!r}"
        )
    from feeds.kpi_file import open_kpi_file  # noqa: PLC0415

    symbols = options.symbols or state.symbol_names or None
    return open_kpi_file(
        Path(path.removeprefix("//")), symbols=symbols, interval_ms=options.interval_ms
    )


def _open_mock(
    options: RunOptions,
    ledger: Ledger,
    stream: StreamState,
    symbols: tuple[str, ...],
    interval_ms: int,
    clock: SystemClock,
) -> LiveFeed:
    """Return the mock feed; its scenario begins with the stream's first window."""
    from feeds.mock import MockFeed  # noqa: PLC0415

    first = window_at(clock.now_ms(), interval_ms)
    if options.is_fresh:
        first -= (1 if options.iterations is None else options.iterations) * interval_ms
    for record in ledger.records(stream.id):
        if isinstance(record.event, KpiObserved):
            first = record.event.window
            break
    return MockFeed(options.feed, symbols, interval_ms=interval_ms, origin_ms=first)


def _symbols(options: RunOptions, state: State, series: SeriesFeed | None) -> tuple[str, ...]:
    if options.symbols is not None:
        return options.symbols
    if state.symbols:
        return state.symbol_names
    return DEFAULT_SYMBOLS if series is None else series.symbols


def _interval(options: RunOptions, state: State, series: SeriesFeed | None) -> int:
    if series is not None:
        return series.interval_ms
    return options.interval_ms or state.interval_ms or DEFAULT_INTERVAL_MS


def _past_windows(
    feed: LiveFeed, first: int, windows: int, interval_ms: int
) -> Iterator[WindowReadings]:
    for index in range(windows):
        start_ms = first + index * interval_ms
        yield feed.collect(start_ms, start_ms + interval_ms)


@contextlib.contextmanager
def _progress(windows: Iterable[WindowReadings], total: int) -> Iterator[Iterable[WindowReadings]]:
    """Give the windows, behind a progress bar where stderr is a terminal and stdout isn't."""
    if not sys.stderr.isatty() or sys.stdout.isatty() or total < 2:
        yield windows
        return
    with click.progressbar(windows, length=total, label="Deciding", file=sys.stderr) as bar:
        yield bar


@contextlib.contextmanager
def _stopped_by_signals(clock: SystemClock) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the run after the window under way, and a second one at once."""

    def stop(number: int, _frame: FrameType | None) -> None:
        if clock.stop.is_set():
            raise KeyboardInterrupt
        clock.stop.set()
        click.echo(f"{signal.Signals(number).name}: stopping after this window", err=True)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say_outcome(outcome: Outcome, options: RunOptions, state: State) -> None:
    known = outcome.windows - outcome.decided
    ended = "stopped" if outcome.stopped else "done"
    click.echo(
        f"{ended}: {outcome.decided} windows decided"
        + (f", {known} were in the ledger already or late" if known else "")
        + f"; {options.key} is {state.trading_state}"
        + (f" ({tell_cause(state.reasons, state.triggered_by)})" if state.reasons else ""),
        err=True,
    )
    click.echo(f"ledger {options.location}, artifacts {options.artifacts}", err=True)


def _scheme(source: str) -> str:
    return urlsplit(source).scheme


def _mute(_line: str) -> None:
    """Say nothing."""
