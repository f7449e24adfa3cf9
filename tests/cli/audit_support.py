"""Stories as real ledgers, and the commands that look into them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from decider_spec import Ledger as Story
from support import Outcome, live

import ledger.application
import ledger.snapshots
from domain.events import Event
from ledger.application import Ledger, StreamState
from ledger.location import LedgerLocation

STREAM = "dev:bybit"


def store(path: Path, events: Sequence[Event], stream_id: str = STREAM) -> StreamState:
    """Write the events into a ledger, and return the stream then."""
    with Ledger.open(LedgerLocation(path)) as opened:
        return opened.append(StreamState(stream_id), events, decided_at_ms=None)


def stored(story: Story, path: Path = Path("l.sqlite")) -> Path:
    """Write a story into a ledger and return where it is."""
    store(path, story.events)
    return path


def shorten_blocks(monkeypatch: pytest.MonkeyPatch, versions: int = 5) -> None:
    """Take snapshots far more often than in life."""
    for module in (ledger.application, ledger.snapshots):
        monkeypatch.setattr(module, "SNAPSHOT_EVERY_VERSIONS", versions)


def ask(*args: str | Path) -> Outcome:
    """Run a command on `l.sqlite`."""
    return live(*args, "--ledger", "l.sqlite")


def lines_of(*args: str | Path) -> list[str]:
    """Return what a command prints, which must end with 0."""
    outcome = ask(*args)
    assert outcome.code == 0, outcome.err
    return outcome.out.splitlines()


def rows_of(*args: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a command's JSON."""
    return [json.loads(line) for line in lines_of(*args, "--json")]
