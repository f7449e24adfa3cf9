"""
Write the generated docs, or with `--check` see whether they are up to date.

`docs/cli.md` is made from the commands themselves, `docs/metrics.md` from the catalogue that
`/metrics` is made from, the answers in `docs/audit.md` by asking: they can't say but what is.
Grafana's dashboard is made from `ops/grafana/queries.py`.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from audit_example import answers

from cli.main import live
from ops.grafana.dashboard import dashboard_json
from projections.metrics_catalogue import GROUPS, Metric

DOCS = Path(__file__).parent
ROOT = DOCS.parent

_QUESTION = re.compile(r"^\$ (live .*)\n", re.MULTILINE)

METRICS_HEADING = """\
| metric | type | unit | labels | meaning | before the first window |
|---|---|---|---|---|---|"""


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


def metrics_reference() -> str:
    """Return the reference of every metric, as Markdown, after the page that introduces it."""
    introduction = (DOCS / "metrics_introduction.md").read_text(encoding="utf-8")
    parts = [introduction.rstrip()]
    for group in GROUPS:
        rows = "\n".join(map(_row, group.metrics))
        parts.append(f"## {group.title}\n\n{METRICS_HEADING}\n{rows}")
    return "\n\n".join(parts) + "\n"


def audit_page() -> str:
    """Return the page on the audit, each question with its answer."""
    source = (DOCS / "audit_source.md").read_text(encoding="utf-8")
    told = answers(_QUESTION.findall(source))
    return _QUESTION.sub(lambda _: next(told), source)


def generated() -> dict[Path, str]:
    """Return every generated file's content."""
    return {
        DOCS / "cli.md": cli_reference(),
        DOCS / "metrics.md": metrics_reference(),
        DOCS / "audit.md": audit_page(),
        ROOT / "ops/grafana/live_dashboard.json": dashboard_json(),
    }


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


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    text = f"{metric.text} Only in {metric.only}." if metric.only else metric.text
    cells = (f"`{metric.name}`", metric.kind, metric.unit, labels, text, metric.first)
    return f"| {' | '.join(cells)} |"


def _help(title: str, text: str) -> str:
    return f"## `{title}`\n\n```text\n{text}\n```"


if __name__ == "__main__":
    main()
