"""Runs begin and end; and every command on any state gives events or is refused, never more."""

from typing import Any

import pytest
from decider_spec import (
    BTC,
    CRIT,
    ETH,
    MINUTE_MS,
    NO_FILLS,
    OK,
    SHORT,
    START_MS,
    WARN,
    Ledger,
    at,
    kinds,
    only,
    profile,
    start_run,
)
from msgspec.structs import replace

from domain.commands import (
    AdoptPolicy,
    ApplyOverride,
    ClearOverride,
    Command,
    ExpireOverrides,
    ObserveClock,
    ObserveWindow,
    PassWindows,
    ReportExternalWrite,
    ReportFill,
    StopRun,
)
from domain.controller import decide, evolve, fold
from domain.errors import BadInput, CommandRefused
from domain.events import (
    RULES_VERSION,
    Event,
    ExternalWriteDetected,
    Override,
    OverrideKind,
    RunStarted,
    RunStopped,
    TradingState,
)
from domain.policy import Policy
from domain.state import State
from domain.windows import WindowReadings

# Runs.


def test_the_first_run_fixes_the_ledgers_id_and_interval_and_records_the_rules_version() -> None:
    ledger = Ledger()
    started = only(ledger.events, RunStarted)
    assert started.rules_version == RULES_VERSION == 1
    assert (ledger.state.ledger_id, ledger.state.interval_ms) == ("ledger-1", MINUTE_MS)
    ledger.when(start_run(run_id="run-2", ledger_id="ledger-2"))
    assert ledger.state.ledger_id == "ledger-1"
    assert ledger.state.run is not None
    assert ledger.state.run.run_id == "run-2"


def test_another_interval_than_the_streams_is_refused() -> None:
    ledger = Ledger()
    with pytest.raises(CommandRefused) as refusal:
        ledger.when(start_run(interval_ms=30_000))
    assert str(refusal.value) == (
        "this stream's interval is 60 s and can't be changed to 30 s; "
        "use another ledger for another interval"
    )
    assert refusal.value.exit_code == 2


def test_what_others_publish_counts_only_for_a_new_ledger() -> None:
    ledger = Ledger()
    events = ledger.when(start_run(run_id="run-2", published=TradingState.FROZEN))
    assert kinds(events) == ["RunStarted"]
    assert ledger.mode == ("ACTIVE", 1.0)


def test_a_run_stops_once_it_runs_and_no_other_does() -> None:
    ledger = Ledger()
    stop = StopRun(run_id="run-1", reason="signal", at_ms=at(5))
    assert ledger.when(stop) == [RunStopped(run_id="run-1", reason="signal", at_ms=at(5))]
    assert ledger.when(replace(stop, run_id="run-0")) == []


@pytest.mark.parametrize("known", [[], [start_run()]])
def test_no_window_is_decided_before_a_run_started_with_its_symbols(known: list[Any]) -> None:
    state = State()
    for command in known:
        state = fold(state, decide(Policy(), state, command))
    window = ObserveWindow(readings=WindowReadings(start_ms=START_MS, symbols={BTC: OK}))
    with pytest.raises(CommandRefused, match="before a run started with its symbols"):
        decide(Policy(), state, window)


def test_no_policy_is_adopted_without_a_symbol() -> None:
    adopt = AdoptPolicy(window=START_MS, policy=Policy(), symbols=())
    with pytest.raises(CommandRefused, match=r"symbols that may trade \(0\)"):
        decide(Policy(), State(), adopt)


# Totality.

OVERRIDE = Override(
    id="o-1", kind=OverrideKind.FREEZE, actor="kim", reason="drill", applied_at_ms=at(9)
)
WRITE = ReportExternalWrite(
    id="o-2", key="k", symbol=None, found="FROZEN", expected="ACTIVE", at_ms=at(9)
)

