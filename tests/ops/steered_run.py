"""
A `live run` whose disk and clock are steered by files; a program, not a test.

    python steered_run.py OPTIONS...

While `hold` is in its folder, an append doesn't return, as on a disk that stalls. `clock` holds
milliseconds by which its clock is wrong.
"""

import time
from pathlib import Path
from typing import Any

from cli.clock import SystemClock
from cli.main import main
from cli.run import run
from ledger.application import Ledger

HOLD, CLOCK = Path("hold"), Path("clock")


def steer() -> None:
    append, now_ms = Ledger.append, SystemClock.now_ms

    def held(self: Ledger, *args: Any, **options: Any) -> Any:
        while HOLD.exists():
            time.sleep(0.05)
        return append(self, *args, **options)

    def steered(self: SystemClock) -> int:
        return now_ms(self) + (int(CLOCK.read_text() or 0) if CLOCK.exists() else 0)

    Ledger.append = held  # type: ignore[method-assign]
    SystemClock.now_ms = steered  # type: ignore[method-assign]


if __name__ == "__main__":
    steer()
    main(run)
