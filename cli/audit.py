"""
`live audit`: looking into what happened.
"""

from typing import Final

import click

from cli.lazy import Commands, LazyGroup

COMMANDS: Final[Commands] = {
    "timeline": ("cli.audit_timeline", "What happened, in order, in words."),
    "episodes": ("cli.audit_episodes", "The freezes and cooldowns: cause, length, way back."),
    "show": ("cli.audit_show", "One window whole, event by event."),
    "sql": ("cli.audit_sql", "One SELECT over the history, within bounds."),
    "diff": ("cli.audit_diff", "Policies, symbols and states at two times, compared."),
    "bundle": (
        "cli.audit_bundle",
        "A stretch of a stream as a ZIP, to be replayed elsewhere.",
    ),
    "plot": ("cli.audit_plot", "KPIs against their thresholds, states as bands, as a picture."),
}
"""By name: the module that holds a click command of that name, and its line in the help."""


@click.group(cls=LazyGroup, lazy=COMMANDS)
def audit() -> None:
    """
    Look into what happened, from the ledger alone; sql from the history, too.

    Exit codes: 0 fine, 2 bad usage, 3 nothing is recorded there, 5 the ledger is damaged.
    """
