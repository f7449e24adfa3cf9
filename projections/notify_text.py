"""
The words of notifications: what happened and why, who is concerned, what comes next.

Everything is cut to a size that every service takes, symbols first: the cause, what comes next and
the runbook are always there.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from domain.events import (
    ClockFault,
    ExternalWriteDetected,
    KpiObserved,
    Override,
    OverrideApplied,
    OverrideEnded,
    OverrideKind,
    StateTransitioned,
    TradedWhileFrozen,
    TradingState,
)
from domain.mutators import clock_reason
from domain.state import State
from domain.windows import format_minute, format_time
from projections.notify_memory import Episode, Happening
from projections.notify_messages import (
    COOLDOWN_SECTION,
    FROZEN_SECTION,
    RUNBOOK,
    Kind,
    Settings,
    Severity,
)
from projections.views import effective_notional
from projections.wording import cause_words

TITLE_CHARS_MAX: Final = 160
BODY_CHARS_MAX: Final = 1_800
"""Discord takes 2,000, Telegram 4,096; what is added on delivery must fit too."""

SYMBOLS_SHOWN_MAX: Final = 10
NAMES_SHOWN_MAX: Final = 8
FOUND_CHARS_MAX: Final = 40


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """
    A message in parts.

    Attributes:
        headline: for the title.
        lines: what happened; never left out.
        details: a line each for those concerned; left out from the end where they are too many.
        closing: what comes next, and the runbook; never left out.
    """

    headline: str
    lines: tuple[str, ...]
    details: tuple[str, ...] = ()
    closing: tuple[str, ...] = ()


def title(severity: Severity, stream: str, told: Told) -> str:
    """Return the title: `[CRIT] prod:bybit FROZEN: BTCUSDT edge_bps=2.0 < 2.5`."""
    return _cut(f"[{severity}] {stream} {told.headline}", TITLE_CHARS_MAX)


def body(told: Told, episode: str) -> str:
    """Return the text, cut to `BODY_CHARS_MAX`, symbols first."""
    closing = (*told.closing, f"Episode: {episode}")
    room = BODY_CHARS_MAX - sum(len(line) + 1 for line in closing)
    lines = [_cut(line, room // (len(told.lines) + 1)) for line in told.lines]
    room -= sum(len(line) + 1 for line in lines)
    shown = list(told.details)
    while shown and sum(len(line) + 1 for line in shown) + 20 > room:
        shown.pop()
    left_out = len(told.details) - len(shown)
    more = [f"... and {left_out} more"] if left_out else []
    return "\n".join([*lines, *shown, *more, *closing])


def with_held_back(told: Told, count: int) -> Told:
    """Return the parts with how often the same happened since it was told last."""
    if not count:
        return told
    line = f"The same happened {count} more times since it was last told."
    return replace(told, lines=(*told.lines, line))


def step_told(
    happening: Happening, transition: StateTransitioned, episode: Episode, settings: Settings
) -> Told:
    """Return a turn for the worse: the start of an episode, or its escalation."""
    state, times = transition.state, episode.times
    again = f" again ({_ordinal(times)} time)" if state in episode.told_ms and times > 1 else ""
    often = [f"It began {times} times since {format_minute(episode.began_ms)}."]
    return Told(
        headline=f"{state}{again}: {_cause(transition)}",
        lines=(
            f"{transition.previous} -> {state}, throttle {transition.throttle:g}, "
            f"since {format_minute(transition.since_ms)}",
            f"Cause: {_cause(transition)}",
            *(often if times > 1 else ()),
        ),
        details=_symbols(happening),
        closing=(f"Next: {_next(happening.after)}", _runbook(settings, _section(state))),
    )


def probation_told(happening: Happening, settings: Settings) -> Told:
    """Return that FROZEN is over, and COOLDOWN is not."""
    state = happening.after
    cause = ", ".join(state.reasons)
    return Told(
        headline=f"COOLDOWN, no longer FROZEN: {cause}",
        lines=(
            f"FROZEN -> COOLDOWN, throttle {state.throttle:g}, "
            f"since {format_minute(state.since_ms or 0)}",
            f"Cause: {cause}",
        ),
        details=_symbols(happening),
        closing=(f"Next: {_next(state)}", _runbook(settings, COOLDOWN_SECTION)),
    )


def recovery_told(happening: Happening, episode: Episode, settings: Settings) -> Told:
    """Return that the state is ACTIVE again."""
    state = happening.after
    since_ms = state.since_ms or 0
    cause = ", ".join(state.reasons)
    often = f", {episode.times} times" if episode.times > 1 else ""
    return Told(
        headline=f"ACTIVE again: {cause}",
        lines=(
            f"{episode.told} -> ACTIVE, throttle {state.throttle:g}, "
            f"since {format_minute(since_ms)}",
            f"Cause: {cause}",
            f"It lasted {duration(since_ms - episode.began_ms)}{often}, "
            f"from {format_minute(episode.began_ms)}.",
        ),
        details=_symbols(happening),
        closing=(f"Next: {_next(state)}", _runbook(settings, _section(episode.told))),
    )


def symbols_frozen_told(happening: Happening, symbols: Sequence[str], settings: Settings) -> Told:
    """Return that symbols are frozen on their own, while the others trade."""
    state = happening.after
    required = state.policy.unfreeze_after_ok_windows
    done = max(memory.ok_windows for memory in state.symbols if memory.symbol in symbols)
    return Told(
        headline=f"{_names(symbols)} frozen, the state stays {state.trading_state}",
        lines=(f"Frozen on their own: {_names(symbols)}",),
        details=_symbols(happening, symbols),
        closing=(
            f"Next: for each on its own, {_way(state, required, done, 'lead back')}",
            _runbook(settings, RUNBOOK[Kind.SYMBOLS_FROZEN]),
        ),
    )


def symbols_recovered_told(
    happening: Happening, symbols: Sequence[str], settings: Settings
) -> Told:
    """Return that symbols are no longer frozen on their own."""
    return Told(
        headline=f"{_names(symbols)} no longer frozen",
        lines=(f"No longer frozen on their own: {_names(symbols)}",),
        details=_symbols(happening, symbols),
        closing=(_runbook(settings, RUNBOOK[Kind.SYMBOLS_RECOVERED]),),
    )


def overrides_told(happening: Happening, settings: Settings) -> Told:
    """Return overrides that came into force, or ended, and what may be traded then."""
    events = [record.event for record in happening.records]
    applied = [each.override for each in events if isinstance(each, OverrideApplied)]
    ended = [each for each in events if isinstance(each, OverrideEnded)]
    lines = [f"Override applied: {_override(each)}" for each in applied]
    known = {each.id: each for each in happening.before.overrides}
    for end in ended:
        override = known.get(end.id)
        what = end.id if override is None else _override(override)
        why = f": {_words(end.reason)}" if end.reason else ""
        lines.append(f"Override ended by {_words(end.ended_by)}{why}; it was: {what}")
    before, after = happening.before.effective_throttles(), happening.after.effective_throttles()
    changed = [symbol for symbol in after if before.get(symbol) != after[symbol]]
    kind = Kind.OVERRIDE_APPLIED if applied else Kind.OVERRIDE_ENDED
    return Told(
        headline=lines[0][0].lower() + lines[0][1:],
        lines=tuple(lines[:NAMES_SHOWN_MAX]),
        details=_symbols(happening, changed),
        closing=(_runbook(settings, RUNBOOK[kind]),),
    )


def traded_told(
    happening: Happening, fills: Sequence[TradedWhileFrozen], settings: Settings
) -> Told:
    """Return that the bot traded what it may not."""
    names = _names(list(dict.fromkeys(fill.symbol for fill in fills)))
    return Told(
        headline=f"{names} traded while frozen: the bot doesn't obey",
        lines=("Fills added risk while the published throttle was 0.0:",),
        details=tuple(
            f"{fill.symbol}: USD {fill.notional:.2f} at {format_time(fill.filled_at_ms)}, "
            f"frozen since {format_time(fill.frozen_since_ms)}"
            for fill in fills
        ),
        closing=(
            f"Next: stop the bot; the state is {happening.after.trading_state}.",
            _runbook(settings, RUNBOOK[Kind.TRADED_WHILE_FROZEN]),
        ),
    )


def write_told(
    happening: Happening, writes: Sequence[ExternalWriteDetected], settings: Settings
) -> Told:
    """Return that somebody else wrote our keys towards more trading."""
    names = _names([write.key for write in writes])
    return Told(
        headline=f"somebody else wrote {names}",
        lines=("Keys were written that only the runner may write:",),
        details=tuple(
            f"{write.key} was set to {_cut(ascii(write.found), FOUND_CHARS_MAX)} at "
            f"{format_time(write.at_ms)}; it is {write.expected} by the ledger"
            for write in writes
        ),
        closing=(
            f"Next: the ledger's value goes back; the state is {happening.after.trading_state}.",
            _runbook(settings, RUNBOOK[Kind.EXTERNAL_WRITE]),
        ),
    )


def clock_told(happening: Happening, fault: ClockFault, settings: Settings) -> Told:
    """Return that the clock is behind while nothing trades anyway."""
    return Told(
        headline=clock_reason(fault),
        lines=(
            f"The {clock_reason(fault)}; the state stays {happening.after.trading_state}, and no "
            "window can be decided.",
        ),
        closing=(
            f"Next: {_next(happening.after)}",
            _runbook(settings, RUNBOOK[Kind.CLOCK_FAULT]),
        ),
    )


def duration(length_ms: int) -> str:
    """Return a length of time in its largest units: `45 s`, `31 min`, `2 h 5 min`, `3 d 4 h`."""
    seconds = max(0, length_ms) // 1000
    if seconds < 120:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    if hours < 24:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


def _cause(transition: StateTransitioned) -> str:
    return _words(cause_words(transition.reasons, transition.triggered_by))


def _next(state: State) -> str:
    """Return what leads out of the present state, and when at the earliest."""
    required = state.ok_windows_required
    if required is None:
        frozen = [memory.symbol for memory in state.symbols if memory.frozen]
        return f"{_names(frozen)} still frozen alone." if frozen else "nothing is to be done."
    if state.clock_behind:
        return f"once the clock is right, {required} OK windows in a row lead back."
    to = "lead back" if state.trading_state is TradingState.FROZEN else "lead to ACTIVE"
    hold = _hold(state)
    if hold is not None and hold.expires_at_ms is None:
        return f"held until override {hold.id} is cleared; then {required} OK windows {to}."
    return _way(state, required, state.ok_windows, to)


def _way(state: State, required: int, done: int, to: str) -> str:
    """Return how many OK windows it takes, and the end of the last if all from now on are OK."""
    first_ms = state.next_window or state.since_ms or 0
    hold = _hold(state)
    if hold is not None and hold.expires_at_ms is not None:
        # A window that a freeze held in any part of doesn't count.
        beyond_ms = max(0, hold.expires_at_ms - first_ms)
        first_ms += -(-beyond_ms // state.interval_ms) * state.interval_ms
    ends_ms = first_ms + max(0, required - done) * state.interval_ms
    so_far = f" ({done} so far)" if done else ""
    return f"{required} OK windows in a row{so_far} {to}: at the earliest {format_minute(ends_ms)}."


def _hold(state: State) -> Override | None:
    """Return the freeze of everything that ends last, if one is in force."""
    freezes = [
        override
        for override in state.overrides_in_force
        if override.kind is OverrideKind.FREEZE and override.symbol is None
    ]
    endless = (override for override in freezes if override.expires_at_ms is None)
    return next(endless, max(freezes, key=lambda each: each.expires_at_ms or 0, default=None))


def _symbols(happening: Happening, only: Iterable[str] = ()) -> tuple[str, ...]:
    """Return a line for each symbol that violated something or was named, one for the others."""
    state = happening.after
    effective = state.effective_throttles()
    throttles = state.per_symbol_throttles()
    reasons = _reasons(happening)
    named = list(only) or [symbol for symbol in effective if symbol in reasons]
    lines = [
        f"{symbol}: may trade {_amount(state, effective[symbol])}, KPI throttle "
        f"{throttles[symbol]:g}" + (f": {reasons[symbol]}" if symbol in reasons else "")
        for symbol in named
        if symbol in effective
    ]
    shown = lines[:SYMBOLS_SHOWN_MAX]
    others = [symbol for symbol in effective if symbol not in named[:SYMBOLS_SHOWN_MAX]]
    if only:
        return tuple(lines)
    for throttle, count in Counter(effective[symbol] for symbol in others).items():
        alike = [symbol for symbol in others if effective[symbol] == throttle]
        each = " each" if count > 1 else ""
        shown.append(f"{_names(alike)}: may trade {_amount(state, throttle)}{each}")
    return tuple(shown)


def _reasons(happening: Happening) -> dict[str, str]:
    """Return each symbol's violations in the window, in words."""
    if not isinstance(happening.head, KpiObserved):
        return {}
    return {
        symbol.memory.symbol: ", ".join(violation.reason for violation in symbol.violations)
        for symbol in happening.head.symbols
        if symbol.violations
    }


