"""
`live notify`: try where notifications go.

Source: LIVE_MODE_GUIDE.md, Production Checklist; DESIGN.md section 4.
"""

import threading
import time
from collections.abc import Mapping
from typing import Any, Final

import click

from cli.notify_options import DEFAULT_RUNBOOK, notify_options, notify_urls_of
from cli.options import DEFAULT_ENV, NumberRange, live_option
from cli.secrets import hide_arguments
from cli.texts import warn
from domain.errors import BadInput, CannotTell
from domain.windows import format_time
from projections.notify_messages import RUNBOOK, Kind, Severity

WAIT_SEC: Final = 30.0


@click.group()
def notify() -> None:
    """Try where notifications go."""


@notify.command()
@notify_options
@live_option("--env", default=DEFAULT_ENV, show_default=True, help="As for live run.")
@live_option(
    "--runbook-url",
    metavar="URL",
    default=DEFAULT_RUNBOOK,
    show_default=True,
    help="As for live run.",
)
@live_option(
    "--wait-sec",
    type=NumberRange(min=0, max=600),
    default=WAIT_SEC,
    show_default=True,
    help="How long a target may take in all.",
)
def test(env: str, runbook_url: str, wait_sec: float, **given: Any) -> None:
    """
    Send a test message to each target, whatever the level, and tell how each one went.

    Targets are named without their secrets, as in the ledger and in what a run tells. Exit codes:
    0 all took it, 2 no URL or one that is none, 3 a target didn't take it.
    """
    urls, warning = notify_urls_of(given)
    for told in (warning, hide_arguments(notify=given["notify"])):
        warn(told)
    if not urls:
        raise BadInput("live notify test needs a URL: --notify, --notify-file or LIVE_NOTIFY_URLS")
    outcomes = _try_all(urls, env, runbook_url, wait_sec)
    for name, is_sent in outcomes.items():
        click.echo(f"{'delivered' if is_sent else 'FAILED   '}  {name}")
    failed = [name for name, is_sent in outcomes.items() if not is_sent]
    if failed:
        raise CannotTell(f"{len(failed)} of {len(outcomes)} targets didn't take the test message")


def _try_all(urls: list[str], env: str, runbook_url: str, wait_sec: float) -> Mapping[str, bool]:
    """Return, by target, whether it took the test message in time; all are tried at once."""
    from projections.notify_targets import open_targets  # noqa: PLC0415

    targets = {target.name: target for target in open_targets(urls, env=env)}
    outcomes = dict.fromkeys(targets, False)
    title = f"[{Severity.INFO}] {env} test of Live Ledger's notifications"
    body = "\n".join(
        [
            f"Sent at {format_time(time.time_ns() // 1_000_000)} by `live notify test`.",
            "Next: nothing is to be done; notifications from a run come to the same place.",
            f"Runbook: {runbook_url}#{RUNBOOK[Kind.TEST]}",
        ]
    )

    def attempt(name: str) -> None:
        outcomes[name] = targets[name].send(title, body, Severity.INFO)

    # The library bounds each step; an answer that trickles in without end only this does.
    threads = [threading.Thread(target=attempt, args=(name,), daemon=True) for name in targets]
    for thread in threads:
        thread.start()
    ends_sec = time.monotonic() + wait_sec
    for thread in threads:
        thread.join(max(0.0, ends_sec - time.monotonic()))
    return dict(outcomes)
