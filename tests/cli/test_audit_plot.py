"""`live audit plot`: what is drawn is what is recorded, and it can be drawn."""

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from support import FIRST_MS, live, row, write_jsonl

from domain.commands import ApplyOverride
from domain.controller import decide
from domain.events import Override, OverrideKind
from ledger.application import Ledger
from ledger.location import LedgerLocation
from projections import plotting
from projections.history import open_history
from projections.history_manifest import default_folder
from projections.plotting import Picture, picture_of

MINUTE = 60_000
PAIR = ("BTCUSDT", "ETHUSDT")


def at(minute: float) -> int:
    return FIRST_MS + round(minute * MINUTE)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """
    Forty minutes: a freeze in window 10 by ETHUSDT's risk, window 20 missing, a cap from 5.5 on.
    """
    rows = [
        row(index, symbol, **({"risk_ratio": 0.45} if (index, symbol) == (10, "ETHUSDT") else {}))
        for index in range(40)
        for symbol in PAIR
        if index != 20
    ]
    path = tmp_path / "desk.sqlite"
    first = write_jsonl(tmp_path / "first.jsonl", rows[: 6 * 2])
    whole = write_jsonl(tmp_path / "whole.jsonl", rows)
    args = ("--ledger", path, "--artifacts", tmp_path / "a", "--ramp-profile", "B", "--quiet")
    assert live("run", "--feed", f"file:{first}", *args).code == 0
    cap = Override(
        id="cap-1", kind=OverrideKind.CAP, actor="ann", reason="look", applied_at_ms=at(6.5),
        symbol="BTCUSDT", cap=0.25,
    )  # fmt: skip
    with Ledger.open(LedgerLocation(path)) as opened:
        stream = opened.stream("dev:bybit")
        events = decide(stream.state.policy, stream.state, ApplyOverride(override=cap))
        opened.append(stream, events, decided_at_ms=at(6.5))
    assert live("run", "--feed", f"file:{whole}", *args).code == 0
    return path


def picture(path: Path, **chosen: Any) -> Picture:
    span = {"from_ms": None, "to_ms": None, **chosen}
    with Ledger.open(LedgerLocation(path), read_only=True) as opened:
        history = open_history(default_folder(path), ledger=opened, stream_id="dev:bybit")
        return picture_of(history, **span)


def test_states_are_bands_from_transition_to_transition(ledger: Path) -> None:
    data = picture(ledger).spec["datasets"]
    assert data["bands"] == [
        {"state": "ACTIVE", "from": at(0), "to": at(11)},
        {"state": "FROZEN", "from": at(11), "to": at(40)},
    ]
    assert data["gaps"] == [{"from": at(20), "to": at(21)}]


def test_a_span_begins_in_the_state_that_held_then(ledger: Path) -> None:
    data = picture(ledger, from_ms=at(15), to_ms=at(30)).spec["datasets"]
    assert data["bands"] == [{"state": "FROZEN", "from": at(15), "to": at(30)}]


def test_overrides_are_marked_for_as_long_as_they_hold(ledger: Path) -> None:
    told = {"from": at(6.5), "to": at(40), "text": "cap 0.25 BTCUSDT by ann"}
    assert picture(ledger).spec["datasets"]["overrides"] == [told]
    assert picture(ledger, to_ms=at(6)).spec["datasets"]["overrides"] == []


def test_every_value_is_drawn_at_its_windows_end_beside_its_threshold(ledger: Path) -> None:
    points = picture(ledger).spec["datasets"]["kpis"]
    risk = {
        (point["symbol"], point["time"]): (point["value"], point["threshold"])
        for point in points
        if point["kpi"] == "risk_ratio"
    }
    assert risk[("ETHUSDT", at(11))] == (0.45, 0.4)
    assert risk[("BTCUSDT", at(11))] == (0.22, 0.4)
    assert len(points) == 5 * 2 * 39


def test_what_may_be_traded_is_drawn_with_caps_and_freezes(ledger: Path) -> None:
    points = picture(ledger, symbol="BTCUSDT").spec["datasets"]["throttles"]
    assert {point["symbol"] for point in points} == {"BTCUSDT"}
    throttles = {point["time"]: point["value"] for point in points}
    assert [throttles[at(minute)] for minute in (6, 8, 11)] == [1.0, 0.25, 0.0]


def test_a_long_span_is_told_in_bins_by_their_worst_windows(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plotting, "POINTS_MAX", 10)
    drawn = picture(ledger)
    assert drawn.notes == ("each point is the worst of 4 windows",)
    risk = {
        point["time"]: point["value"]
        for point in drawn.spec["datasets"]["kpis"]
        if point["kpi"] == "risk_ratio" and point["symbol"] == "ETHUSDT"
    }
    assert [minute for minute in range(41) if risk.get(at(minute)) == 0.45] == [12]
    assert len(risk) == 10


def test_more_symbols_than_can_be_told_apart_are_left_out_and_that_is_said(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plotting, "SYMBOLS_MAX", 1)
    drawn = picture(ledger)
    assert drawn.notes == ("1 of 2 symbols; name one with --symbol",)
    assert {point["symbol"] for point in drawn.spec["datasets"]["kpis"]} == {"BTCUSDT"}


def test_an_svg_holds_the_titles_and_a_png_is_one(ledger: Path, tmp_path: Path) -> None:
    for name in ("out.svg", "out.png"):
        outcome = live("audit", "plot", tmp_path / name, "--ledger", ledger)
        assert outcome.code == 0, outcome.err
    texts = " ".join(ET.parse(tmp_path / "out.svg").getroot().itertext())
    assert "dev:bybit, 2026-01-05T22:00:00Z to 2026-01-05T22:40:00Z" in texts
    assert "edge_bps (bps), breached when < the dashed threshold" in texts
    assert "cap 0.25 BTCUSDT by ann" in texts
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("file", "options", "code", "told"),
    [
        ("out.pdf", (), 2, "FILE: expected the ending .svg or .png, was out.pdf"),
        ("none/out.svg", (), 2, "none/out.svg can't be written"),
        ("out.svg", ("--symbol", "SOLUSDT"), 2, "--symbol: dev:bybit has BTCUSDT, ETHUSDT"),
        ("out.svg", ("--from", "2026-02-01"), 3, "nothing is recorded from 2026-02-01"),
    ],
)
def test_bad_questions_are_answered_and_nothing_is_written(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    file: str, options: tuple[str, ...], code: int, told: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    outcome = live("audit", "plot", file, "--ledger", ledger, *options)
    assert (outcome.code, told in outcome.err) == (code, True), outcome.err
    assert set(tmp_path.iterdir()) == before


def test_without_the_extra_it_says_how_to_have_it(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "vl_convert":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    outcome = live("audit", "plot", tmp_path / "out.svg", "--ledger", ledger)
    assert outcome.code == 2
    assert "pip install 'live-ledger[plot]'" in outcome.err
