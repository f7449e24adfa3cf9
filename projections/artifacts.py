"""
`LIVE_SUMMARY.json`, `LIVE_DECISION.json` and `LIVE_REPORT.md`: a stream as of one version.

They are a function of the ledger alone: making them again gives the same bytes, so no clock is
read and `generated_at_utc` is the window's end. Source: LIVE_MODE_GUIDE.md, Files & Artifacts;
DESIGN.md section 3, Outputs.
"""

from pathlib import Path
from typing import Final

import msgspec

from ledger.application import Ledger, StreamState
from projections.files import replace_files
from projections.report import report_of
from projections.views import Decision, LedgerPlace, Summary, decision_of, summary_of

SUMMARY: Final = "LIVE_SUMMARY.json"
DECISION: Final = "LIVE_DECISION.json"
REPORT: Final = "LIVE_REPORT.md"


class Artifacts(msgspec.Struct, frozen=True):
    """All three, of one version."""

    summary: Summary
    decision: Decision
    report: str

    def files(self) -> dict[str, bytes]:
        """Return the files' contents by name."""
        return {
            SUMMARY: _pretty(self.summary),
            DECISION: _pretty(self.decision),
            REPORT: self.report.encode(),
        }


def artifacts_of(ledger: Ledger, stream: StreamState) -> Artifacts:
    """
    Return the artifacts of a stream as folded.

    Raises:
        CannotTell: if no window has been observed yet.
    """
    place = LedgerPlace(stream.id, stream.version, ledger.position(stream))
    summary = summary_of(stream.state, place)
    decision = decision_of(stream.state, place)
    return Artifacts(summary, decision, report_of(summary, decision))


def write_artifacts(ledger: Ledger, stream: StreamState, folder: Path) -> Artifacts:
    """Make the artifacts, put them into the folder and return them; see `replace_files`."""
    artifacts = artifacts_of(ledger, stream)
    replace_files(folder, artifacts.files())
    return artifacts


def _pretty(value: Summary | Decision) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
