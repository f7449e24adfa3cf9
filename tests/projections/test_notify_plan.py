"""What is told, and when: given a stream, when something happens, then these messages follow."""

from collections.abc import Sequence

import pytest
from decider_spec import (
    BTC,
    CRIT,
    ETH,
    NO_FILLS,
    NOTHING,
    OK,
    SHORT,
    SOL,
    WARN,
    at,
    profile,
)
from msgspec.structs import replace
from notify_story import STREAM, Story

from domain.commands import (
    ObserveClock,
    ReportExternalWrite,
    ReportFill,
    StopRun,
)
from domain.errors import BadInput
from domain.state import State
from ledger.codec import Record
from projections.notify_memory import Memory, happenings, memory_at
from projections.notify_messages import Level, Message, Severity, parse_alert_policy
from projections.notify_plan import plan

TWO_FREEZE = replace(SHORT, global_freeze_symbols=2)


def to_cooldown(story: Story) -> None:
    story.windows(SHORT.min_warn_windows, BTCUSDT=WARN)


def to_active(story: Story) -> None:
    windows = {"COOLDOWN": SHORT.min_ok_windows, "FROZEN": SHORT.unfreeze_after_ok_windows}
    story.windows(windows[story.mode[0]])
    assert story.mode == ("ACTIVE", 1.0)


# An episode


def test_nothing_is_told_while_all_is_well() -> None:
    story = Story()
    story.windows(50)
    assert story.told() == []


def test_an_episode_is_told_step_by_step_under_one_id() -> None:
    story = Story()
    to_cooldown(story)
    story.windows(1, BTCUSDT=CRIT)
    to_active(story)
    start, escalation, recovery = story.messages()
    assert start.title == "[WARN] prod:bybit COOLDOWN: BTCUSDT p95_latency=360 > 350"
    assert escalation.title == "[CRIT] prod:bybit FROZEN: BTCUSDT risk=0.45 > 0.40"
    assert recovery.title == "[INFO] prod:bybit ACTIVE again: recovered after 3 OK windows"
    assert [each.kind.value for each in (start, escalation, recovery)] == [
        "start",
        "escalation",
        "recovery",
    ]
    assert {start.episode, escalation.episode, recovery.episode} == {start.episode}
    assert start.episode == f"{STREAM}#{start.version}"


def test_a_step_is_told_once_however_long_it_lasts() -> None:
    story = Story()
    story.windows(30, BTCUSDT=CRIT)
    assert story.kinds() == ["start"]


def test_a_recovery_with_a_waivers_help_is_told_in_two_steps() -> None:
    story = Story()
    story.windows(1, BTCUSDT=CRIT)
    story.windows(3, NO_FILLS)
    assert story.mode == ("COOLDOWN", 0.5)
    assert story.told()[1:] == [
        "[INFO] prod:bybit COOLDOWN, no longer FROZEN: recovered after 3 OK windows"
    ]
    story.windows(2)
    assert story.kinds() == ["recovery"]


def test_a_gap_is_an_episode_with_the_gap_as_its_cause() -> None:
    story = Story()
    story.windows(1)
    story.skip(10)
    (message,) = story.messages()
    assert message.title == (
        "[CRIT] prod:bybit FROZEN: runner down 2026-01-05T14:01Z to 2026-01-05T14:11Z (10 windows)"
    )


# Symbols


def test_a_message_names_every_symbol_its_violations_throttles_and_notional() -> None:
    story = Story(Level.WARN, SHORT, BTC, ETH, SOL, limits=profile(3))
    story.windows(1, BTCUSDT=CRIT, ETHUSDT=WARN)
    (message,) = story.messages()
    assert message.body.splitlines() == [
        "ACTIVE -> FROZEN, throttle 0, since 2026-01-05T14:01Z",
        "Cause: BTCUSDT risk=0.45 > 0.40",
        "BTCUSDT: may trade 0 (USD 0.00), KPI throttle 0: risk=0.45 > 0.40",
        "ETHUSDT: may trade 0 (USD 0.00), KPI throttle 0.5: p95_latency=360 > 350",
        "SOLUSDT: may trade 0 (USD 0.00)",
        "Next: 3 OK windows in a row lead back: at the earliest 2026-01-05T14:04Z.",
        "Runbook: https://desk.example/runbook#livestatefrozen",
        f"Episode: {message.episode}",
    ]


