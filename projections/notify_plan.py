"""
What is told, and when: a pure function of the stream's records.

An episode begins when the state leaves ACTIVE and ends when it is ACTIVE again; what leaves it
again within the debounce goes on with it. A turn for the worse is told at once, if it is worse than
what was told last or wasn't told within the debounce. A turn for the better is told when it has
held for the debounce, so that what was told last is never better than the truth. All by the
ledger's own time. Source: DECISIONS.md 57.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from domain.events import (
    CauseKind,
    ClockFault,
    ExternalWriteDetected,
    GapObserved,
    KpiObserved,
    OverrideApplied,
    OverrideEnded,
    RunStopped,
    StateTransitioned,
    TradedWhileFrozen,
    TradingState,
)
from domain.state import State
from projections import notify_text as text
from projections.notify_memory import Episode, FrozenSymbol, Happening, Memory, Told
from projections.notify_messages import Kind, Message, Settings, Severity

HELD_BACK_MAX = 1_000
"""How many kinds of what repeats itself are remembered: keys and symbols are a few dozen."""

Planned = tuple[Memory, list[Message]]


def plan(memory: Memory, happening: Happening, settings: Settings) -> Planned:
    """Return what is remembered after a happening, and what is told of it, in order."""
    return _Planning(memory, happening, settings).plan()


def time_of(happening: Happening) -> int:  # noqa: PLR0911 - one return a case
    """Return when a happening takes effect, by the ledger's time."""
    transition = happening.transition
    if transition is not None:
        return transition.since_ms
    event = happening.head
    match event:
        case KpiObserved() | GapObserved():
            return event.end_ms
        case ClockFault():
            return event.last_window + happening.after.interval_ms
        case OverrideApplied():
            return event.override.applied_at_ms
        case OverrideEnded() | ExternalWriteDetected() | RunStopped():
            return event.at_ms
        case TradedWhileFrozen():
            return event.filled_at_ms
        case _:
            return happening.after.since_ms or 0


