"""A run that is killed and resumed decides as one that never was."""

import random
import signal
import time
from pathlib import Path

import pytest
from support import decisions, live, records, row, spawn, wait_for_version, write_jsonl

from domain.events import KpiObserved

KILLS = 50
WINDOWS = 3_000


def window(index: int) -> dict[str, object]:
    noise = random.Random(index)
    return {
        **row(0),
        "window_start": 1_767_650_400 + 60 * index,
        "edge_bps": noise.gauss(3.6, 0.5),
        "p95_latency_ms": noise.gauss(280, 40),
    }


def iso(start: object) -> str:
    assert isinstance(start, int)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start))


@pytest.fixture
def series(folder: Path) -> Path:
    rows = [window(index) for index in range(WINDOWS) if index % 97]
    return write_jsonl(
        folder / "series.jsonl",
        [{**line, "window_start": iso(line["window_start"])} for line in rows],
    )


def test_fifty_kills_at_random_points_leave_the_decisions_of_an_unbroken_run(
    folder: Path, series: Path
) -> None:
    unbroken = live("run", "--feed", f"file:{series}", "--ledger", "unbroken.sqlite", "--quiet")
    assert unbroken.code == 0
    chance = random.Random(0)
    ledger = folder / "killed.sqlite"
    version = 0
    for _ in range(KILLS):
        process = spawn(
            "run", "--feed", f"file:{series}", "--ledger", ledger,
            "--speed", "30000", "--quiet", cwd=folder,
        )  # fmt: skip
        version = wait_for_version(ledger, version + chance.randint(1, 20), process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the file is too short for so many kills"
    finished = live("run", "--feed", f"file:{series}", "--ledger", "killed.sqlite", "--quiet")
    assert finished.code == 0, finished.err
    resumed = decisions(records(folder / "killed.sqlite"))
    assert resumed == decisions(records(folder / "unbroken.sqlite"))
    assert sum(isinstance(event, KpiObserved) for event in resumed) == len(
        [i for i in range(WINDOWS) if i % 97]
    )
    versions = [record.version for record in records(folder / "killed.sqlite")]
    assert versions == list(range(1, len(versions) + 1))