def test_five_hundred_symbols_are_one_message_that_every_service_takes() -> None:
    names = [f"COIN{number}USDT" for number in range(500)]
    story = Story(Level.WARN, SHORT, *names, limits=profile(500))
    story.windows(1, CRIT)
    (message,) = story.messages()
    assert len(message.body) <= 1_800
    assert "COIN0USDT: may trade 0 (USD 0.00)" in message.body
    assert "and 482 more: may trade 0 (USD 0.00) each" in message.body
    assert message.body.splitlines()[-3].startswith("Next: 3 OK windows")


def test_a_symbol_frozen_on_its_own_is_told_and_so_is_its_recovery() -> None:
    story = Story(Level.WARN, TWO_FREEZE, BTC, ETH, SOL)
    story.windows(1, ETHUSDT=CRIT)
    (frozen,) = story.messages()
    assert frozen.title == "[WARN] prod:bybit ETHUSDT frozen, the state stays ACTIVE"
    assert "ETHUSDT: may trade 0, KPI throttle 0: risk=0.45 > 0.40" in frozen.body
    assert "Next: for each on its own, 3 OK windows in a row lead back: at the earliest" in (
        frozen.body
    )
    assert frozen.body.splitlines()[-2].endswith("#livesymbolfrozen")
    story.windows(3)
    (recovered,) = story.messages()
    assert recovered.title == "[INFO] prod:bybit ETHUSDT no longer frozen"
    assert recovered.episode == frozen.episode


def test_symbols_frozen_together_but_too_few_are_one_message() -> None:
    story = Story(Level.WARN, replace(SHORT, global_freeze_symbols=3), BTC, ETH, SOL)
    story.windows(1, BTCUSDT=CRIT, SOLUSDT=CRIT)
    assert story.told() == ["[WARN] prod:bybit BTCUSDT, SOLUSDT frozen, the state stays ACTIVE"]


def test_symbols_that_froze_with_everything_are_told_when_the_others_trade_without_them() -> None:
    story = Story(Level.WARN, TWO_FREEZE, BTC, ETH, SOL)
    story.windows(1, BTCUSDT=CRIT, ETHUSDT=CRIT)
    story.windows(1, ETHUSDT=WARN)
    story.windows(1, ETHUSDT=CRIT)
    assert story.kinds() == ["start"]
    while story.mode[0] == "FROZEN":
        story.windows(1, ETHUSDT=CRIT)
    assert story.told() == [
        "[WARN] prod:bybit ETHUSDT frozen, the state stays ACTIVE",
        "[INFO] prod:bybit ACTIVE again: recovered after 3 OK windows",
    ]


# What comes next


def test_what_comes_next_waits_for_a_freeze_to_be_cleared() -> None:
    story = Story()
    story.override("freeze")
    (message,) = story.messages()
    assert message.title == "[CRIT] prod:bybit FROZEN: override freeze by kim: drill"
    held = f"Next: held until override {story.state.overrides[0].id} is cleared; then 3 OK windows"
    assert held in message.body


def test_what_comes_next_counts_from_the_window_after_a_freeze_that_expires() -> None:
    story = Story()
    story.windows(1)
    story.override("freeze", minutes=2)  # From 14:01:30 to 14:03:30.
    (message,) = story.messages()
    assert "3 OK windows in a row lead back: at the earliest 2026-01-05T14:07Z." in message.body
    story.windows(6)
    assert story.mode == ("ACTIVE", 1.0)
    assert story.next_window == at(7)


# Levels


