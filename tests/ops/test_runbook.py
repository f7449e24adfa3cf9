"""The runbook names every alert, and only commands, options, fields and keys that there are."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import click
import msgspec
import pytest
from ops_support import ROOT, RUNBOOK, rule_names, rules

from cli.main import live
from projections.notify_messages import COOLDOWN_SECTION, FROZEN_SECTION
from projections.notify_messages import RUNBOOK as SECTIONS
from projections.views import Decision, Summary

TEXT = RUNBOOK.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
LINES = [line.strip() for block in BLOCKS for line in block.splitlines()]
FENCED = re.compile(r"```.*?```", re.DOTALL)


def anchors() -> list[str]:
    """Return the headings' anchors, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", FENCED.sub("", TEXT), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def live_commands() -> Iterator[list[str]]:
    """Yield the words of every `live ...` that the runbook names, in blocks and in its text."""
    inline = re.findall(r"`(live [a-z][^`]*)`", FENCED.sub("", TEXT))
    for line in [*(line for line in LINES if line.startswith("live ")), *inline]:
        yield shlex.split(line, comments=True)


@pytest.mark.parametrize("words", list(live_commands()), ids=" ".join)
def test_every_command_and_each_of_its_options_exists(words: list[str]) -> None:
    command: click.Command = live
    names = words[1:]
    while isinstance(command, click.Group) and names:
        found = command.get_command(click.Context(command), names[0])
        assert found is not None, f"no command {' '.join(words)}"
        command, names = found, names[1:]
    if isinstance(command, click.Group) or (not names and " ".join(words) not in LINES):
        return  # Named in passing.
    # Parsed as it would be, which checks options, arguments and their values; nothing is run.
    command.make_context(command.name or "", [*names], resilient_parsing=False)


def test_at_least_the_known_commands_are_used() -> None:
    used = {tuple(words[:3]) if words[1] == "override" else words[1] for words in live_commands()}
    assert {"status", "export", "report", "replay"} <= used
    for verb in ("freeze", "cap", "unfreeze", "clear", "list"):
        assert ("live", "override", verb) in used


def test_whatever_a_notification_links_to_is_there() -> None:
    assert {*SECTIONS.values(), FROZEN_SECTION, COOLDOWN_SECTION} <= set(anchors())


@pytest.mark.parametrize("name", rule_names())
def test_every_alert_has_a_section_that_its_link_leads_to(name: str) -> None:
    (rule,) = [rule for rule in rules() if rule["alert"] == name]
    path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert ROOT / path == RUNBOOK
    assert anchors().count(anchor) == 1
    section = re.split(r"^### ", TEXT, flags=re.MULTILINE)
    (found,) = [part for part in section if part.splitlines()[0] == name]
    assert rule["labels"]["severity"] in found, "it says how severe it is"


def test_every_link_within_the_runbook_leads_somewhere() -> None:
    linked = re.findall(r"\]\(#([\w-]+)\)", TEXT)
    assert len(linked) > 5
    assert set(linked) <= set(anchors())
    for path in re.findall(r"\]\(([\w./-]+)\)", TEXT):
        assert (RUNBOOK.parent / path).exists(), path


def test_every_field_that_jq_asks_for_exists() -> None:
    views: dict[str, Any] = {"LIVE_SUMMARY": Summary, "LIVE_DECISION": Decision}
    asked = [
        (view, field)
        for expression, view in re.findall(r"jq '([^']*)' \S*/(LIVE_\w+)\.json", "\n".join(LINES))
        for field in re.findall(r"\.(\w+)", expression)
    ]
    assert len(asked) > 8
    for view, field in asked:
        known = {found.name for found in msgspec.structs.fields(views[view])}
        assert field in known, (view, field)


def test_every_redis_key_is_one_that_is_documented() -> None:
    documented = (ROOT / "docs/consuming.md").read_text(encoding="utf-8")
    named = re.findall(r"prod:bybit:live:(\w+)", TEXT)
    assert len(named) > 5
    for name in named:
        assert f"| `{name}" in documented, name
