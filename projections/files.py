"""
Writing files that a reader never sees half-written.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from domain.errors import BadInput


def prepare_folder(folder: Path, *, option: str = "--artifacts") -> None:
    """
    Make the folder if it isn't there, and see that files can be made in it.

    Raises:
        BadInput: naming the option, the folder and the cause.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BadInput(f"{option}: {folder} can't be written: {error.strerror}") from None


def replace_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """
    Put the files into the folder, each renamed into place after all have been written.

    A reader sees each file whole, the old or the new; all of one set carry the same ledger
    version, which tells a reader that met the moment between two renames.

    Raises:
        BadInput: if a file can't be written; the old ones are still there.
    """
    temporary = {name: f"{folder}/.{name}.{os.getpid()}.tmp" for name in files}
    try:
        for name, content in files.items():
            _write(temporary[name], content)
        for name, path in temporary.items():
            os.replace(path, f"{folder}/{name}")  # noqa: PTH105 - four times quicker than pathlib's
    except OSError as error:
        for path in temporary.values():
            with contextlib.suppress(OSError):
                Path(path).unlink(missing_ok=True)
        raise BadInput(f"--artifacts: {folder} can't be written: {error.strerror}") from None


def _write(path: str, content: bytes) -> None:
    """Write a whole file without the buffers that a stream would bring."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
    finally:
        os.close(descriptor)
