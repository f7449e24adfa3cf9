"""
A run, put together from its options and driven to its end.

Source: DESIGN.md section 1, Starting, and failing closed; section 4, `live run`.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import click
from msgspec.structs import replace

from cli.attendant import Attendant
from cli.clock import SystemClock
from cli.feeding import check_mock, open_live, open_series, past_windows
from cli.metering import HISTORY, Meter, open_meter, serve
from cli.notify_options import check_notify
from cli.options import fold_stream
from cli.outputs import Outputs
from cli.run_options import RunOptions
from cli.runner import Outcome, Runner
from cli.service import service_manager
from cli.session import Session
from cli.setup import PROD, adoption, resolve_limits, start_run
from cli.shadowing import open_shadows, shadow_policies
from cli.texts import tell, warn
from domain.commands import AdoptPolicy
from domain.errors import BadInput
from domain.policy import Policy
from domain.state import State
from domain.windows import WindowReadings
from feeds.base import LiveFeed, SeriesFeed
from ledger.application import Ledger, StreamState
from ledger.inbox import Inbox
from ledger.lock import StreamLock
from ledger.streams import StreamKey
from projections.notify_messages import Level
from projections.wording import cause_words

if TYPE_CHECKING:
    from cli.history import HistoryFollower
    from cli.notifying import Notifier
    from cli.publishing import LedgerPublisher
    from projections.metrics_server import MetricsServer
    from redis_link.client import BoundedRedis

DEFAULT_SYMBOLS: Final = ("BTCUSDT",)
DEFAULT_INTERVAL_MS: Final = 60_000

_CLEAR_LINE: Final = "\r\x1b[K"
_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def check_options(options: RunOptions) -> None:
    """
    Refuse what can be told wrong without a ledger, before anything is made or removed.

    Raises:
        BadInput: naming the option, the file or the key.
    """
    if options.feed.scheme == "mock":
        check_mock(options.feed.source)
    check_notify(options.notify, options.key.env)
    resolve_limits(
        State(),
        options.symbols or DEFAULT_SYMBOLS,
        env=options.key.env,
        profile_name=options.profile,
        policy_file=options.policy,
    )
    _shadow_policies(options, State(), options.symbols or DEFAULT_SYMBOLS)
    path = options.location.path
    if path.exists() and not (path.is_file() and path.stat().st_nlink == 1):
        raise BadInput(f"--ledger: expected a regular file with one name, was {path}")


def execute(
    options: RunOptions,
    ledger: Ledger,
    lock: StreamLock,
    clock: SystemClock,
    metrics_server: "MetricsServer | None" = None,
) -> None:
    """Put the run together, drive it, and say what it came to."""
    stream = fold_stream(ledger, str(options.key))
    series = open_series(options, stream.state)
    symbols = _symbols(options, stream.state, series)
    interval_ms = _interval_ms(options, stream.state, series)
    limits = resolve_limits(
        stream.state,
        symbols,
        env=options.key.env,
        profile_name=options.profile,
        policy_file=options.policy,
    )
    for warning in (*limits.warnings, *(series.warnings if series else ())):
        warn(warning)
    may_loosen = options.key.env != PROD or options.adopt_policy
    adopt = adoption(limits, symbols, allow_loosening=may_loosen)
    with _stopped_by_signals(clock) as signals, contextlib.ExitStack() as closing:
        client = _open_redis(options)
        if client is not None:
            closing.callback(client.close)
        live: LiveFeed | None = None
        if series is None:
            live = open_live(options, ledger, stream, symbols, interval_ms, clock.now_ms(), client)
            closing.callback(live.close)
        feed: SeriesFeed | LiveFeed | None = series or live
        assert feed is not None
        publisher = _open_publisher(options, lock, client)
        if publisher is not None:
            closing.callback(publisher.leave)
        session = _begin(options, ledger, stream, feed, adopt, publisher, interval_ms, clock)
        notifier = _open_notifier(options, ledger, session.stream, clock)
        meter = open_meter(metrics_server, ledger, session, adopt, clock)
        if options.history is not None:
            closing.enter_context(
                _keeping_history(options, options.history, interval_ms, clock, meter)
            )
        say = _mute if options.quiet else _say
        shadows = open_shadows(
            ledger, stream, _shadow_policies(options, stream.state, symbols), adopt, warn
        )
        manager = service_manager(os.environ)
        closing.callback(manager.close)
        runner = Runner(
            session,
            Outputs(ledger, session, options.artifacts, publisher, notifier, meter),
            Attendant(session, ledger, Inbox(options.location, stream.id)),
            clock,
            say,
            meter,
            shadows,
            manager,
        )
        serve(metrics_server, meter)
        # It is called before the others: from here on a signal interrupts nothing any more.
        closing.callback(signals.ignore)
        if series is not None:
            outcome = _drive_series(runner, options, series)
        else:
            assert live is not None
            outcome = _drive_live(runner, options, live, interval_ms, clock)
    _say_outcome(outcome, options, session.stream.state)


def _shadow_policies(
    options: RunOptions, state: State, symbols: tuple[str, ...]
) -> dict[StreamKey, Policy]:
    """Return the shadows' policies, each read as the controller's own would be."""

    def read(path: Path) -> Policy:
        return resolve_limits(
            state,
            symbols,
            env=options.key.env,
            profile_name=options.profile,
            policy_file=path,
            named="--shadow",
        ).policy

    return shadow_policies(options.shadows, options.key, read)


def _open_redis(options: RunOptions) -> "BoundedRedis | None":
    """
    Return the one client of the run's feed and publication; None, and no import, if it has neither.

    That it is one is what bounds the time that a window spends on a server that doesn't answer.
    """
    publishes = not options.key.dry_run
    if options.redis is None or not (publishes or options.feed.scheme.startswith("redis")):
        return None
    from redis_link.budget import TIMEOUT_SEC, Budget  # noqa: PLC0415
    from redis_link.client import open_redis  # noqa: PLC0415

    # Two fifths each for feed and publication, and the rest for what operators ask in between.
    fifth_sec = TIMEOUT_SEC / 5
    budget = Budget(kept_sec=2 * fifth_sec, urgent_sec=fifth_sec) if publishes else Budget()
    return open_redis(options.redis.url, env=options.key.env, budget=budget)


def _open_publisher(
    options: RunOptions, lock: StreamLock, client: "BoundedRedis | None"
) -> "LedgerPublisher | None":
    """Return the publisher, None for a dry run or without Redis; only then is it imported."""
    if options.redis is None or options.key.dry_run:
        return None
    from cli.publishing import LedgerPublisher  # noqa: PLC0415

    assert client is not None
    return LedgerPublisher(client, options.redis, options.key, lock)


def _keeping_history(
    options: RunOptions, folder: Path, interval_ms: int, clock: SystemClock, meter: Meter
) -> "HistoryFollower":
    """Return what keeps the history while it is entered; only then is it imported."""
    from cli.history import HistoryFollower  # noqa: PLC0415

    meter.add_projection(HISTORY)
    return HistoryFollower(
        folder,
        options.location,
        str(options.key),
        interval_ms=interval_ms,
        now_ms=clock.now_ms,
        say=warn,
        kept=lambda version: meter.projected(HISTORY, version),
    )


def _open_notifier(
    options: RunOptions, ledger: Ledger, stream: StreamState, clock: SystemClock
) -> "Notifier | None":
    """Return the notifier, None where nobody is told; only then is it imported."""
    notify = options.notify
    if notify is None or notify.level is Level.OFF or options.key.dry_run:
        return None
    from cli.notifying import Notifier  # noqa: PLC0415
    from projections.notify_targets import open_targets  # noqa: PLC0415

    targets = open_targets(notify.urls, env=options.key.env)
    return Notifier(notify, ledger, stream, targets, clock.now_ms)


def _begin(
    options: RunOptions,
    ledger: Ledger,
    stream: StreamState,
    feed: SeriesFeed | LiveFeed,
    adopt: AdoptPolicy,
    publisher: "LedgerPublisher | None",
    interval_ms: int,
    clock: SystemClock,
) -> Session:
    """Return the session, checked against the ledger before anybody's lease is taken."""
    start = start_run(
        options.key,
        stream.state,
        interval_ms=interval_ms,
        feed=feed.description,
        feed_kind=feed.kind,
        lateness_ms=options.feed.lateness_ms,
        now_ms=clock.now_ms(),
    )
    session = Session(ledger, stream, start, adopt)
    if publisher is None:
        return session
    standing = publisher.take_over(
        stream.state, interval_ms=interval_ms, now_ms=start.started_at_ms
    )
    start = replace(start, published=standing.published, fencing_token=standing.fencing_token)
    return Session(ledger, stream, start, adopt)


