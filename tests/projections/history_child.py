"""A writer in a process of its own, with small batches, for tests that kill it."""

import sys
import time
from pathlib import Path

from ledger.application import Ledger
from ledger.location import LedgerLocation
from projections import history_writer
from projections.history_writer import HistoryWriter

history_writer.BATCH_RECORDS = 7  # type: ignore[misc]
history_writer.FILES_A_DAY_MAX = 3  # type: ignore[misc]
history_writer.RETIRED_MS = 0  # type: ignore[misc]


def main(deed: str, ledger: str, folder: str) -> None:
    writer = HistoryWriter(Path(folder), "dev:bybit", now_ms=lambda: time.time_ns() // 1_000_000)
    with Ledger.open(LedgerLocation(Path(ledger)), read_only=True) as opened:
        print("ready", flush=True)
        if deed == "rebuild":
            writer.rebuild(opened)
        else:
            writer.catch_up(opened)
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
