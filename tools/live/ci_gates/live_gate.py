"""
`python -m tools.live.ci_gates.live_gate`: the guide's name for `live gate`.
"""

from cli.gate import gate
from cli.main import main

if __name__ == "__main__":
    main(gate)
