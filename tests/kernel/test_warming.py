"""Compiled code is kept on disk, made by another process, and nothing but speed depends on it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from long_series import TROUBLES, long_series

from domain.policy import Policy
from replay import warming
from replay.sweeping import sweep

ROOT = Path(__file__).parent.parent.parent
COMPILING_SEC_MAX = 600
SWEEP = """
import json, sys
from pathlib import Path
sys.path[:0] = ["tests/domain", "tests/kernel"]
{before}
from long_series import TROUBLES, long_series
from domain.policy import Policy
from replay import warming
from replay.sweeping import sweep
warming.use_compiled(Path({base!r}))
long = long_series(1, TROUBLES["with gaps"])
outcomes = sweep(long, [Policy()], money="total", engine={engine!r})
shown = [outcomes.states.windows.tolist(), outcomes.money.gains.tolist()]
print(json.dumps([shown, sys.modules.get("numba") is not None]))
"""


@pytest.fixture
def kept() -> Iterator[None]:
    """Go on with the tests' own folder after a test that chose another."""
    yield
    warming.use_compiled(ROOT / "artifacts" / "compiled")


def swept_elsewhere(base: Path, *, engine: str = "auto", before: str = "") -> tuple[object, bool]:
    """Return what another process comes to, and whether it imported numba for it."""
    program = SWEEP.format(base=str(base), engine=engine, before=before)
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    outcome, had_numba = json.loads(shown.stdout)
    return outcome, had_numba


def expected() -> list[object]:
    outcomes = sweep(long_series(1, TROUBLES["with gaps"]), [Policy()], money="total")
    assert outcomes.money is not None
    return [outcomes.states.windows.tolist(), outcomes.money.gains.tolist()]


def test_a_small_sweep_on_a_cold_machine_waits_for_no_compiler(tmp_path: Path) -> None:
    outcome, had_numba = swept_elsewhere(tmp_path)
    assert outcome == expected()
    assert not had_numba


def test_without_numba_every_way_still_works(tmp_path: Path) -> None:
    before = "sys.modules['numba'] = None"
    for engine in ("auto", "words", "loop"):
        outcome, _ = swept_elsewhere(tmp_path, engine=engine, before=before)
        assert outcome == expected()
    assert list(tmp_path.iterdir()) == []


def test_another_process_compiles_everything_once(tmp_path: Path, kept: None) -> None:
    assert warming.use_compiled(tmp_path)
    assert not warming.is_warm()
    compiler = warming.start_warming()
    assert compiler is not None
    assert compiler.wait(COMPILING_SEC_MAX) == 0
    assert warming.is_warm()
    assert warming.start_warming() is None
    compiled = sorted(tmp_path.rglob("*.nb?"))
    outcome, had_numba = swept_elsewhere(tmp_path, engine="words")
    assert outcome == expected()
    assert had_numba
    assert sorted(tmp_path.rglob("*.nb?")) == compiled != []


def test_a_folder_that_cannot_be_written_costs_only_speed(tmp_path: Path, kept: None) -> None:
    occupied = tmp_path / "a file"
    occupied.write_text("", encoding="utf-8")
    assert not warming.use_compiled(occupied)
    assert not warming.is_warm()
    assert warming.start_warming() is None
