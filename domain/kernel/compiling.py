"""
Compiled versions of plain functions, made when they are asked for.

The kernels are plain Python functions over arrays. Where numba is installed and a job is worth the
wait, `compiled` gives the machine's version of one: compiled once for a set of types, kept on disk,
and free of the interpreter's lock. Without numba the plain function itself does the work, slowly.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_folder: Final[dict[str, str]] = {}
"""Under "kept": where compiled code is kept; empty for in memory only."""


def can_compile() -> bool:
    """Return whether numba is installed; it isn't imported to find out."""
    return find_spec("numba") is not None


def keep_compiled_in(folder: str | None) -> None:
    """
    Say where compiled code is kept, before anything is compiled; None for in memory only.

    numba notices a change of the function's own module only, so the folder should be another one
    for every version of this package's sources.
    """
    _folder.clear()
    if folder is not None:
        _folder["kept"] = folder


def compiled(function: Callable[P, R], *helpers: Callable[..., Any]) -> Callable[P, R]:
    """
    Return the compiled version of a function; itself where numba isn't installed.

    Args:
        function: plain Python over arrays and numbers.
        helpers: the plain functions that it calls, at whatever depth.
    """
    return _compile(function, helpers) if can_compile() else function


@cache
def _compile(function: Callable[P, R], helpers: tuple[Callable[..., Any], ...]) -> Callable[P, R]:
    numba: Any = import_module("numba")
    register: Any = import_module("numba.extending").register_jitable
    if _folder:
        numba.config.CACHE_DIR = _folder["kept"]
    for helper in helpers:
        _register(helper, register)
    made: Callable[P, R] = numba.njit(function, nogil=True, cache=bool(_folder))
    return made


@cache
def _register(helper: Callable[..., Any], register: Callable[..., Any]) -> None:
    register(helper)
