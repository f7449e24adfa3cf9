"""
What a history was made from: whether a manifest and a ledger belong together.
"""

import msgspec

from domain.errors import CannotTell, LedgerDamaged
from domain.events import RunStarted
from domain.state import FOLD_VERSION, State
from ledger.application import Ledger, StreamState
from projections.history_manifest import Manifest
from projections.history_schema import SCHEMA_VERSION


def state_of(manifest: Manifest) -> State:
    """Return the fold up to the manifest's version."""
    return msgspec.json.decode(manifest.state, type=State)


def ledger_id_of(ledger: Ledger, stream_id: str) -> str:
    """
    Return the id that a stream's first run gave it.

    Raises:
        CannotTell: if the stream isn't there.
    """
    for record in ledger.page(stream_id, after=0, limit=1):
        if isinstance(record.event, RunStarted):
            return record.event.ledger_id
    raise CannotTell(f"the ledger {ledger.location} has no {stream_id}")


def check_belongs(manifest: Manifest, ledger: Ledger) -> None:
    """
    Check that a history was made from a ledger, and can be continued by this program.

    Raises:
        CannotTell: if it is of another version of the program.
        LedgerDamaged: if it is another ledger's, or the ledger has lost events that it has.
    """
    made_by = (manifest.schema_version, manifest.fold_version)
    if made_by != (SCHEMA_VERSION, FOLD_VERSION):
        raise CannotTell(
            f"the history of {manifest.stream} has version {made_by}, this program makes "
            f"{(SCHEMA_VERSION, FOLD_VERSION)}; `live rebuild history` makes it again"
        )
    ledger_id = ledger_id_of(ledger, manifest.stream)
    if ledger_id != manifest.ledger_id:
        raise LedgerDamaged(
            f"the history of {manifest.stream} is that of ledger {manifest.ledger_id}, was given "
            f"{ledger_id} ({ledger.location}); name another folder with --history, or make it "
            "again from this ledger with `live rebuild history`"
        )
    if not manifest.version:
        return
    position = ledger.position(StreamState(manifest.stream, manifest.version))
    if position != manifest.position:
        found = f"position {position}" if position else "no such event"
        raise LedgerDamaged(
            f"stream {manifest.stream}: expected version {manifest.version} at position "
            f"{manifest.position}, which the history goes up to, was {found}: the ledger "
            f"{ledger.location} has lost events, or is another one's copy"
        )
