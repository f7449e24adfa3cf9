"""The decider's vocabulary and random stories are the domain tests'; compiled code is kept."""

import sys
from pathlib import Path

from replay import warming

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "domain"))
if warming.use_compiled(ROOT / "artifacts" / "compiled") and not warming.is_warm():
    warming.warm()