@pytest.mark.parametrize(
    ("level", "kinds"),
    [
        (Level.OFF, []),
        (Level.CRIT, ["escalation", "recovery"]),
        (Level.WARN, ["start", "recovery", "start", "escalation", "recovery"]),
    ],
)
def test_the_level_decides_what_is_told(level: Level, kinds: Sequence[str]) -> None:
    story = Story(level)
    to_cooldown(story)
    to_active(story)
    to_cooldown(story)
    story.windows(1, BTCUSDT=CRIT)
    to_active(story)
    assert story.kinds() == kinds


def test_a_recovery_is_told_only_of_an_episode_of_which_something_was() -> None:
    story = Story(Level.CRIT)
    to_cooldown(story)
    to_active(story)
    assert story.told() == []


def test_the_alert_policy_is_laid_over_the_default_one() -> None:
    assert parse_alert_policy("dev=crit, qa=WARN") == {
        "dev": Level.CRIT,
        "staging": Level.WARN,
        "prod": Level.CRIT,
        "qa": Level.WARN,
    }


@pytest.mark.parametrize("text", ["prod", "prod=LOUD", "=WARN", "prod=CRIT,prod=OFF"])
def test_an_alert_policy_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--alert-policy: "):
        parse_alert_policy(text)


# Debounce


def test_a_turn_for_the_better_is_told_when_it_has_held() -> None:
    story = Story(debounce_minutes=5)
    to_cooldown(story)
    to_active(story)
    assert story.kinds() == ["start"]
    story.windows(4)
    assert story.kinds() == []
    story.windows(1)
    (recovery,) = story.messages()
    assert recovery.kind.value == "recovery"
    assert "COOLDOWN -> ACTIVE, throttle 1, since 2026-01-05T14:04Z" in recovery.body
    assert recovery.at_ms == at(9)


def test_what_begins_again_within_the_debounce_goes_on_with_its_episode() -> None:
    story = Story(debounce_minutes=5)
    to_cooldown(story)
    (start,) = story.messages()
    to_active(story)
    to_cooldown(story)  # 14:06: two minutes after its end, four after it was told.
    assert story.told() == []
    to_active(story)
    to_cooldown(story)  # 14:10: it was told eight minutes ago.
    (again,) = story.messages()
    assert again.title == (
        "[WARN] prod:bybit COOLDOWN again (3rd time): BTCUSDT p95_latency=360 > 350"
    )
    assert again.episode == start.episode
    assert again.id != start.id
    to_active(story)
    story.windows(5)
    (recovery,) = story.messages()
    assert recovery.episode == start.episode
    assert "It lasted 10 min, 3 times, from 2026-01-05T14:02Z." in recovery.body


def test_what_begins_again_after_the_debounce_is_another_episode() -> None:
    story = Story(debounce_minutes=5)
    to_cooldown(story)
    to_active(story)
    story.windows(5)
    to_cooldown(story)
    start, recovery, other = story.messages()
    assert recovery.episode == start.episode != other.episode
    assert "again" not in other.title


def test_an_escalation_is_never_held_back() -> None:
    story = Story(debounce_minutes=60)
    to_cooldown(story)
    to_active(story)
    story.windows(1, BTCUSDT=CRIT)
    start, escalation = story.messages()
    assert escalation.severity is Severity.CRIT
    assert escalation.title == "[CRIT] prod:bybit FROZEN: BTCUSDT risk=0.45 > 0.40"
    assert "It began 2 times since 2026-01-05T14:02Z." in escalation.body
    assert escalation.episode == start.episode


def test_a_flapping_market_is_few_messages_and_the_last_is_never_better_than_the_truth() -> None:
    def run(debounce_minutes: float) -> list[str]:
        story = Story(debounce_minutes=debounce_minutes)
        kinds: list[str] = []
        believed = "ACTIVE"
        for _ in range(30):
            to_cooldown(story)
            to_active(story)
            for message in story.messages():
                kinds.append(message.kind.value)
                believed = "ACTIVE" if message.kind.value == "recovery" else "COOLDOWN"
        assert story.mode == ("ACTIVE", 1.0)
        assert believed == "COOLDOWN" or not debounce_minutes
        story.windows(60)
        return kinds + story.kinds()

    assert len(run(0)) == 60  # Each start and each end, over two hours.
    assert run(5) == ["start"] * 15 + ["recovery"]
    assert run(30) == ["start"] * 4 + ["recovery"]


