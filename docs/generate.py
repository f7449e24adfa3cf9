"""
Write the generated docs, or with `--check` see whether they are up to date.

`docs/cli.md` is made from the commands themselves, so that it can't say anything else than they do.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from cli.main import live

DOCS = Path(__file__).parent


def cli_reference() -> str:
    """Return the reference of every command, as Markdown."""
    parts = [
        "# Command line",
        "Made from the commands by `make docs`; every option can also come from its variable.",
        *_commands(live, "live", None),
    ]
    return "\n\n".join(parts) + "\n"


def _commands(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    """Yield a command's help, and that of the commands in it."""
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=100, max_content_width=100
    )
    yield _help(context.command_path, command.get_help(context))
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from _commands(found, below, context)


def generated() -> dict[Path, str]:
    """Return every generated file's content."""
    return {DOCS / "cli.md": cli_reference()}


def main() -> None:
    """Write the files, or name those that are out of date and leave with 1."""
    stale = [
        path
        for path, content in generated().items()
        if not path.exists() or path.read_text(encoding="utf-8") != content
    ]
    if "--check" in sys.argv[1:]:
        if stale:
            names = ", ".join(path.name for path in stale)
            sys.exit(f"out of date: {names}; run `make docs` and commit what it wrote")
        return
    for path in stale:
        path.write_text(generated()[path], encoding="utf-8")
        print(f"written: {path.name}")


def _help(title: str, text: str) -> str:
    return f"## `{title}`\n\n```text\n{text}\n```"


if __name__ == "__main__":
    main()
