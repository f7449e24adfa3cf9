"""A whole window as a run does it: decided, appended, the LIVE_* files renewed."""

from eventsourcing.persistence import StoredEvent

from benchmarks import market
from benchmarks.measuring import Figure, Scale, interleaved
from benchmarks.raw import RawCommits
from cli.session import Session
from ledger.application import Ledger, StreamState
from ledger.location import LedgerLocation
from projections.artifacts import artifacts_of, write_artifacts
from projections.files import replace_files

AIM_RATIO = 4.0
PAYLOAD_BYTES = 1_600
"""About what an observation of five symbols takes."""


def measure(scale: Scale) -> list[Figure]:
    turns = scale.commits // 2
    artifacts = scale.folder / "artifacts"
    artifacts.mkdir()
    raw = RawCommits(scale.folder / "raw-window.sqlite")
    with Ledger.open(LedgerLocation(scale.folder / "window.sqlite")) as ledger:
        session = Session(ledger, StreamState(market.STREAM), market.START, market.ADOPTION)

        def whole(turn: int) -> None:
            readings = market.readings(turn)
            session.observe(readings, decided_at_ms=readings.start_ms + market.INTERVAL_MS)
            write_artifacts(ledger, session.stream, artifacts)

        def commit(turn: int) -> None:
            payload = b"x" * PAYLOAD_BYTES
            raw.commit([StoredEvent(market.STREAM, turn, "kpi_observed.v1", payload)])

        ours, limit = interleaved(turns, [whole, commit])
        files = artifacts_of(ledger, session.stream).files()
        made, replaced, _ = interleaved(
            turns // 4,
            [
                lambda _: artifacts_of(ledger, session.stream).files(),
                lambda _: replace_files(artifacts, files),
                lambda turn: commit(turns + turn),
            ],
        )
    raw.close()
    return [
        Figure(
            what="whole window: decide, append, artifacts", ours=ours * 1e3, unit="ms",
            better="lower", peer=limit * 1e3, peer_name="raw commit", aim=AIM_RATIO,
        ),
        Figure(
            what="  of it: three files written and renamed", ours=replaced * 1e3, unit="ms",
            better="lower", peer=limit * 1e3, peer_name="raw commit",
        ),
        Figure(
            what="  of it: making their contents", ours=made * 1e3, unit="ms", better="lower",
            peer=limit * 1e3, peer_name="raw commit",
        ),
    ]  # fmt: skip