COMMANDS: list[Command] = [
    start_run(),
    start_run(run_id="run-2", interval_ms=1000, published=TradingState.FROZEN),
    *[
        AdoptPolicy(
            window=at(9), policy=policy, symbols=symbols, profile=limits, allow_loosening=agreed
        )
        for policy in (Policy(), SHORT, replace(SHORT, global_freeze_symbols=2))
        for symbols in ((), (BTC,), (ETH, BTC), ("XRPUSDT",))
        for limits in (None, profile(1))
        for agreed in (True, False)
    ],
    *[
        ObserveWindow(readings=WindowReadings(start_ms=start, symbols=symbols))
        for start in (-MINUTE_MS, 0, at(0), at(0) + 1, at(3), at(4), at(500))
        for symbols in ({}, {BTC: OK, ETH: NO_FILLS}, {BTC: CRIT}, {"XRPUSDT": WARN})
    ],
    *[PassWindows(until=until) for until in (-1, 0, at(3), at(4) + 1, at(10**6))],
    *[ObserveClock(window=window) for window in (-1, 0, at(2), at(500))],
    *[
        ApplyOverride(override=replace(OVERRIDE, kind=kind, symbol=symbol, cap=cap))
        for kind in OverrideKind
        for symbol in (None, BTC, "XRPUSDT")
        for cap in (None, 0.0, 0.5, 2.0)
    ],
    *[
        ClearOverride(id=name, at_ms=moment, actor="kim")
        for name in ("o-1", "busy", "")
        for moment in (0, at(9))
    ],
    *[ExpireOverrides(at_ms=moment) for moment in (-1, 0, at(10**6))],
    WRITE,
    *[
        replace(WRITE, symbol=symbol, found=found, expected=expected)
        for symbol in (None, BTC, "XRPUSDT")
        for found in ("", "ACTIVE", "COOLDOWN", "0.0", "1e999", "\x00")
        for expected in ("ACTIVE", "1.0", "")
    ],
    ReportFill(symbol=BTC, filled_at_ms=9, frozen_since_ms=0, notional=1.0, grace_ms=5),
    ReportFill(symbol="?", filled_at_ms=0, frozen_since_ms=0, notional=-1.0, grace_ms=5),
    StopRun(run_id="run-1", reason="signal", at_ms=at(9)),
    StopRun(run_id="", reason="", at_ms=0),
]


def busy() -> State:
    """Return a state with everything in it: freezes, caps, a gap, counts, a clock fault."""
    ledger = Ledger(replace(SHORT, global_freeze_symbols=2), BTC, ETH, limits=profile(2))
    ledger.windows(2, BTCUSDT=CRIT, ETHUSDT=WARN)
    ledger.override("cap", ETH, cap=0.4, minutes=30)
    ledger.override("freeze", BTC)
    ledger.windows(1, NO_FILLS)
    ledger.skip(1)
    ledger.when(ObserveClock(window=at(0)))
    return ledger.state


def started() -> State:
    return fold(State(), decide(Policy(), State(), start_run()))


@pytest.mark.parametrize("make", [State, started, lambda: Ledger().state, busy])
def test_every_command_gives_events_that_fold_or_is_refused(make: Any) -> None:
    state = make()
    for command in COMMANDS:
        try:
            events = decide(state.policy, state, command)
        except BadInput:
            continue
        after = fold(state, events)
        assert after.effective_throttles().keys() == set(after.symbol_names)
        assert all(0.0 <= one <= 1.0 for one in after.effective_throttles().values())


def test_on_an_empty_state_only_what_needs_no_stream_gives_events() -> None:
    def told(command: Command) -> list[str]:
        try:
            return kinds(decide(Policy(), State(), command))
        except CommandRefused:
            return ["refused"]

    assert told(PassWindows(until=at(5))) == []
    assert told(ObserveClock(window=at(5))) == []
    assert told(ExpireOverrides(at_ms=at(5))) == []
    assert told(StopRun(run_id="run-1", reason="", at_ms=0)) == []
    assert told(ClearOverride(id="o-1", at_ms=0, actor="kim")) == ["refused"]
    assert told(ApplyOverride(override=replace(OVERRIDE, symbol=BTC))) == ["refused"]
    assert told(ApplyOverride(override=OVERRIDE)) == ["OverrideApplied", "StateTransitioned"]


def test_refusing_changes_nothing_and_deciding_does_not_either() -> None:
    state, again = busy(), busy()
    for command in COMMANDS:
        try:
            decide(state.policy, state, command)
        except BadInput:
            continue
    assert state == again


@pytest.mark.parametrize("interval_ms", [0, -1, 86_400_001])
def test_a_run_with_an_interval_that_is_none_is_refused(interval_ms: int) -> None:
    with pytest.raises(BadInput, match="expected an interval"):
        decide(Policy(), State(), start_run(interval_ms=interval_ms))


def test_a_window_beyond_the_year_9999_is_refused_rather_than_a_crash() -> None:
    ledger = Ledger()
    ledger.windows(1)
    microseconds = START_MS * 1000  # a feed that stamps in the wrong unit
    window = ObserveWindow(readings=WindowReadings(start_ms=microseconds, symbols={BTC: OK}))
    with pytest.raises(BadInput):
        ledger.when(window)


# Events that only count, or only tell.


def test_events_that_tell_leave_the_state_and_events_that_count_change_only_counts() -> None:
    state = busy()
    stopped: Event = RunStopped(run_id="run-1", reason="signal", at_ms=at(9))
    assert evolve(state, stopped) == state
    written = ExternalWriteDetected(key="k", found="x", expected="y", at_ms=at(9))
    after = evolve(state, written)
    assert replace(after, counts=state.counts) == state
    assert after.counts.external_writes == state.counts.external_writes + 1
