"""The outbox in the ledger: who is owed what, over restarts, targets that fail, and new ones."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from decider_spec import CRIT, MINUTE_MS, SHORT, WARN
from decider_spec import Ledger as Decided
from webhook import Webhook, running_webhook

import cli.notifying
from cli.notifying import Notifier
from cli.run_options import NotifyOptions
from domain.commands import StopRun
from ledger.application import Ledger, StreamState
from ledger.location import LedgerLocation
from ledger.side_log import SideLog
from projections import notify_courier
from projections.notify_log import (
    NAMES,
    PURPOSE,
    Entry,
    NotificationAbandoned,
    NotificationDelivered,
    NotificationsNoted,
)
from projections.notify_messages import Level
from projections.notify_targets import open_targets, target_name

STREAM = "prod:bybit"
REPEAT = "(perhaps told before)"


class Desk:
    """A stream in a real ledger, and its notifier, which may be killed and started again."""

    def __init__(self, path: Path) -> None:
        self.now_ms = 1_800_000_000_000
        self.market = Decided(SHORT)
        self._opened = Ledger.open(LedgerLocation(path))
        self._stream = StreamState(STREAM)
        self.write()

    def write(self) -> None:
        """Append what the market has come to."""
        events = self.market.events[self._stream.version :]
        self._stream = self._opened.append(self._stream, events, decided_at_ms=self.now_ms)

    def notifier(self, *webhooks: Webhook, level: Level = Level.WARN, query: str = "") -> Notifier:
        """Start one; the one before, if it wasn't closed, is as good as killed."""
        urls = tuple(webhook.url(query=query) for webhook in webhooks)
        options = NotifyOptions(urls=urls, level=level, debounce_ms=0, runbook_url="runbook.md")
        return Notifier(
            options, self._opened, self._stream, open_targets(urls), lambda: self.now_ms
        )

    def entries(self, kind: type[Any]) -> list[Any]:
        log: SideLog[Entry] = SideLog(self._opened, STREAM, PURPOSE, NAMES)
        return [entry for entry in log.entries() if isinstance(entry, kind)]

    def follow(self, notifier: Notifier) -> None:
        notifier.follow(self._stream.version)

    def freeze(self, notifier: Notifier | None = None) -> None:
        self.market.windows(1, BTCUSDT=CRIT)
        self.write()
        if notifier is not None:
            self.follow(notifier)

    def recover(self, notifier: Notifier | None = None) -> None:
        self.market.windows(3)
        self.write()
        if notifier is not None:
            self.follow(notifier)

    def close(self) -> None:
        self._opened.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "desk.sqlite")
    yield desk
    desk.close()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with running_webhook() as webhook:
        yield webhook


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify_courier, "PAUSE_SEC_FIRST", 0.01)
    monkeypatch.setattr(notify_courier, "PAUSE_SEC_MAX", 0.05)
    monkeypatch.setattr(cli.notifying, "GRACE_SEC", 1.0)


def recorded(webhook: Webhook, notifier: Notifier, delivered: int) -> None:
    """Wait until so many deliveries are recorded."""

    def look() -> bool:
        notifier.record()
        return notifier.counts.delivered >= delivered

    webhook.waits_for(look, f"{delivered} records")
    assert notifier.counts.delivered == delivered


def test_history_is_not_sent_when_notifications_are_switched_on(
    desk: Desk, webhook: Webhook
) -> None:
    desk.freeze()
    desk.recover()
    notifier = desk.notifier(webhook)
    desk.follow(notifier)
    desk.freeze(notifier)
    (taken,) = webhook.takes(1)
    assert taken.title == "[CRIT] prod:bybit FROZEN: BTCUSDT risk=0.45 > 0.40"
    (noted,) = desk.entries(NotificationsNoted)
    assert noted.version == len(desk.market.events) - 3
    assert noted.targets == (target_name(webhook.url()),)


def test_what_was_recorded_as_delivered_is_never_sent_again(desk: Desk, webhook: Webhook) -> None:
    notifier = desk.notifier(webhook)
    desk.freeze(notifier)
    recorded(webhook, notifier, 1)
    for _ in range(3):
        again = desk.notifier(webhook)
        desk.follow(again)
        assert again.pending == 0
        again.close(len(desk.market.events))
    desk.recover(desk.notifier(webhook))
    assert [taken.kind for taken in webhook.takes(2)] == ["failure", "success"]
    (delivered,) = desk.entries(NotificationDelivered)
    assert delivered.episode == f"{STREAM}#{delivered.message.partition('-')[0]}"
    assert delivered.target == target_name(webhook.url())


