"""Real runs tell a real web server that works, fails, hangs, and comes back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_support import (
    DRIVER,
    Run,
    command,
    events,
    let_windows_pass,
    mock_run,
    python,
    wait_for,
    windows,
)
from scraping import metrics_url, scrape
from support import row, write_jsonl
from webhook import Webhook, running_webhook

from domain.events import StateTransitioned
from ledger.application import Ledger
from ledger.location import LedgerLocation
from ledger.side_log import SideLog
from projections.notify_log import NAMES, PURPOSE, Entry, NotificationDelivered
from projections.notify_targets import target_name

FREEZE = ("override", "freeze", "--ledger", "l.sqlite", "--reason", "a drill", "--by", "ann")
REPEAT = "(perhaps told before)"
FROZEN = "[CRIT] dev:bybit FROZEN: override freeze by ann: a drill"


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with running_webhook() as webhook:
        yield webhook


def telling(webhook: Webhook, *more: str | Path, level: str = "WARN") -> list[str | Path]:
    """Return the options that tell a web server of dev."""
    policy = ("--alert-policy", f"dev={level}", "--notify-debounce", "0")
    return ["--notify", webhook.url(), *policy, *more]


def freeze(folder: Path) -> None:
    asked = command(folder, *FREEZE)
    assert asked.code == 0, asked.err


def delivered(folder: Path) -> list[NotificationDelivered]:
    with Ledger.open(LedgerLocation(folder / "l.sqlite"), read_only=True) as ledger:
        log: SideLog[Entry] = SideLog(ledger, "dev:bybit", PURPOSE, NAMES)
        return [entry for entry in log.entries() if isinstance(entry, NotificationDelivered)]


def lets_go(webhook: Webhook) -> int:
    """Let it answer again; return how much it has taken once all that it was asked is answered."""
    webhook.mode = "ok"
    webhook.waits_for(lambda: len(webhook.taken) == webhook.asked, "what was already sent off")
    return len(webhook.taken)


def incident(folder: Path) -> Path:
    """Write a file of a freeze and the way back, 30 windows."""
    rows = [row(index, edge_bps=2.0 if index == 3 else 3.2) for index in range(30)]
    return write_jsonl(folder / "incident.jsonl", rows)


def file_run(folder: Path, *more: str | Path) -> list[str | Path]:
    return ["--feed", f"file:{incident(folder)}", "--ledger", "l.sqlite", *more]


def test_a_freeze_is_told_and_recorded_while_the_run_goes_on(
    webhook: Webhook, tmp_path: Path
) -> None:
    with Run(tmp_path, *mock_run(None, *telling(webhook))) as run:
        let_windows_pass(tmp_path)
        freeze(tmp_path)
        (taken,) = webhook.takes(1)
        assert taken.title == FROZEN
        wait_for(lambda: delivered(tmp_path), "the record")
        assert run.stop() == 0
    (record,) = delivered(tmp_path)
    assert record.target == target_name(webhook.url())
    assert f"Episode: {record.episode}" in taken.body


def test_windows_are_decided_while_the_webhook_hangs_and_it_is_told_when_it_is_back(
    webhook: Webhook, tmp_path: Path
) -> None:
    webhook.mode = "hang"
    with Run(tmp_path, *mock_run(None, *telling(webhook))) as run:
        let_windows_pass(tmp_path)
        freeze(tmp_path)
        webhook.waits_for(lambda: webhook.asked >= 1, "the attempt")
        before = len(windows(tmp_path))
        let_windows_pass(tmp_path, 8)
        assert len(windows(tmp_path)) >= before + 8
        assert webhook.taken == []
        lets_go(webhook)
        wait_for(lambda: delivered(tmp_path), "the record")
        assert run.stop() == 0
    assert {taken.title.removesuffix(f" {REPEAT}") for taken in webhook.taken} == {FROZEN}


def test_a_webhook_that_fails_is_tried_until_it_is_back(webhook: Webhook, tmp_path: Path) -> None:
    webhook.mode = "fail"
    with Run(tmp_path, *mock_run(None, *telling(webhook))) as run:
        let_windows_pass(tmp_path)
        freeze(tmp_path)
        run.says(f"notifications to {target_name(webhook.url())} fail; 1 waiting")
        webhook.waits_for(lambda: webhook.asked >= 2, "a second attempt")
        webhook.mode = "ok"
        assert webhook.takes(1)[0].title == f"{FROZEN} {REPEAT}"
        run.says("are delivered again")
        assert run.stop() == 0
    (record,) = delivered(tmp_path)
    assert record.attempts >= 3


def test_what_comes_of_notifications_is_in_the_metrics(webhook: Webhook, tmp_path: Path) -> None:
    def outcomes() -> dict[str, float]:
        found = scrape(url).by("live_notifications_total", "outcome")
        return {str(outcome): value for outcome, value in found.items()}

    webhook.mode = "fail"
    options = mock_run(None, *telling(webhook, "--metrics-port", "0"))
    with Run(tmp_path, *options) as run:
        url = wait_for(lambda: metrics_url(run.output), "metrics")
        none = {"delivered": 0, "failed": 0, "abandoned": 0}
        wait_for(lambda: outcomes() == none, "the series")
        let_windows_pass(tmp_path)
        freeze(tmp_path)
        wait_for(lambda: outcomes()["failed"] >= 2, "failures")
        assert scrape(url).value("live_notifications_pending") == 1
        lag = scrape(url).by("live_projection_lag_events", "projection")
        assert lag["notifications"] > 0
        webhook.mode = "ok"
        wait_for(lambda: outcomes()["delivered"] == 1, "delivery")
        assert scrape(url).value("live_notifications_pending") == 0
        assert outcomes()["abandoned"] == 0
        assert run.stop() == 0


def test_a_runner_killed_between_decision_and_delivery_tells_it_after_its_restart(
    webhook: Webhook, tmp_path: Path
) -> None:
    options = file_run(tmp_path, *telling(webhook))
    # Of the four appends the last is that of the window that freezes.
    steps = (DRIVER, "append", "after", "4")
    with Run(tmp_path, *options, program=steps) as run:
        assert run.process.wait(30) == -9
    (frozen,) = events(tmp_path, StateTransitioned)
    assert frozen.reasons == ("edge_bps=2.0 < 2.5",)
    assert webhook.asked == 0
    again = command(tmp_path, "run", *options)
    assert again.code == 0, again.err
    assert "1 notifications weren't recorded as delivered; they are sent again" in again.out
    start, recovery = webhook.takes(2)
    assert start.title == f"[CRIT] dev:bybit FROZEN: BTCUSDT edge_bps=2.0 < 2.5 {REPEAT}"
    assert recovery.title == "[INFO] dev:bybit ACTIVE again: recovered after 24 OK windows"
    assert len(delivered(tmp_path)) == 2
    once_more = command(tmp_path, "run", *options)
    assert once_more.code == 0
    webhook.takes(2)


def test_a_runner_killed_while_it_delivers_tells_it_after_its_restart(
    webhook: Webhook, tmp_path: Path
) -> None:
    webhook.mode = "hang"
    options = mock_run(None, *telling(webhook))
    with Run(tmp_path, *options) as run:
        let_windows_pass(tmp_path)
        freeze(tmp_path)
        webhook.waits_for(lambda: webhook.asked >= 1, "the attempt")
        run.kill()
    before = lets_go(webhook)
    with Run(tmp_path, *options) as run:
        told = webhook.takes(before + 1)
        assert told[-1].title == f"{FROZEN} {REPEAT}"
        assert told[0].body.splitlines()[-1] == told[-1].body.splitlines()[-1]
        wait_for(lambda: delivered(tmp_path), "the record")
        assert run.stop() == 0
    assert len(delivered(tmp_path)) == 1


def test_a_run_that_ends_while_the_webhook_hangs_ends_and_the_next_one_tells(
    webhook: Webhook, tmp_path: Path
) -> None:
    webhook.mode = "hang"
    done = command(tmp_path, "run", *file_run(tmp_path, *telling(webhook)))
    assert done.code == 0, done.err
    assert "2 notifications are owed; the next run sends them" in done.out
    before = lets_go(webhook)
    again = command(tmp_path, "run", *file_run(tmp_path, *telling(webhook)))
    assert again.code == 0, again.err
    told = webhook.takes(before + 2)[before:]
    assert [taken.kind for taken in told] == ["failure", "success"]
    assert all(taken.title.endswith(REPEAT) for taken in told)


def test_nothing_but_a_run_tells_anything(webhook: Webhook, tmp_path: Path) -> None:
    told = {"LIVE_NOTIFY_URLS": webhook.url(), "LIVE_ALERT_POLICY": "dev=WARN"}
    options = file_run(tmp_path)
    for args in (
        ("run", *options, "--dry-run"),
        ("run", *options),
        ("report", "--ledger", "l.sqlite", "--env", "dev"),
        ("status", "--ledger", "l.sqlite", "--env", "dev"),
        ("replay", "l.sqlite", "--env", "dev", "--json"),
    ):
        env = told if args[0] != "run" or "--dry-run" in args else {}
        assert command(tmp_path, *args, env=env).code in {0, 3}
    # The rebuilt ledger has an outbox from here on, and history isn't sent.
    assert command(tmp_path, "run", *options, env=told).code == 0
    assert webhook.asked == 0


def test_a_run_that_tells_nobody_imports_nothing_for_it(tmp_path: Path) -> None:
    program = """