def test_a_freeze_that_comes_back_after_an_unfreeze_is_told_whatever_the_debounce() -> None:
    story = Story(debounce_minutes=60)
    story.windows(1, BTCUSDT=CRIT)
    story.override("unfreeze")
    assert story.kinds() == ["start", "recovery"]
    story.windows(1, BTCUSDT=CRIT)
    assert story.told() == ["[CRIT] prod:bybit FROZEN again (2nd time): BTCUSDT risk=0.45 > 0.40"]


def test_a_turn_for_the_better_is_told_at_the_runs_end_at_the_latest() -> None:
    story = Story(debounce_minutes=60)
    story.windows(1, BTCUSDT=CRIT)
    to_active(story)
    assert story.kinds() == ["start"]
    story.when(StopRun(run_id="run-1", reason="stopped by a signal", at_ms=story.next_window))
    assert story.kinds() == ["recovery"]


# What is no step of an episode


def fill(symbol: str = BTC, minute: float = 1.5) -> ReportFill:
    return ReportFill(
        symbol=symbol,
        filled_at_ms=at(minute),
        frozen_since_ms=at(1),
        notional=123.4,
        grace_ms=5_000,
    )


def test_fills_while_frozen_are_told_grouped_over_symbols() -> None:
    story = Story(Level.CRIT, SHORT, BTC, ETH)
    story.windows(1, BTCUSDT=CRIT)
    story.messages()
    story.when(fill(BTC))
    story.when(fill(ETH))
    (message,) = story.messages()
    assert message.title == (
        "[CRIT] prod:bybit BTCUSDT, ETHUSDT traded while frozen: the bot doesn't obey"
    )
    assert "BTCUSDT: USD 123.40 at 2026-01-05T14:01:30Z, frozen since 2026-01-05T14:01:00Z" in (
        message.body
    )
    assert "#livetradedwhilefrozen" in message.body


def test_fills_while_frozen_are_told_once_within_the_debounce_and_then_with_their_number() -> None:
    story = Story(Level.CRIT, debounce_minutes=5)
    story.windows(1, BTCUSDT=CRIT)
    story.messages()
    messages: list[Message] = []
    for minute in range(2, 9):
        story.when(fill(BTC, minute))
        messages += story.messages()
    first, second = messages
    assert second.episode == first.episode
    assert "The same happened 4 more times since it was last told." in second.body


def test_a_write_by_somebody_else_is_told_with_what_it_was() -> None:
    story = Story(Level.CRIT)
    story.windows(1, BTCUSDT=CRIT)
    story.messages()
    story.when(
        ReportExternalWrite(
            id="w1",
            key="prod:bybit:live:state",
            symbol=None,
            found="ACTIVE\n<!channel>",
            expected="FROZEN",
            at_ms=at(1.5),
        )
    )
    (message,) = story.messages()
    assert message.title == "[CRIT] prod:bybit somebody else wrote prod:bybit:live:state"
    assert "prod:bybit:live:state was set to 'ACTIVE\\n<!channel>' at 2026-01-05T14:01:30Z" in (
        message.body
    )


def test_a_clock_fault_is_told_once_by_the_freeze_or_by_itself() -> None:
    story = Story(Level.CRIT)
    story.windows(60)
    story.when(ObserveClock(window=at(0)))
    (freeze,) = story.messages()
    assert freeze.title == "[CRIT] prod:bybit FROZEN: clock is 3540 s behind the ledger"
    assert "once the clock is right, 3 OK windows in a row lead back" in freeze.body

    frozen = Story(Level.CRIT)
    frozen.windows(60, BTCUSDT=CRIT)
    frozen.messages()
    frozen.when(ObserveClock(window=at(0)))
    assert frozen.told() == ["[CRIT] prod:bybit clock is 3540 s behind the ledger"]


