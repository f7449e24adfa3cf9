"""
`python -m tools.live.export_live_summary`: the guide's name for `live export`.
"""

from cli.export import export
from cli.main import main

if __name__ == "__main__":
    main(export)
