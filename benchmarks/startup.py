"""How long one waits for `live --help`."""

import subprocess
import sys

from benchmarks.measuring import ROOT, Figure, Scale, interleaved

AIM_SEC = 0.25


def measure(scale: Scale) -> list[Figure]:
    del scale
    help_sec, bare_sec = interleaved(
        7, [lambda _: _run("-m", "cli.main", "--help"), lambda _: _run("-c", "pass")]
    )
    return [
        Figure(what="live --help", ours=help_sec, unit="s", better="lower", aim=AIM_SEC),
        Figure(what="  of it: Python itself", ours=bare_sec, unit="s", better="lower"),
    ]


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
