"""
A `live run` that breaks at one step of one window; a program, not a test.

    python broken_run.py STEP WHEN NTH OPTIONS...

STEP is `append`, `publish`, `artifacts`, `answer` or `leave`; WHEN is `before` or `after` for kill
-9 there, `damage` for a ledger that can't be written from then on, `slow` for a step that takes its
time from then on, `hang` for one that never ends, `interrupt` for Ctrl-C twice. NTH counts the
calls from 1.
"""

import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import cli.outputs
from cli.main import main
from cli.publishing import LedgerPublisher
from cli.run import run
from domain.errors import LedgerDamaged
from ledger.application import Ledger
from ledger.inbox import Inbox

SLOW_SEC: Final = 0.2
STEPS: Final[dict[str, tuple[Any, str]]] = {
    "append": (Ledger, "append"),
    "publish": (LedgerPublisher, "publish"),
    "artifacts": (cli.outputs, "write_artifacts"),
    "answer": (Inbox, "answer"),
    "leave": (LedgerPublisher, "leave"),
}


def breaking(work: Callable[..., Any], when: str, nth: int) -> Callable[..., Any]:
    """Return the step with a break at its nth call."""
    calls = 0

    @functools.wraps(work)
    def broken(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if when == "damage" and calls >= nth:
            raise LedgerDamaged("the ledger can't be written: disk I/O error")
        if when == "slow" and calls >= nth:
            time.sleep(SLOW_SEC)
        while when == "hang" and calls >= nth:
            time.sleep(SLOW_SEC)
        if when == "before" and calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        if when == "interrupt" and calls == nth:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
        done = work(*args, **options)
        if when == "after" and calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    return broken


if __name__ == "__main__":
    step, when, nth, *options = sys.argv[1:]
    owner, name = STEPS[step]
    setattr(owner, name, breaking(getattr(owner, name), when, int(nth)))
    main(run, options)
