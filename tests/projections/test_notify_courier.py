"""Delivery to one target, against a real web server that fails, hangs and recovers."""

import threading
from collections.abc import Iterator

import pytest
from webhook import Webhook, running_webhook

from projections import notify_courier
from projections.notify_courier import Courier, Result
from projections.notify_messages import Kind, Message, Severity
from projections.notify_targets import open_targets

NOW_MS = 1_767_621_600_000
HOUR_MS = 3_600_000


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with running_webhook() as webhook:
        yield webhook


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify_courier, "PAUSE_SEC_FIRST", 0.01)
    monkeypatch.setattr(notify_courier, "PAUSE_SEC_MAX", 0.05)


def courier_to(webhook: Webhook, query: str = "") -> Courier:
    (target,) = open_targets([webhook.url(query=query)])
    return Courier(
        target.name,
        target.send,
        lambda message, may_repeat: (message.title, "repeat" if may_repeat else "first"),
        lambda: NOW_MS,
    )


def message(number: int, severity: Severity = Severity.CRIT, *, age_ms: int = 0) -> Message:
    return Message(
        id=f"{number}-start",
        version=number,
        kind=Kind.START,
        severity=severity,
        episode=f"prod:bybit#{number}",
        at_ms=NOW_MS,
        decided_at_ms=NOW_MS - age_ms,
        title=f"message {number}",
        body="",
    )


def results(webhook: Webhook, courier: Courier, count: int) -> list[Result]:
    found: list[Result] = []

    def look() -> bool:
        found.extend(courier.results())
        return len(found) >= count

    webhook.waits_for(look, f"{count} results")
    return found


def test_messages_are_delivered_in_order_and_with_their_severity(webhook: Webhook) -> None:
    courier = courier_to(webhook)
    courier.take([message(1, Severity.WARN), message(2), message(3, Severity.INFO)])
    taken = webhook.takes(3)
    assert [(each.title, each.kind) for each in taken] == [
        ("message 1", "warning"),
        ("message 2", "failure"),
        ("message 3", "success"),
    ]
    assert [(each.attempts, each.given_up) for each in results(webhook, courier, 3)] == [
        (1, None)
    ] * 3
    assert courier.tally() == (0, 0, False, None)


def test_a_service_that_fails_is_tried_again_and_told_that_it_may_be_a_repeat(
    webhook: Webhook,
) -> None:
    webhook.mode = "fail"
    courier = courier_to(webhook)
    courier.take([message(1)])
    webhook.waits_for(lambda: webhook.asked >= 4, "attempts")
    assert courier.tally().is_failing
    assert courier.tally().waiting == 1
    webhook.mode = "ok"
    assert webhook.takes(1)[0].body == "repeat"
    (result,) = results(webhook, courier, 1)
    assert result.attempts >= 5
    assert not courier.tally().is_failing


def test_only_a_crit_is_tried_for_ever(webhook: Webhook) -> None:
    webhook.mode = "fail"
    courier = courier_to(webhook)
    courier.take([message(1, Severity.WARN, age_ms=HOUR_MS + 1), message(2, age_ms=100 * HOUR_MS)])
    (given_up,) = results(webhook, courier, 1)
    assert given_up.message.version == 1
    assert given_up.given_up == "it couldn't be delivered for over 60 minutes"
    seen = webhook.asked
    webhook.waits_for(lambda: webhook.asked > seen + 3, "more attempts")
    webhook.mode = "ok"
    assert webhook.takes(1)[0].title == "message 2"


def test_what_is_not_crit_and_not_old_is_tried_again_too(webhook: Webhook) -> None:
    webhook.mode = "fail"
    courier = courier_to(webhook)
    courier.take([message(1, Severity.WARN, age_ms=HOUR_MS - 1)])
    webhook.waits_for(lambda: webhook.asked >= 5, "attempts")
    webhook.mode = "ok"
    webhook.takes(1)


def test_a_message_that_is_refused_for_what_it_is_does_not_hide_the_newest_crit(
    webhook: Webhook,
) -> None:
    webhook.refuses = "message 1"
    courier = courier_to(webhook)
    courier.take([message(1), message(2, Severity.WARN), message(3)])
    webhook.waits_for(lambda: courier.tally().waiting == 2, "the newest")
    assert webhook.titles == ["message 3"]
    assert [each.version for each in courier.waiting()] == [3, 1, 2]
    webhook.refuses = None
    webhook.takes(3)


def test_a_service_that_hangs_keeps_nobody_waiting_and_is_given_up_by_its_timeout(
    webhook: Webhook,
) -> None:
    webhook.mode = "hang"
    courier = courier_to(webhook, "?rto=0.2")
    courier.take([message(1)])
    webhook.waits_for(lambda: webhook.asked >= 2, "a second attempt")
    webhook.mode = "ok"
    webhook.waits_for(lambda: bool(courier.results()), "delivery")


def test_an_answer_that_trickles_for_ever_is_its_couriers_trouble_alone(webhook: Webhook) -> None:
    webhook.mode = "trickle"
    stuck = courier_to(webhook)
    stuck.take([message(1)])
    webhook.waits_for(lambda: webhook.asked == 1, "the attempt")
    with running_webhook() as other:
        courier = courier_to(other)
        courier.take([message(1)])
        other.takes(1)
    assert stuck.tally().waiting == 1
    assert all(thread.daemon for thread in threading.enumerate() if "notify" in thread.name)


def test_a_new_crit_is_tried_at_once_whatever_the_pause(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_courier, "PAUSE_SEC_FIRST", 3_600.0)
    monkeypatch.setattr(notify_courier, "PAUSE_SEC_MAX", 3_600.0)
    webhook.mode = "fail"
    courier = courier_to(webhook)
    courier.take([message(1, Severity.WARN)])
    webhook.waits_for(lambda: courier.tally().is_failing, "the first failure")
    webhook.mode = "ok"
    courier.take([message(2, Severity.WARN)])
    assert webhook.asked == 1
    courier.take([message(3)])
    assert [each.title for each in webhook.takes(3)] == ["message 1", "message 2", "message 3"]


def test_what_waits_is_bounded_and_crit_is_given_up_last(webhook: Webhook) -> None:
    webhook.mode = "hang"
    courier = courier_to(webhook)
    courier.take([message(0)])
    webhook.waits_for(lambda: webhook.asked == 1, "the attempt")
    courier.take([message(number, Severity.WARN) for number in range(1, 51)])
    courier.take([message(number) for number in range(51, 151)])
    given_up = results(webhook, courier, 51)
    assert [each.message.version for each in given_up] == [*range(1, 51), 0]
    assert {each.given_up for each in given_up} == {"more than 100 were waiting"}
    assert [each.version for each in courier.waiting()] == list(range(51, 151))