def test_what_was_not_recorded_is_sent_again_with_its_id_and_says_so(
    desk: Desk, webhook: Webhook
) -> None:
    desk.freeze(desk.notifier(webhook))
    (first,) = webhook.takes(1)  # Delivered, and killed before that was recorded.
    desk.notifier(webhook)
    second = webhook.takes(2)[1]
    assert second.title == f"{first.title} {REPEAT}"
    assert second.body == (
        "This may be a repeat: whether prod:bybit#3 was told before isn't recorded.\n" + first.body
    )
    assert first.body.endswith("Episode: prod:bybit#3")


def test_what_was_decided_but_not_planned_is_sent_after_a_kill(
    desk: Desk, webhook: Webhook
) -> None:
    desk.notifier(webhook)
    desk.freeze()  # Appended, and killed before anything else.
    desk.recover()
    desk.now_ms += 3 * MINUTE_MS
    notifier = desk.notifier(webhook)
    notices = notifier.notices()
    assert notices == [
        "2 notifications weren't recorded as delivered; they are sent again, and say so"
    ]
    freeze, recovery = webhook.takes(2)
    assert freeze.title == f"[CRIT] prod:bybit FROZEN: BTCUSDT risk=0.45 > 0.40 {REPEAT}"
    assert "Late: decided 3 min ago. By now the state is ACTIVE since 2026-01-05T14:04Z." in (
        freeze.body
    )
    assert recovery.title.startswith("[INFO] prod:bybit ACTIVE again: ")


def test_a_target_that_fails_makes_no_other_one_hear_it_twice(desk: Desk, webhook: Webhook) -> None:
    with running_webhook() as broken:
        broken.mode = "fail"
        notifier = desk.notifier(webhook, broken)
        desk.freeze(notifier)
        recorded(webhook, notifier, 1)
        webhook.waits_for(lambda: broken.asked >= 2, "attempts")
        notifier.record()
        assert notifier.pending == 1
        assert notifier.counts.failed >= 1
        assert notifier.notices() == [
            f"notifications to {target_name(broken.url())} fail; 1 waiting, tried "
            "again with growing pauses"
        ]
        again = desk.notifier(webhook, broken)
        broken.mode = "ok"
        broken.waits_for(lambda: bool(broken.taken), "the repeat")
        assert again.counts.delivered <= 1
        assert broken.titles[0].endswith(REPEAT)
    assert len(webhook.taken) == 1


def test_a_webhook_that_hangs_is_owed_and_the_end_waits_a_bounded_time(
    desk: Desk, webhook: Webhook
) -> None:
    webhook.mode = "hang"
    notifier = desk.notifier(webhook)
    desk.freeze(notifier)
    webhook.waits_for(lambda: webhook.asked == 1, "the attempt")
    for _ in range(20):
        desk.recover(notifier)
        desk.freeze(notifier)
    assert notifier.pending == 41
    assert notifier.delivered_version == 2
    assert notifier.oldest_pending_ms == desk.now_ms
    notifier.close(len(desk.market.events))
    assert notifier.notices() == ["41 notifications are owed; the next run sends them"]
    assert len(desk.entries(NotificationsNoted)[-1].waiting) == 41
    webhook.mode = "ok"
    webhook.waits_for(lambda: len(webhook.taken) >= 41, "what the killed thread still sends")
    again = desk.notifier(webhook)
    recorded(webhook, again, 41)
    assert again.delivered_version == len(desk.market.events)
    assert all(title.endswith(REPEAT) for title in webhook.titles[41:])


def test_a_new_target_is_told_what_happens_from_then_on(desk: Desk, webhook: Webhook) -> None:
    notifier = desk.notifier(webhook)
    desk.freeze(notifier)
    recorded(webhook, notifier, 1)
    with running_webhook() as joined:
        both = desk.notifier(webhook, joined)
        assert both.pending == 0
        desk.recover(both)
        assert joined.takes(1)[0].title.startswith("[INFO] prod:bybit ACTIVE again: ")
        webhook.takes(2)


def test_a_url_with_a_new_token_takes_over_what_was_owed_to_the_old_one(
    desk: Desk, webhook: Webhook
) -> None:
    webhook.mode = "fail"
    desk.freeze(desk.notifier(webhook))
    with running_webhook() as rotated:
        notifier = desk.notifier(rotated)
        assert rotated.takes(1)[0].title.endswith(REPEAT)
        recorded(rotated, notifier, 1)
        notifier.close(len(desk.market.events))
    assert desk.entries(NotificationAbandoned) == []


