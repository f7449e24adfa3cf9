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

import numpy as np

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
    _register_instructions()
    for helper in helpers:
        _register(helper, register)
    made: Callable[P, R] = numba.njit(function, nogil=True, cache=bool(_folder))
    return made


def popcount(word: Any) -> int:
    """Return how many bits of a word are set."""
    return int(word).bit_count()


def lowest_bit(word: Any) -> int:
    """Return the place of the lowest bit of a word that isn't 0."""
    return (int(word) & -int(word)).bit_length() - 1


def highest_bit(word: Any) -> int:
    """Return the place of the highest bit of a word that isn't 0."""
    return int(word).bit_length() - 1


@cache
def _register_instructions() -> None:
    """Give compiled code a machine instruction for each of the three above."""
    numba: Any = import_module("numba")
    extending: Any = import_module("numba.extending")
    ir: Any = import_module("llvmlite.ir")
    word, never_zero = numba.types.uint64, ir.Constant(ir.IntType(1), 1)

    @extending.intrinsic  # type: ignore[untyped-decorator]
    def count(_: Any, given: Any) -> Any:
        del given
        return word(word), lambda _, builder, __, arguments: builder.ctpop(arguments[0])

    @extending.intrinsic  # type: ignore[untyped-decorator]
    def trailing(_: Any, given: Any) -> Any:
        del given
        return word(word), lambda _, builder, __, arguments: builder.cttz(arguments[0], never_zero)

    @extending.intrinsic  # type: ignore[untyped-decorator]
    def leading(_: Any, given: Any) -> Any:
        del given
        return word(word), lambda _, builder, __, arguments: builder.ctlz(arguments[0], never_zero)

    # numba asks for a function's types with the first, and compiles the second.
    for function, made in (
        (popcount, lambda word: np.int64(count(np.uint64(word)))),
        (lowest_bit, lambda word: np.int64(trailing(np.uint64(word)))),
        (highest_bit, lambda word: np.int64(63) - np.int64(leading(np.uint64(word)))),
    ):
        extending.overload(function)(_given(made))


def _given(made: Callable[[Any], Any]) -> Callable[[Any], Callable[[Any], Any]]:
    # numba holds the arguments' names and annotations against each other.
    return lambda word: made  # noqa: ARG005


@cache
def _register(helper: Callable[..., Any], register: Callable[..., Any]) -> None:
    register(helper)
