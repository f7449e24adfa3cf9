"""
Pin what new events are written as: `PYTHONPATH=. python tests/ledger/pin_events.py`.

It adds what isn't pinned yet and changes nothing that is: pinned bytes hold for ever.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import msgspec
from ledger_examples import EXAMPLES, ORIGIN_MS, READINGS, STREAM, readings_at

from domain.policy import Policy
from domain.state import FOLD_VERSION, State
from domain.windows import content_hash
from ledger.codec import LedgerMapper, Record

PINNED_PATH: Final = Path(__file__).with_name("pinned_events.json")


def current() -> dict[str, Any]:
    """Return what this program writes of every example, and the hashes that are stored."""
    records = [
        Record(stream=STREAM, version=3, event=event, decided_at_ms=ORIGIN_MS)
        for event in EXAMPLES.values()
    ]
    stored = [LedgerMapper().to_stored(record) for record in records]
    window = readings_at(0)
    return {
        **{row.topic: row.state.decode() for row in stored},
        "content_hash": content_hash(window.start_ms, window.symbols),
        "content_hash of READINGS": content_hash(0, {"BTCUSDT": READINGS}),
        "policy_hash": Policy().hash,
        "state_shape": state_shape(),
    }


def state_shape() -> dict[str, Any]:
    """Return a name for the shape of the fold's state, and the fold version that goes with it."""
    written = json.dumps(_without_words(msgspec.json.schema(State)), sort_keys=True)
    return {
        "fold_version": FOLD_VERSION,
        "sha256": hashlib.sha256(written.encode()).hexdigest(),
    }


def _without_words(part: Any) -> Any:
    if isinstance(part, dict):
        return {key: _without_words(value) for key, value in part.items() if key != "description"}
    return [_without_words(value) for value in part] if isinstance(part, list | tuple) else part


if __name__ == "__main__":
    pinned = json.loads(PINNED_PATH.read_bytes()) if PINNED_PATH.exists() else {}
    text = json.dumps({**current(), **pinned}, indent=1, ensure_ascii=False) + "\n"
    PINNED_PATH.write_text(text, encoding="utf-8")
