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

import click

from cli.account import tell_cause
from cli.attendant import Attendant
from cli.clock import SystemClock
from cli.feeding import check_source, open_live, open_series, past_windows
from cli.options import (
    DEFAULT_ENV,
    DEFAULT_EXCHANGE,
    DEFAULT_LEDGER,
    MOCK_LEDGER,
    artifacts_option,
    ledger_option,
    live_option,
)
from cli.outputs import NoPublisher, Outputs
from cli.run_options import FeedOptions, RunOptions
from cli.runner import Outcome, Runner
from cli.session import Session
from cli.setup import PROD, adoption, resolve_limits, start_run
from cli.texts import interval_ms_of, split_symbols
from domain.errors import BadInput
from domain.state import State
from domain.windows import WindowReadings
from feeds.base import LiveFeed, SeriesFeed
from ledger.application import Ledger
from ledger.inbox import Inbox
from ledger.location import parse_location
from ledger.lock import StreamLock
from ledger.sqlite import remove_ledger
from ledger.streams import stream_key
from projections.files import prepare_folder

DEFAULT_SYMBOLS: Final = ("BTCUSDT",)
DEFAULT_INTERVAL_MS: Final = 60_000
MOCK_FEED: Final = "mock://healthy"

_CLEAR_LINE: Final = "\r\x1b[K"


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
    source = FeedOptions(source=feed or MOCK_FEED, speed=speed)
    key = stream_key(env, exchange, dry_run=dry_run)
    check_source(source, env=env)
    is_fresh = ledger is None and source.scheme == "mock"
    options = RunOptions(
        key=key,
        feed=source,
        redis=None,
        location=parse_location(ledger or (MOCK_LEDGER if is_fresh else DEFAULT_LEDGER)),
        is_fresh=is_fresh,
        artifacts=artifacts,
        symbols=None if symbols is None else split_symbols(symbols),
        interval_ms=None if interval_sec is None else interval_ms_of(interval_sec),
        iterations=1 if iterations is None and source.scheme == "mock" else iterations,
        profile=ramp_profile,
        policy=policy,
        adopt_policy=adopt_policy,
        quiet=quiet,
    )
    prepare_folder(options.artifacts)
    prepare_folder(options.location.path.parent, option="--ledger")
    clock = SystemClock()
    with StreamLock(options.location, str(options.key), now_ms=clock.now_ms()):
        if options.is_fresh:
            remove_ledger(options.location.path)
        with Ledger.open(options.location) as opened:
            _run(options, opened, clock)


def _run(options: RunOptions, ledger: Ledger, clock: SystemClock) -> None:
    """Put the run together, drive it, and say what it came to."""
    stream = ledger.stream(str(options.key))
    series = open_series(options, stream.state)
    symbols = _symbols(options, stream.state, series)
    interval_ms = _interval_ms(options, stream.state, series)
    live: LiveFeed | None = None
    if series is None:
        live = open_live(options, ledger, stream, symbols, interval_ms, clock.now_ms())
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
    session = Session(ledger, stream, start, adoption(limits, symbols, allow_loosening=may_loosen))
    say = _mute if options.quiet else _say
    outputs = Outputs(ledger, options.artifacts, NoPublisher())
    attendant = Attendant(session, ledger, Inbox(options.location, stream.id))
    runner = Runner(session, outputs, attendant, clock, say)
    with _stopped_by_signals(clock):
        if series is not None:
            outcome = _drive_series(runner, options, series)
        else:
            assert live is not None
            outcome = _drive_live(runner, options, live, interval_ms, clock)
    _say_outcome(outcome, options, session.stream.state)


def _drive_series(runner: Runner, options: RunOptions, series: SeriesFeed) -> Outcome:
    seconds, count = series.interval_ms / 1000, series.window_count
    click.echo(f"interval {seconds:g} s, {count} windows", err=True)
    iterations = options.iterations or 0
    with _progress(series.windows(), min(iterations or count, count)) as windows:
        return runner.run_series(
            windows,
            iterations=iterations,
            speed=options.feed.speed,
            interval_ms=series.interval_ms,
        )


def _drive_live(
    runner: Runner, options: RunOptions, live: LiveFeed, interval_ms: int, clock: SystemClock
) -> Outcome:
    iterations = options.iterations or 0
    if not (options.is_fresh and iterations):
        return runner.run_live(live, iterations=iterations, interval_ms=interval_ms)
    past = past_windows(live, now_ms=clock.now_ms(), windows=iterations, interval_ms=interval_ms)
    with _progress(past, iterations) as windows:
        return runner.run_series(windows, iterations=0, speed=None, interval_ms=interval_ms)


def _symbols(options: RunOptions, state: State, series: SeriesFeed | None) -> tuple[str, ...]:
    if options.symbols is not None:
        return options.symbols
    if state.symbols:
        return state.symbol_names
    return DEFAULT_SYMBOLS if series is None else series.symbols


def _interval_ms(options: RunOptions, state: State, series: SeriesFeed | None) -> int:
    if series is not None:
        return series.interval_ms
    return options.interval_ms or state.interval_ms or DEFAULT_INTERVAL_MS


@contextlib.contextmanager
def _progress(windows: Iterable[WindowReadings], total: int) -> Iterator[Iterable[WindowReadings]]:
    """Give the windows, behind a progress bar where there is a terminal to show it."""
    if not sys.stderr.isatty() or total < 2:
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


def _say(line: str) -> None:
    """Print a line; a progress bar that stands there makes room and comes back after it."""
    if sys.stderr.isatty():
        click.echo(_CLEAR_LINE, err=True, nl=False)
    click.echo(line)


def _mute(_line: str) -> None:
    """Say nothing."""
