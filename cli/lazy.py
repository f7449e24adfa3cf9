"""
Groups whose subcommands are imported when they are called, so that help is quick.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import click

Commands = Mapping[str, tuple[str, str]]
"""By name: the module that holds a click command of that name, and its line in the help."""


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is called; its help needs none of them."""

    def __init__(self, *args: Any, lazy: Commands, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of use."""
        del ctx
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the subcommand, imported."""
        del ctx
        if cmd_name not in self._lazy:
            return None
        command = getattr(importlib.import_module(self._lazy[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands' lines without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._lazy.items()])