import contextlib, sys
from cli.main import main
with contextlib.suppress(SystemExit):
    main(args=["run", "--quiet"])
print([name for name in ("apprise", "requests", "cli.notifying") if name in sys.modules])
"""
    assert python(tmp_path, "-c", program).out == "[]\n"


@pytest.mark.parametrize(
    ("policy", "kinds"),
    [
        ("dev=OFF", []),
        ("dev=CRIT", ["failure", "success"]),
        ("prod=CRIT", []),
        ("dev=WARN", ["failure", "success"]),
    ],
)
def test_the_policy_of_the_environment_decides(
    webhook: Webhook, tmp_path: Path, policy: str, kinds: list[str]
) -> None:
    env = {"LIVE_NOTIFY_URLS": webhook.url(), "LIVE_ALERT_POLICY": policy}
    done = command(tmp_path, "run", *file_run(tmp_path), env=env)
    assert done.code == 0, done.err
    assert [taken.kind for taken in webhook.takes(len(kinds))] == kinds
    assert ("nobody is notified: dev is OFF" in done.err) == (not kinds)


def test_several_targets_come_from_options_a_variable_and_a_file(
    webhook: Webhook, tmp_path: Path
) -> None:
    urls = [webhook.url(name) for name in "abcd"]
    secret = tmp_path / "notify"
    secret.write_text(f"# the desk\n{urls[2]}\n{urls[0]}\n")
    secret.chmod(0o600)
    env = {"LIVE_NOTIFY_URLS": f"{urls[0]},{urls[1]}\n{urls[3]}", "LIVE_NOTIFY_FILE": str(secret)}
    done = command(tmp_path, "run", *file_run(tmp_path, "--alert-policy", "dev=CRIT"), env=env)
    assert done.code == 0, done.err
    webhook.takes(8)
    assert {record.target for record in delivered(tmp_path)} == {target_name(url) for url in urls}
    both = command(tmp_path, "run", *file_run(tmp_path, *telling(webhook)), env=env)
    assert both.code == 0, both.err


def test_a_ledger_that_cannot_be_written_is_told_as_the_run_ends(
    webhook: Webhook, tmp_path: Path
) -> None:
    options = mock_run(None, *telling(webhook, level="CRIT"))
    with Run(tmp_path, *options, program=(DRIVER, "append", "damage", "3")) as run:
        assert run.ended() == 5
    (taken,) = webhook.takes(1)
    assert taken.title == "[CRIT] dev:bybit the ledger can't be written"
    assert "Cause: the ledger can't be written: disk I/O error" in taken.body


def test_a_webhook_that_hangs_holds_no_run_back_whose_ledger_cannot_be_written(
    webhook: Webhook, tmp_path: Path
) -> None:
    webhook.mode = "hang"
    options = mock_run(None, *telling(webhook, level="CRIT"))
    with Run(tmp_path, *options, program=(DRIVER, "append", "damage", "3")) as run:
        assert run.ended() == 5
    assert webhook.asked >= 1


@pytest.mark.parametrize("modes", [("ok", "ok"), ("ok", "fail"), ("trickle", "ok")])
def test_a_test_message_goes_to_each_target_and_each_outcome_is_told(
    webhook: Webhook, tmp_path: Path, modes: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_webhook() as other:
        webhook.mode, other.mode = modes
        tried = command(
            tmp_path, "notify", "test", "--notify", webhook.url(), "--notify", other.url(),
            "--wait-sec", "2",
        )  # fmt: skip
        words = ["delivered" if mode == "ok" else "FAILED   " for mode in modes]
        urls = [webhook.url(), other.url()]
        assert tried.out.splitlines() == [
            f"{word}  {target_name(url)}" for word, url in zip(words, urls, strict=True)
        ]
        assert tried.code == (0 if modes == ("ok", "ok") else 3)
        assert other.mode == "fail" or other.takes(1)[0].title == (
            "[INFO] dev test of Live Ledger's notifications"
        )


def test_a_test_without_a_target_or_with_one_that_is_none_is_bad_usage(tmp_path: Path) -> None:
    nothing = command(tmp_path, "notify", "test")
    assert nothing.code == 2
    assert "--notify, --notify-file or LIVE_NOTIFY_URLS" in nothing.err
    bad = command(tmp_path, "notify", "test", "--notify", "json://h/a, nosuch://h/b")
    assert bad.code == 2
    assert "--notify: URL 2 of 2: nosuch://... is no URL that apprise knows" in bad.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--notify", "nosuch://h/b"), "--notify: URL 1 of 1: nosuch://..."),
        (("--notify-file", "nowhere"), "--notify-file: nowhere can't be read"),
        (("--alert-policy", "dev=LOUD"), "--alert-policy: expected ENV=OFF, WARN or CRIT"),
        (("--notify-debounce", "soon"), "--notify-debounce: expected a duration"),
    ],
)
def test_bad_options_end_a_run_before_anything_is_made(
    tmp_path: Path, options: tuple[str, str], told: str
) -> None:
    refused = command(tmp_path, "run", *file_run(tmp_path, *options))
    assert refused.code == 2
    assert told in refused.err
    assert not (tmp_path / "l.sqlite").exists()
