"""What docs/notifications.md shows is what is told."""

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
from click.testing import CliRunner
from decider_spec import BTC, CRIT, ETH, SHORT, SOL, WARN, at, profile
from msgspec.structs import replace
from notify_story import Story

from cli.main import live
from cli.notifying import written
from domain.commands import ObserveClock, ReportExternalWrite, ReportFill
from domain.policy import Policy
from projections.notify_messages import (
    COOLDOWN_SECTION,
    FROZEN_SECTION,
    RUNBOOK,
    Kind,
    Level,
    Message,
)
from projections.notify_targets import open_targets

DOCS = Path(__file__).parents[2] / "docs" / "notifications.md"
TWO_FREEZE = replace(SHORT, global_freeze_symbols=2)


def shown(message: Message) -> str:
    return f"{message.title}\n\n{message.body}"


def episode() -> Iterator[str]:
    story = Story(Level.WARN, Policy(), BTC, ETH, limits=profile(2), debounce_minutes=5)
    story.windows(3, BTCUSDT=WARN)
    story.windows(4)
    story.windows(1, BTCUSDT=CRIT)
    story.windows(24)
    story.windows(1)
    story.windows(1, BTCUSDT=CRIT)
    story.windows(24 + 5)
    yield from map(shown, story.messages())


def repeat() -> Iterator[str]:
    story = Story(Level.CRIT, Policy(), BTC, limits=profile(1))
    story.windows(1, BTCUSDT=CRIT)
    (message,) = story.messages()
    story.windows(24)
    message = replace(message, decided_at_ms=at(1))
    title, body = written(message, story.state, may_repeat=True, now_ms=at(150))
    yield f"{title}\n\n{body}"


def others() -> Iterator[str]:
    story = Story(Level.WARN, TWO_FREEZE, BTC, ETH, SOL, limits=profile(3))
    story.windows(1, ETHUSDT=CRIT)
    story.override("cap", cap=0.3, minutes=30)
    yield from map(shown, story.messages())
    frozen = Story(Level.WARN, SHORT, BTC)
    frozen.windows(1, BTCUSDT=CRIT)
    frozen.messages()
    frozen.when(
        ReportFill(
            symbol=BTC,
            filled_at_ms=at(1.4),
            frozen_since_ms=at(1),
            notional=40.0,
            grace_ms=5_000,
        )
    )
    frozen.when(
        ReportExternalWrite(
            id="w",
            key="prod:bybit:live:state",
            symbol=None,
            found="ACTIVE",
            expected="FROZEN",
            at_ms=at(1.5),
        )
    )
    frozen.when(ObserveClock(window=at(-60)))
    yield from map(shown, frozen.messages())


def examples() -> list[str]:
    return [*episode(), *others(), *repeat()]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)\n```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


def test_the_messages_shown_are_those_that_are_told() -> None:
    assert blocks("text") == examples()


def test_every_kind_of_message_is_in_the_table() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for kind in Kind:
        assert f"`{kind}`" in text, kind
    for section in RUNBOOK.values():
        assert f"#{section}" in text


def test_every_section_that_is_linked_is_in_the_runbook() -> None:
    runbook = DOCS.with_name("runbook.md")
    if not runbook.exists():
        pytest.skip("there is no runbook yet")
    headings = re.findall(r"^#+ (.*)$", runbook.read_text(encoding="utf-8"), re.M)
    anchors = {re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings}
    assert {*RUNBOOK.values(), FROZEN_SECTION, COOLDOWN_SECTION} <= anchors


def test_every_url_shown_is_one() -> None:
    urls = re.findall(r"^\| [^|]+ \| `([a-z]+://[^`]+)`", DOCS.read_text(encoding="utf-8"), re.M)
    assert len(urls) >= 6
    assert len(open_targets(urls)) == len(urls)


@pytest.mark.parametrize("line", [each for block in blocks("bash") for each in block.splitlines()])
def test_every_command_shown_has_options_that_exist(line: str) -> None:
    words = shlex.split(line, comments=True)
    while words and "=" in words[0]:
        words.pop(0)
    if not words:
        return
    assert words[0] == "live"
    command = list(takewhile(lambda word: not word.startswith("-"), words[1:]))
    known = CliRunner().invoke(live, [*command, "--help"]).output
    for word in words:
        assert not word.startswith("--") or word in known, word
