"""
`python -m tools.live.run_live`: the guide's name for `live run`.
"""

from cli.main import main
from cli.run import run

if __name__ == "__main__":
    main(run)