def test_what_is_owed_to_a_target_that_is_no_longer_named_is_given_up_on_record(
    desk: Desk, webhook: Webhook
) -> None:
    with running_webhook() as gone:
        gone.mode = "fail"
        notifier = desk.notifier(webhook, gone)
        desk.freeze(notifier)
        recorded(webhook, notifier, 1)
        desk.notifier(webhook)
    (abandoned,) = desk.entries(NotificationAbandoned)
    assert abandoned.reason == "the target is no longer named"
    assert abandoned.target == target_name(gone.url())
    assert desk.notifier(webhook).pending == 0


def test_what_is_given_up_is_recorded_and_told_to_the_operator(
    desk: Desk, webhook: Webhook
) -> None:
    webhook.mode = "fail"
    notifier = desk.notifier(webhook)
    desk.market.windows(2, BTCUSDT=WARN)
    desk.write()
    desk.now_ms += 3_600_001
    desk.follow(notifier)

    def look() -> bool:
        notifier.record()
        return notifier.counts.abandoned == 1

    webhook.waits_for(look, "giving up")
    (abandoned,) = desk.entries(NotificationAbandoned)
    assert abandoned.reason == "it couldn't be delivered for over 60 minutes"
    assert abandoned.attempts >= 1
    assert any("given up for json://127.0.0.1" in notice for notice in notifier.notices())
    assert desk.notifier(webhook).pending == 0


def test_where_it_stands_is_noted_now_and_then_and_a_start_reads_from_there(
    desk: Desk, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.notifying, "NOTED_EVERY_VERSIONS", 20)
    monkeypatch.setattr(cli.notifying, "PAGE", 3)  # Cuts windows in two over and over.
    notifier = desk.notifier(webhook)
    for _ in range(10):
        desk.freeze(notifier)
        desk.recover(notifier)
    recorded(webhook, notifier, 20)
    notes = [noted.version for noted in desk.entries(NotificationsNoted)]
    assert len(notes) >= 4
    assert all(later - earlier >= 20 for earlier, later in pairwise(notes))
    again = desk.notifier(webhook)
    assert again.pending == 0
    desk.freeze(again)
    assert webhook.takes(21)[-1].title == "[CRIT] prod:bybit FROZEN: BTCUSDT risk=0.45 > 0.40"


def test_however_a_ledger_is_read_the_same_is_told(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(page: int, steps: Sequence[Callable[[Desk], None]]) -> list[tuple[str, str]]:
        monkeypatch.setattr(cli.notifying, "PAGE", page)
        webhook.taken.clear()
        desk = Desk(tmp_path / f"{page}.sqlite")
        notifier = desk.notifier(webhook)
        for step in steps:
            step(desk)
            if page > 1:
                desk.follow(notifier)
        desk.follow(notifier)
        recorded(webhook, notifier, 11)
        desk.close()
        return [(taken.title, taken.body) for taken in webhook.taken]

    def stop(desk: Desk) -> None:
        desk.market.when(StopRun(run_id="run-1", reason="done", at_ms=desk.market.next_window))
        desk.write()

    def cap(desk: Desk) -> None:
        desk.market.override("cap", cap=0.5)
        desk.write()

    steps = [Desk.freeze, Desk.recover] * 5 + [cap, stop]
    assert tell(500, steps) == tell(1, steps) == tell(2, steps)


def test_a_ledger_that_cannot_be_written_is_told_before_all_else(
    desk: Desk, webhook: Webhook
) -> None:
    notifier = desk.notifier(webhook)
    webhook.mode = "fail"
    desk.freeze(notifier)
    webhook.waits_for(lambda: webhook.asked >= 1, "the attempt")
    webhook.mode = "ok"
    notifier.tell_fault("the ledger desk.sqlite can't be read or written: disk I/O error")
    fault = next(taken for taken in webhook.taken if "ledger" in taken.title)
    assert fault.title == "[CRIT] prod:bybit the ledger can't be written"
    assert "Cause: the ledger desk.sqlite can't be read or written: disk I/O error" in fault.body
    assert "Runbook: runbook.md#liveledgerstale" in fault.body


def test_nothing_in_the_ledgers_file_is_a_url(desk: Desk, webhook: Webhook, tmp_path: Path) -> None:
    notifier = desk.notifier(webhook, query="?+X-Token=canary")
    desk.freeze(notifier)
    recorded(webhook, notifier, 1)
    notifier.close(len(desk.market.events))
    with contextlib.suppress(FileNotFoundError):
        for path in tmp_path.glob("desk.sqlite*"):
            assert b"canary" not in path.read_bytes()
            assert b"/hook" not in path.read_bytes()
