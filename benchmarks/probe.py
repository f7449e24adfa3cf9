"""Run in a process of its own: open a ledger, fold its stream, print what that took, as JSON."""

import json
import re
import sys
import time
from pathlib import Path

from ledger.application import Ledger
from ledger.location import LedgerLocation


def peak_mib() -> float:
    """Return the most memory that this process has had; `ru_maxrss` counts its parent's too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak_kib = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert peak_kib is not None
    return int(peak_kib[1]) / 1024


def main(path: Path, stream_id: str) -> None:
    imported_mib = peak_mib()
    began = time.perf_counter()
    with Ledger.open(LedgerLocation(path)) as ledger:
        stream = ledger.stream(stream_id)
        taken = time.perf_counter() - began
    found = {
        "version": stream.version,
        "seconds": taken,
        "imported_mib": imported_mib,
        "peak_mib": peak_mib(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
