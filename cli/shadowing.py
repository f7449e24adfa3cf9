"""
Shadows: candidate policies that decide the live windows beside the controller, and publish nothing.

A shadow follows its controller's stream as a projection does. It decides again, by its own policy,
what is in there, and appends that to a stream of its own. It does so between windows, after
the controller's decision is out, and one that fails is dropped: it is never a reason to stop
watching the bot. What a killed run didn't come to, the next one makes good.
Source: issue 6, Shadow policies; DECISIONS.md, Of replay.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from domain.commands import AdoptPolicy, ApplyOverride, ClearOverride, Command, StartRun
from domain.controller import decide, fold
from domain.errors import BadInput, CommandRefused, LiveError
from domain.events import Event, KpiObserved, TradingState
from domain.policy import Policy
from domain.state import State
from ledger.application import Ledger, StreamState
from ledger.codec import Record
from ledger.reading import last_version_up_to
from ledger.snapshots import is_in_later_block
from ledger.streams import StreamKey, shadow_key
from replay.commands import commands_of_events

RECORDS_AT_ONCE: Final = 200
"""How many of the controller's records a shadow decides before somebody else has a turn."""
RECORDS_AT_THE_END_MAX: Final = 10_000


class Shadow:
    """
    One candidate policy beside a controller.

    A new one begins with the controller's next window, in the state that the controller is in.

    Args:
        live: the controller's stream.
    """

    def __init__(self, ledger: Ledger, live: StreamState, key: StreamKey, policy: Policy) -> None:
        self.name = key.shadow
        self.stream = ledger.stream(str(key))
        self._ledger = ledger
        self._live_id = live.id
        self._policy = policy
        self._stored_version = self.stream.version
        state = self.stream.state
        self._published: TradingState | None = None
        if state.window is None:
            self._live_version = live.version
            self._symbols, self._profile = live.state.symbol_names, live.state.profile
            self._published = live.state.trading_state
        else:
            self._live_version = last_version_up_to(ledger, live.id, state.window)
            self._symbols, self._profile = state.symbol_names, state.profile

    def catch_up(self, limit: int) -> bool:
        """
        Decide some of what the controller's stream has grown by; return whether there is more.

        Raises:
            LiveError: if it can't be decided or appended.
        """
        page = self._ledger.page(self._live_id, after=self._live_version, limit=limit)
        is_full = len(page) == limit
        if is_full:
            page = _up_to_last_window(page)
        decided_at_ms = page[-1].decided_at_ms if page else None
        events = self._decide([record.event for record in page])
        self.stream = self._ledger.append(self.stream, events, decided_at_ms=decided_at_ms)
        if page:
            self._live_version = page[-1].version
        if is_in_later_block(self.stream.version, self._stored_version):
            self.store_snapshot()
        return is_full

    def store_snapshot(self) -> None:
        """Store the fold, if anything came."""
        if self.stream.version > self._stored_version:
            self._ledger.take_state_snapshot(self.stream)
            self._stored_version = self.stream.version

    def _decide(self, recorded: Sequence[Event]) -> list[Event]:
        state = self.stream.state
        decided: list[Event] = []
        for command in self._commands(recorded):
            try:
                events = decide(state.policy, state, command)
            except CommandRefused:
                # Under another policy there may be nothing to clear or to unfreeze.
                if not isinstance(command, ApplyOverride | ClearOverride):
                    raise
                continue
            state = fold(state, events)
            decided += events
        return decided

    def _commands(self, recorded: Sequence[Event]) -> Iterator[Command]:
        """Yield what the recorded events stand for, with the shadow's policy in each run."""
        last = self.stream.state.window
        new = [
            event
            for event in recorded
            if not isinstance(event, KpiObserved) or last is None or event.window > last
        ]
        for command in commands_of_events(
            new, policy=self._policy, symbols=None, profile=None, keep_profile=True
        ):
            if isinstance(command, AdoptPolicy):
                self._symbols, self._profile = command.symbols, command.profile
            if not isinstance(command, StartRun):
                yield command
                continue
            if self._published is None:
                yield command
            else:
                yield replace(command, published=self._published)
                self._published = None
            if self._symbols:
                yield AdoptPolicy(
                    window=0, policy=self._policy, symbols=self._symbols, profile=self._profile
                )


class Shadows:
    """
    All shadows of a run.

    Args:
        say: tells a line; a shadow that fails is told of once, and dropped.
    """

    def __init__(self, shadows: Sequence[Shadow], say: Callable[[str], None]) -> None:
        self._shadows = list(shadows)
        self._say = say

    def catch_up(self) -> None:
        """Let each shadow decide a bounded part of what there is to decide."""
        self._each(lambda shadow: shadow.catch_up(RECORDS_AT_ONCE))

    def finish(self) -> None:
        """Let each shadow come to the end, if that isn't too far, and store its fold."""
        for _ in range(RECORDS_AT_THE_END_MAX // RECORDS_AT_ONCE):
            if not self._each(lambda shadow: shadow.catch_up(RECORDS_AT_ONCE)):
                break
        self._each(Shadow.store_snapshot)

    def _each(self, do: Callable[[Shadow], bool | None]) -> bool:
        """Return whether any shadow has more to do."""
        has_more = False
        for shadow in tuple(self._shadows):
            try:
                has_more = bool(do(shadow)) or has_more
            except LiveError as error:
                self._shadows.remove(shadow)
                self._say(f"shadow {shadow.name} is dropped: {error}")
        return has_more


def _tell_nobody(_line: str) -> None:
    """Say nothing."""


NO_SHADOWS: Final = Shadows((), _tell_nobody)


def shadow_policies(
    files: Sequence[Path], key: StreamKey, read: Callable[[Path], Policy]
) -> dict[StreamKey, Policy]:
    """
    Return the shadows' policies, by the streams that they will have.

    Raises:
        BadInput: if a file is no policy, or its name no name, or there twice.
    """
    found: dict[StreamKey, Policy] = {}
    for path in files:
        shadow = shadow_key(key, path.stem.lower())
        if shadow in found:
            raise BadInput(f"--shadow: {shadow.shadow} is there twice; name each file otherwise")
        found[shadow] = read(path)
    return found


def open_shadows(
    ledger: Ledger,
    live: StreamState,
    policies: dict[StreamKey, Policy],
    adopted: AdoptPolicy,
    say: Callable[[str], None],
) -> Shadows:
    """
    Return a run's shadows.

    Args:
        adopted: what the controller adopts: its symbols and profile are the shadows' too.

    Raises:
        CommandRefused: if a policy can't be adopted for these symbols.
    """
    for key, policy in policies.items():
        try:
            decide(policy, State(), replace(adopted, policy=policy, allow_loosening=True))
        except CommandRefused as refusal:
            raise CommandRefused(f"--shadow {key.shadow}: {refusal}") from None
    return Shadows([Shadow(ledger, live, key, policy) for key, policy in policies.items()], say)


def _up_to_last_window(page: Sequence[Record]) -> list[Record]:
    """Return the records up to the last window, so that a batch never ends within one."""
    for end in range(len(page), 0, -1):
        if isinstance(page[end - 1].event, KpiObserved):
            return list(page[:end])
    return list(page)