def _amount(state: State, throttle: float) -> str:
    notional = effective_notional(state, throttle)
    return f"{throttle:g}" if notional is None else f"{throttle:g} (USD {notional:.2f})"


def _override(override: Override) -> str:
    bound = "" if override.cap is None else f" {override.cap:g}"
    until = override.expires_at_ms
    ends = "until it is cleared" if until is None else f"until {format_time(until)}"
    if override.kind is OverrideKind.UNFREEZE:
        ends = "once"
    return (
        f"{override.kind}{bound} of {override.symbol or 'all symbols'} by "
        f"{_words(override.actor)}, {ends}: {_words(override.reason)}"
    )


def _section(state: TradingState) -> str:
    return FROZEN_SECTION if state is TradingState.FROZEN else COOLDOWN_SECTION


def _runbook(settings: Settings, section: str) -> str:
    return f"Runbook: {settings.runbook_url}#{section}"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN_MAX])
    left_out = len(names) - NAMES_SHOWN_MAX
    return f"{shown} and {left_out} more" if left_out > 0 else shown


def _ordinal(number: int) -> str:
    if number % 100 in {11, 12, 13}:
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"


def _words(typed: str) -> str:
    """Return what people typed, on one line."""
    return " ".join(typed.split())


def _cut(line: str, chars_max: int) -> str:
    return line if len(line) <= chars_max else f"{line[: chars_max - 3]}..."