def test_an_override_that_changes_trading_is_told_and_so_is_its_end() -> None:
    story = Story(Level.WARN, SHORT, BTC, ETH)
    story.windows(1)
    story.override("cap", cap=0.3, minutes=10)
    story.clear(at_ms=at(1.8))
    applied, ended = story.messages()
    assert applied.title == (
        "[WARN] prod:bybit override applied: cap 0.3 of all symbols by kim, until "
        "2026-01-05T14:11:30Z: drill"
    )
    assert "BTCUSDT: may trade 0.3, KPI throttle 1" in applied.body
    assert ended.title == (
        "[WARN] prod:bybit override ended by kim; it was: cap 0.3 of all symbols by kim, until "
        "2026-01-05T14:11:30Z: drill"
    )


def test_an_override_without_any_effect_is_not_told() -> None:
    story = Story()
    story.windows(1, BTCUSDT=CRIT)
    story.messages()
    story.override("cap", cap=0.3)
    assert story.told() == []


def test_a_symbol_frozen_by_hand_is_told_once_and_so_is_letting_it_go() -> None:
    story = Story(Level.WARN, SHORT, BTC, ETH)
    story.windows(1)
    story.override("freeze", ETH)
    (message,) = story.messages()
    assert message.kind.value == "override-applied"
    assert "ETHUSDT: may trade 0, KPI throttle 0" in message.body
    story.clear()
    story.windows(1)
    assert story.told() == []
    story.override("unfreeze", ETH)
    assert story.kinds() == ["override-applied"]


# Where notifications begin, and being planned again


def test_what_is_under_way_when_notifications_begin_is_told_from_then_on_only() -> None:
    story = Story()
    to_cooldown(story)
    story.messages()
    story.memory = memory_at(story.state, STREAM, 4)
    to_active(story)
    assert story.told() == []

    worse = Story()
    to_cooldown(worse)
    worse.messages()
    worse.memory = memory_at(worse.state, STREAM, 4)
    worse.windows(1, BTCUSDT=CRIT)
    to_active(worse)
    assert worse.kinds() == ["escalation", "recovery"]


def test_a_symbol_that_was_frozen_when_notifications_begin_is_told_when_it_freezes_again() -> None:
    story = Story(Level.WARN, TWO_FREEZE, BTC, ETH, debounce_minutes=5)
    story.windows(1, ETHUSDT=CRIT)
    story.messages()
    story.memory = memory_at(story.state, STREAM, 3)
    story.windows(4, ETHUSDT=OK)
    assert story.told() == []
    story.windows(1, ETHUSDT=CRIT)
    (message,) = story.messages()
    assert message.kind.value == "symbols-frozen"
    assert message.episode == f"{STREAM}#{message.version}"


def test_planned_again_from_anywhere_the_same_messages_follow() -> None:
    story = Story(Level.WARN, TWO_FREEZE, BTC, ETH, debounce_minutes=3)
    for every in (OK, WARN, WARN, OK, CRIT, OK, OK, OK, OK, NOTHING, NOTHING, OK, OK, OK, OK):
        story.windows(1, every)
        story.windows(1, ETHUSDT=CRIT)
    story.override("cap", cap=0.2)
    story.windows(8)
    records = [
        Record(stream=STREAM, version=version, event=event, decided_at_ms=version)
        for version, event in enumerate(story.events, start=1)
    ]
    memory, stops, whole = Memory(), [(Memory(), 0)], list[Message]()
    groups = list(happenings(State(), records))
    for index, group in enumerate(groups, start=1):
        memory, told = plan(memory, group, story.settings)
        whole += told
        stops.append((memory, index))
    assert len(whole) > 5
    assert len({message.id for message in whole}) == len(whole)
    for memory, index in stops:
        again: list[Message] = []
        resumed = memory
        for group in groups[index:]:
            resumed, told = plan(resumed, group, story.settings)
            again += told
        assert again == whole[len(whole) - len(again) :]
