"""
What the core is told in a replay: the commands that windows, or recorded events, stand for.
"""

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from domain.commands import (
    AdoptPolicy,
    ApplyOverride,
    ClearOverride,
    Command,
    ObserveClock,
    ObserveWindow,
    PassWindows,
    StartRun,
)
from domain.events import (
    CauseKind,
    ClockFault,
    Event,
    GapObserved,
    KpiObserved,
    OverrideApplied,
    OverrideEnded,
    PolicyAdopted,
    RampProfile,
    RunStarted,
    StateTransitioned,
    TradingState,
)
from domain.policy import Policy
from domain.windows import WindowReadings


def commands_of_windows(
    windows: Iterable[WindowReadings],
    *,
    symbols: tuple[str, ...],
    interval_ms: int,
    policy: Policy,
    profile: RampProfile | None,
) -> Iterator[Command]:
    """Yield a run over the windows: its start, the policy, then each window after its gap."""
    yield start_of_replay(interval_ms)
    yield AdoptPolicy(window=0, policy=policy, symbols=symbols, profile=profile)
    for readings in windows:
        yield PassWindows(until=readings.start_ms)
        yield ObserveWindow(readings=readings)


def commands_of_events(
    events: Iterable[Event],
    *,
    policy: Policy | None,
    symbols: tuple[str, ...] | None,
    profile: RampProfile | None,
    keep_profile: bool = False,
) -> Iterator[Command]:
    """
    Yield what led to the recorded events, so that it can be decided again.

    Late windows changed nothing and what expired expires again, so neither is told.

    Args:
        events: of one stream, from its beginning.
        policy: decides instead of every recorded one.
        symbols: only these, in this order; None for the recorded ones.
        profile: the limits to apply; None for none, whatever was recorded.
        keep_profile: apply the recorded limits instead.
    """
    started: RunStarted | None = None
    for event in events:
        if started is not None:
            yield _start(started, event)
            started = None
        match event:
            case RunStarted():
                started = event
            case PolicyAdopted():
                yield AdoptPolicy(
                    window=0,
                    policy=event.policy if policy is None else policy,
                    symbols=event.symbols if symbols is None else symbols,
                    profile=event.profile if keep_profile else profile,
                )
            case _:
                command = command_of(event)
                if command is not None and _is_chosen(command, symbols):
                    yield command


def command_of(event: Event) -> Command | None:
    """
    Return what a recorded event was the answer to; None for what follows from another.

    A late window changed nothing, and what expired expires again with its window; a run and a
    policy are the caller's to tell.
    """
    match event:
        case GapObserved():
            return PassWindows(until=event.end_ms)
        case KpiObserved():
            arrived = {symbol.memory.symbol: symbol.readings for symbol in event.symbols}
            return ObserveWindow(readings=WindowReadings(event.window, arrived))
        case ClockFault():
            return ObserveClock(window=event.window)
        case OverrideApplied():
            return ApplyOverride(override=replace(event.override, ended_at_ms=None))
        case OverrideEnded() if event.ended_by != "expiry":
            return ClearOverride(id=event.id, at_ms=event.at_ms, actor=event.ended_by)
        case _:
            return None


def start_of_replay(interval_ms: int) -> StartRun:
    """Return the command that begins a run which is only a replay."""
    return StartRun(
        run_id="replay",
        ledger_id="replay",
        env="replay",
        exchange="replay",
        dry_run=True,
        interval_ms=interval_ms,
        feed="replay",
        feed_kind="file",
        code_version="",
        started_at_ms=0,
    )


def _start(started: RunStarted, following: Event) -> StartRun:
    """Return the command of a run, which may have begun in a worse state than ACTIVE."""
    published = TradingState.ACTIVE
    if isinstance(following, StateTransitioned) and following.cause is CauseKind.START:
        published = following.state
    return StartRun(
        run_id=started.run_id,
        ledger_id=started.ledger_id,
        env=started.env,
        exchange=started.exchange,
        dry_run=started.dry_run,
        interval_ms=started.interval_ms,
        feed=started.feed,
        feed_kind=started.feed_kind,
        code_version=started.code_version,
        started_at_ms=started.started_at_ms,
        published=published,
    )


def _is_chosen(command: Command, symbols: tuple[str, ...] | None) -> bool:
    """Return whether a command is for all symbols, or for one of those that are replayed."""
    if not isinstance(command, ApplyOverride) or symbols is None:
        return True
    return command.override.symbol is None or command.override.symbol in symbols
