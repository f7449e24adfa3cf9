"""`docs/incident-review.md`: what it quotes is what its commands say of the real data."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ROOT, live

PAGE = ROOT / "docs" / "incident-review.md"
REAL_DATA = os.environ.get("LIVE_REAL_DATA")
LEFT_OUT = "..."

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def quotations() -> Iterator[tuple[str, list[str]]]:
    """Yield every command of the page, in order, with the lines that are quoted of its answer."""
    for block in _BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = part.splitlines()
            yield command, lines


def missing(quoted: list[str], said: list[str]) -> str | None:
    """Return the first quoted line that isn't where it should be; `...` stands for any lines."""
    place, anywhere = 0, False
    for line in quoted:
        if line == LEFT_OUT:
            anywhere = True
            continue
        end = len(said) if anywhere else place + 1
        found = next((at for at in range(place, min(end, len(said))) if said[at] == line), None)
        if found is None:
            return line
        place, anywhere = found + 1, False
    return None if anywhere or place == len(said) else f"more after {quoted[-1:]}: {said[place]}"


def test_a_quotation_is_held_to_every_line_but_those_left_out() -> None:
    said = ["one", "two", "three"]
    assert missing(["one", "two", "three"], said) is None
    assert missing(["one", LEFT_OUT, "three"], said) is None
    assert missing(["one", LEFT_OUT], said) is None
    assert missing(["one", "three"], said) == "three"
    assert missing(["three", LEFT_OUT, "one"], said) == "three"
    assert missing(["one", LEFT_OUT, "four"], said) == "four"
    assert missing(["one", "two"], said) == "more after ['two']: three"


@pytest.mark.skipif(REAL_DATA is None, reason="LIVE_REAL_DATA isn't set")
def test_the_reviews_commands_say_what_it_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert REAL_DATA is not None
    data = str(Path(REAL_DATA).resolve())
    for name in [name for name in os.environ if name.startswith("LIVE_")]:
        monkeypatch.delenv(name)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    asked = 0
    for command, quoted in quotations():
        words = shlex.split(command.replace("$LIVE_REAL_DATA", data))
        assert words[0] == "live"
        outcome = live(*words[1:])
        said = [line.rstrip() for line in (outcome.out + outcome.err).splitlines()]
        assert outcome.code in (0, 1), f"{command}: {outcome.err}"
        wrong = missing([line.rstrip() for line in quoted], said)
        assert wrong is None, f"{command}: expected the answer to have {wrong!r}, was {said}"
        asked += 1
    assert asked > 15
