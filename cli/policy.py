"""
`live policy`: check, compare and test policy files.
"""

from typing import Final

import click

from cli.lazy import Commands, LazyGroup

COMMANDS: Final[Commands] = {
    "lint": ("cli.policy_lint", "Find what looks wrong in a policy, by itself and against data."),
    "diff": ("cli.policy_diff", "Say in words what one policy tightens and loosens of another."),
    "test": ("cli.policy_test", "Run scenario files: windows in short, and what is expected."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    epilog="Exit codes: 0 fine, 1 findings or failed scenarios, 2 bad usage or input.",
)
def policy() -> None:
    """
    Check, compare and test policy files.

    What a policy file leaves out keeps the default policy's value.
    """
