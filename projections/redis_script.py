"""
The Lua scripts of this folder.
"""

from pathlib import Path

from redis_link.client import Script


def load_script(name: str) -> Script:
    """Return the script of a file of this folder."""
    return Script(Path(__file__).with_name(name).read_text(encoding="utf-8"))