def _drive_series(runner: Runner, options: RunOptions, series: SeriesFeed) -> Outcome:
    seconds, count = series.interval_ms / 1000, series.window_count
    tell(f"interval {seconds:g} s, {count} windows")
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


class _Signals:
    """
    Ends the run after the window under way, and with a second signal at once.

    Even then what is to stand in Redis is left there, which takes bounded time; a signal that
    comes during that is ignored.
    """

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self._are_ignored = False

    def ignore(self) -> None:
        """Let nothing more be interrupted."""
        self._are_ignored = True

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal."""
        if self._are_ignored:
            return
        if self._clock.stop.is_set():
            raise KeyboardInterrupt
        self._clock.stop.set()
        with contextlib.suppress(OSError):
            click.echo(f"{signal.Signals(number).name}: stopping after this window", err=True)


@contextlib.contextmanager
def _stopped_by_signals(clock: SystemClock) -> Iterator[_Signals]:
    """Let the signals of `_STOPPING` end the run, those left out that nohup or a shell ignores."""
    signals = _Signals(clock)
    heard = [number for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, signals.handle) for number in heard}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say_outcome(outcome: Outcome, options: RunOptions, state: State) -> None:
    known = outcome.windows - outcome.decided
    ended = "stopped" if outcome.stopped else "done"
    tell(
        f"{ended}: {outcome.decided} windows decided"
        + (f", {known} were in the ledger already or late" if known else "")
        + f"; {options.key} is {state.trading_state}"
        + (f" ({cause_words(state.reasons, state.triggered_by)})" if state.reasons else "")
    )
    kept = "" if options.history is None else f", history {options.history}"
    tell(f"ledger {options.location}, artifacts {options.artifacts}{kept}")


def _say(line: str) -> None:
    """Print a line; a progress bar that stands there makes room and comes back after it."""
    # Whoever stopped reading, or a full disk under a log, is no reason to stop watching the bot.
    with contextlib.suppress(OSError):
        if sys.stderr.isatty():
            click.echo(_CLEAR_LINE, err=True, nl=False)
        click.echo(line)


def _mute(_line: str) -> None:
    """Say nothing."""
