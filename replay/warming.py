"""
Compiled code on disk, so that only the first run on a machine ever waits for the compiler.

What the folder's name is made of is all that compiled code depends on: the sources here, numba,
Python and the kind of machine. numba itself notices a change of a function's own module only.
"""

import hashlib
import importlib.metadata
import platform
import sys
from functools import cache
from pathlib import Path

import domain.kernel
from domain.kernel.compiling import can_compile, keep_compiled_in

_DONE = "complete"


def use_compiled(base: Path) -> Path | None:
    """
    Keep compiled code under this folder; return where, or None if it can't be written to.

    Nothing is lost without it but the time to compile.
    """
    folder = base / _version() if can_compile() else None
    if folder is not None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            folder = None
    keep_compiled_in(None if folder is None else str(folder))
    return folder


@cache
def _version() -> str:
    """Return a name for everything that compiled code depends on."""
    known = hashlib.sha256()
    for path in sorted(Path(domain.kernel.__file__).parent.glob("*.py")):
        known.update(path.read_bytes())
    numba = importlib.metadata.version("numba")
    known.update(f"{numba} {sys.version} {platform.platform()} {platform.processor()}".encode())
    return known.hexdigest()[:16]