class _Planning:
    """One happening being planned: the memory as far as it has come, and the messages so far."""

    def __init__(self, memory: Memory, happening: Happening, settings: Settings) -> None:
        self._memory = memory
        self._happening = happening
        self._settings = settings
        self._now_ms = time_of(happening)
        self._messages: list[Message] = []

    def plan(self) -> Planned:
        transition = self._happening.transition
        if transition is not None:
            self._enter(transition)
        self._tell_notices()
        if self._after.trading_state is not TradingState.FROZEN:
            self._tell_symbols()
        self._tell_improvement(transition)
        return self._memory, self._messages

    @property
    def _after(self) -> State:
        return self._happening.after

    def _enter(self, transition: StateTransitioned) -> None:
        """Take a transition into its episode, and tell a turn for the worse."""
        episode = self._memory.episode
        if transition.previous is TradingState.ACTIVE:
            episode = self._begun(episode)
        if episode is None:
            return
        if transition.state is TradingState.ACTIVE:
            self._memory = replace(self._memory, episode=replace(episode, ended_ms=self._now_ms))
            return
        episode = replace(episode, ended_ms=None)
        if transition.state.is_worse_than(transition.previous):
            episode = self._tell_worse(episode, transition)
        self._memory = replace(self._memory, episode=episode)

    def _begun(self, last: Episode | None) -> Episode:
        is_over = last is None or last.ended_ms is None or self._has_passed(last.ended_ms)
        if last is None or (is_over and last.told is TradingState.ACTIVE):
            return Episode(id=self._new_id(), began_ms=self._now_ms)
        return replace(last, times=last.times + 1)

    def _tell_worse(self, episode: Episode, transition: StateTransitioned) -> Episode:
        state = transition.state
        severity = Severity.CRIT if state is TradingState.FROZEN else Severity.WARN
        is_news = state.is_worse_than(episode.told) or (
            state is episode.told and self._has_passed(episode.told_ms[state])
        )
        if not is_news or not self._settings.level.admits(severity):
            return episode
        is_start = transition.previous is TradingState.ACTIVE
        told = text.step_told(self._happening, transition, episode, self._settings)
        kind = Kind.START if is_start else Kind.ESCALATION
        self._add(kind, severity, episode.id, told)
        return replace(episode, told=state, told_ms={**episode.told_ms, state: self._now_ms})

    def _tell_improvement(self, transition: StateTransitioned | None) -> None:
        """Tell that it is better than what was told last, once that has held long enough."""
        episode, state = self._memory.episode, self._after
        if episode is None or not episode.told.is_worse_than(state.trading_state):
            return
        held = self._has_passed(state.since_ms or 0)
        by_hand = transition is not None and transition.cause is CauseKind.OVERRIDE
        is_end = isinstance(self._happening.head, RunStopped)  # Nobody will be there to tell it.
        if not (held or by_hand or is_end):
            return
        if state.trading_state is TradingState.ACTIVE:
            told = text.recovery_told(self._happening, episode, self._settings)
            self._add(Kind.RECOVERY, Severity.INFO, episode.id, told)
        else:
            told = text.probation_told(self._happening, self._settings)
            self._add(Kind.PARTIAL_RECOVERY, Severity.INFO, episode.id, told)
        self._memory = replace(self._memory, episode=replace(episode, told=state.trading_state))

    def _tell_symbols(self) -> None:
        """Tell which symbols are frozen on their own, and which are no longer."""
        state, known = self._after, dict(self._memory.symbols)
        frozen = {
            each.symbol for each in state.symbols[: state.symbols_within_limit] if each.frozen
        }
        due = [name for name in state.symbol_names if name in frozen and self._is_due(name)]
        for name, symbol in self._memory.symbols.items():
            if name not in state.symbol_names:
                del known[name]
            elif name in frozen:
                known[name] = replace(symbol, recovered_ms=None)
            elif symbol.recovered_ms is None:
                known[name] = replace(symbol, recovered_ms=self._now_ms)
        if due and self._settings.level.admits(Severity.WARN):
            before = (known[name].episode for name in due if name in known)
            episode = next(filter(None, before), self._new_id())
            told_now = FrozenSymbol(episode=episode, told_ms=self._now_ms)
            known |= dict.fromkeys(due, told_now)
            if not self._is_told_by_override():
                told = text.symbols_frozen_told(self._happening, due, self._settings)
                self._add(Kind.SYMBOLS_FROZEN, Severity.WARN, episode, told)
        well = [name for name, symbol in known.items() if self._is_well(symbol)]
        to_tell = [name for name in well if known[name].episode]
        if to_tell and not self._is_told_by_override():
            told = text.symbols_recovered_told(self._happening, to_tell, self._settings)
            self._add(Kind.SYMBOLS_RECOVERED, Severity.INFO, known[to_tell[0]].episode, told)
        known = {name: symbol for name, symbol in known.items() if name not in well}
        self._memory = replace(self._memory, symbols=known)

    def _is_due(self, name: str) -> bool:
        """Return whether a frozen symbol wasn't told as one, or only long ago, before it traded."""
        known = self._memory.symbols.get(name)
        if known is None:
            return True
        return known.recovered_ms is not None and self._has_passed(known.told_ms)

    def _is_well(self, symbol: FrozenSymbol) -> bool:
        if symbol.recovered_ms is None:
            return False
        is_told_now = isinstance(self._happening.head, RunStopped | OverrideApplied)
        return is_told_now or self._has_passed(symbol.recovered_ms)

    def _is_told_by_override(self) -> bool:
        """Return whether a message of this happening names an override's symbol."""
        return any(each.kind is Kind.OVERRIDE_APPLIED for each in self._messages)

    def _tell_notices(self) -> None:
        """Tell what is no step of an episode."""
        head, events = self._happening.head, [each.event for each in self._happening.records]
        match head:
            case ClockFault() if self._happening.transition is None:
                told = text.clock_told(self._happening, head, self._settings)
                self._repeat(Kind.CLOCK_FAULT, Severity.CRIT, ["clock"], told)
            case TradedWhileFrozen():
                fills = [each for each in events if isinstance(each, TradedWhileFrozen)]
                told = text.traded_told(self._happening, fills, self._settings)
                keys = [f"traded:{fill.symbol}" for fill in fills]
                self._repeat(Kind.TRADED_WHILE_FROZEN, Severity.CRIT, keys, told)
            case ExternalWriteDetected():
                writes = [each for each in events if isinstance(each, ExternalWriteDetected)]
                told = text.write_told(self._happening, writes, self._settings)
                keys = [f"written:{write.key}" for write in writes]
                self._repeat(Kind.EXTERNAL_WRITE, Severity.CRIT, keys, told)
            case OverrideApplied() | OverrideEnded() if self._changes_trading():
                self._tell_overrides()
            case _:
                pass

    def _changes_trading(self) -> bool:
        """Return whether overrides change what may be traded, and no step tells it."""
        before, after = self._happening.before, self._happening.after
        if self._happening.transition is not None:
            return False
        return before.effective_throttles() != after.effective_throttles()

    def _tell_overrides(self) -> None:
        is_applied = isinstance(self._happening.head, OverrideApplied)
        kind = Kind.OVERRIDE_APPLIED if is_applied else Kind.OVERRIDE_ENDED
        if self._settings.level.admits(Severity.WARN):
            told = text.overrides_told(self._happening, self._settings)
            self._add(kind, Severity.WARN, self._new_id(), told)

    def _repeat(self, kind: Kind, severity: Severity, keys: Sequence[str], told: text.Told) -> None:
        """Tell what may come over and over, unless all of it was told within the debounce."""
        if not self._settings.level.admits(severity):
            return
        known = dict(self._memory.told)
        fresh = [key for key in keys if key not in known or self._has_passed(known[key].told_ms)]
        if not fresh:
            for key in keys:
                known[key] = replace(known[key], held_back=known[key].held_back + 1)
            self._memory = replace(self._memory, told=known)
            return
        held_back = sum(known[key].held_back for key in set(keys) if key in known)
        episode = next((known[key].episode for key in keys if key in known), self._new_id())
        self._add(kind, severity, episode, text.with_held_back(told, held_back))
        known |= {key: Told(episode=episode, told_ms=self._now_ms) for key in keys}
        oldest = sorted(known, key=lambda key: known[key].told_ms)[:-HELD_BACK_MAX]
        self._memory = replace(
            self._memory, told={key: each for key, each in known.items() if key not in oldest}
        )

    def _has_passed(self, since_ms: int) -> bool:
        """Return whether the debounce is over; a time that lies ahead holds nothing back."""
        return not 0 <= self._now_ms - since_ms < self._settings.debounce_ms

    def _new_id(self) -> str:
        return f"{self._settings.stream}#{self._happening.version}"

    def _add(self, kind: Kind, severity: Severity, episode: str, told: text.Told) -> None:
        version = self._happening.version
        self._messages.append(
            Message(
                id=f"{version}-{kind}",
                version=version,
                kind=kind,
                severity=severity,
                episode=episode,
                at_ms=self._now_ms,
                decided_at_ms=self._happening.records[0].decided_at_ms,
                title=text.title(severity, self._settings.stream, told),
                body=text.body(told, episode),
            )
        )
