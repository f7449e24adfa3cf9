"""A signal ends a run whenever it comes."""

import faulthandler
import random
import signal

from cli.clock import StopFlag

TURNS = 5_000


def test_a_signal_may_come_at_any_moment_of_a_wait() -> None:
    chance = random.Random(0)
    flag = StopFlag()
    before = signal.signal(signal.SIGALRM, lambda *_: flag.set())
    faulthandler.dump_traceback_later(60, exit=True)  # A deadlock can't be left in another way.
    try:
        for _ in range(TURNS):
            flag = StopFlag()
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 3e-4))
            while not flag.is_set():
                flag.wait(1e-5)
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)
