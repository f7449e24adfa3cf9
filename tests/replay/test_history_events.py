"""A history tells again what its ledger's events were, as far as deciding needs them."""

import shutil
from functools import partial
from pathlib import Path

import pytest
from replay_support import ledger_source

from domain.policy import Policy
from ledger.application import Ledger
from ledger.location import LedgerLocation
from projections.history import open_history
from projections.history_writer import HistoryWriter
from replay.comparing import Question, compare
from replay.history_events import events_of_history
from replay.replaying import replay
from replay.source import RecordedSource
from replay.tracks import Candidate, track_by_core

GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("*.sqlite"))
STRICT = Policy(min_warn_windows=1, min_ok_windows=2, unfreeze_after_ok_windows=3)


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a copy: not even an open to read may touch the original."""
    return Path(shutil.copy(request.param, tmp_path))


def test_a_history_is_decided_again_as_its_ledger_is(golden: Path, tmp_path: Path) -> None:
    folder = tmp_path / "history"
    candidates = [Candidate("as recorded", None), Candidate("strict", STRICT)]
    with Ledger.open(LedgerLocation(golden)) as ledger:
        ids = ledger.stream_ids()
        for stream_id in ids:
            HistoryWriter(folder, stream_id, now_ms=lambda: 0).rebuild(ledger)
        history = open_history(folder)
        assert sorted(history.streams) == ids
        for stream_id in ids:
            of_ledger = ledger_source(ledger, stream_id)
            of_history = RecordedSource(
                str(golden),
                history.streams[stream_id].state,
                partial(events_of_history, history, stream_id),
            )
            assert list(replay(of_history.commands())) == list(replay(of_ledger.commands()))
            ours, theirs = (track_by_core(one, candidates) for one in (of_history, of_ledger))
            assert ours.recorded is not None
            assert theirs.recorded is not None
            for mine, its in zip(
                [ours.recorded, *ours.tracks], [theirs.recorded, *theirs.tracks], strict=True
            ):
                assert mine.states == its.states
                assert mine.freezes == its.freezes
                for symbol in of_ledger.symbols:
                    assert str(mine.in_force.of(symbol)) == str(its.in_force.of(symbol))
                    assert str(mine.effective.of(symbol)) == str(its.effective.of(symbol))
            question = Question(flap_windows=5)
            assert compare(of_history, candidates, question) == compare(
                of_ledger, candidates, question
            )
