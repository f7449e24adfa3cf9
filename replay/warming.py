"""
Compiled code on disk, so that nobody waits for the compiler twice, and seldom once.

What the folder's name is made of is all that compiled code depends on: the sources here, numba,
Python and the kind of machine; numba itself notices a change of a function's own module only. Until
the folder is complete, Python integers do the work, and another process compiles meanwhile: within
this one the compiler would hold the interpreter's lock.
"""

import hashlib
import importlib.metadata
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

import domain.kernel
from domain.kernel.compiling import can_compile, keep_compiled_in

_COMPLETE: Final = "complete"
_chosen: Final[dict[str, Path]] = {}
"""Under "base" and "folder": where compiled code is kept; empty for nowhere."""


def use_compiled(base: Path) -> bool:
    """
    Keep compiled code under this folder; return False if there can be none.

    Nothing is lost without it but speed.
    """
    _chosen.clear()
    if not can_compile():
        return False
    folder = base / _version()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        keep_compiled_in(None)
        return False
    keep_compiled_in(str(folder))
    _chosen.update(base=base, folder=folder)
    return True


def is_warm() -> bool:
    """Return whether all compiled code is on disk, so that using it costs no more than loading."""
    return "folder" in _chosen and (_chosen["folder"] / _COMPLETE).exists()


def start_warming() -> "subprocess.Popen[bytes] | None":
    """Compile in another process, for this run's rest and the next; None if there is nowhere to."""
    if "base" not in _chosen or is_warm():
        return None
    return subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-m", "replay.warming", str(_chosen["base"])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def warm() -> None:
    """Compile everything, by sweeping a few windows in every way there is."""
    from replay.warming_sweeps import sweep_every_way  # noqa: PLC0415

    sweep_every_way()
    (_chosen["folder"] / _COMPLETE).touch()


@cache
def _version() -> str:
    """Return a name for everything that compiled code depends on."""
    known = hashlib.sha256()
    for path in sorted(Path(domain.kernel.__file__).parent.glob("*.py")):
        known.update(path.read_bytes())
    numba = importlib.metadata.version("numba")
    known.update(f"{numba} {sys.version} {platform.platform()} {platform.processor()}".encode())
    return known.hexdigest()[:16]


if __name__ == "__main__":
    if use_compiled(Path(sys.argv[1])):
        warm()
