"""
The options of notifications: who is told, from which level on, and how often.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from cli.options import live_option
from cli.run_options import NotifyOptions
from cli.texts import duration_ms_of
from domain.errors import BadInput
from projections.notify_messages import DEFAULT_LEVELS, OTHER_LEVEL, Level, parse_alert_policy

DEFAULT_POLICY: Final = ",".join(f"{env}={level}" for env, level in DEFAULT_LEVELS.items())
DEFAULT_DEBOUNCE: Final = "5m"
DEFAULT_RUNBOOK: Final = "docs/runbook.md"

_Command = TypeVar("_Command", bound=Callable[..., Any])


def notify_options(command: _Command) -> _Command:
    """Give a command the two ways to name where notifications go."""
    for option in (
        live_option(
            "--notify-file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="A file with such URLs, one a line, # before a remark.",
        ),
        live_option(
            "--notify",
            envvar="LIVE_NOTIFY_URLS",
            multiple=True,
            metavar="URL",
            help="Where to tell what happens: slack://, tgram://, mailtos://, jsons://, any URL of "
            "apprise; several times for several, in the variable separated by blanks or commas. "
            "Better from there or a file than here.",
        ),
    ):
        command = option(command)
    return command


def notify_policy_options(command: _Command) -> _Command:
    """Give a command the options of what is told."""
    for option in (
        live_option(
            "--runbook-url",
            metavar="URL",
            default=DEFAULT_RUNBOOK,
            show_default=True,
            help="What the runbook's sections are linked under in notifications.",
        ),
        live_option(
            "--notify-debounce",
            metavar="DURATION",
            default=DEFAULT_DEBOUNCE,
            show_default=True,
            help="How long a turn for the better must hold to be told, and within which nothing is "
            "told twice: 90s, 5m, 1h, 0 for not at all.",
        ),
        live_option(
            "--alert-policy",
            metavar="ENV=LEVEL,...",
            default=DEFAULT_POLICY,
            show_default=True,
            help="From which severity on each environment is told: OFF, WARN or CRIT; "
            f"{OTHER_LEVEL} for one that isn't named.",
        ),
    ):
        command = option(command)
    return command


def notify_urls_of(given: Mapping[str, Any]) -> tuple[list[str], str | None]:
    """
    Return the URLs, from the options and the file, each once, and a warning if there is one.

    Raises:
        BadInput: if the file can't be read.
    """
    from projections.notify_targets import read_notify_file, split_urls  # noqa: PLC0415

    urls, warning = split_urls(given["notify"]), None
    if given["notify_file"] is not None:
        more, warning = read_notify_file(given["notify_file"])
        urls = list(dict.fromkeys([*urls, *more]))
    return urls, warning


def notify_options_of(
    given: Mapping[str, Any], env: str
) -> tuple[NotifyOptions | None, tuple[str | None, ...]]:
    """
    Return who is told of an environment and what, None if nobody is, and warnings.

    Raises:
        BadInput: naming the option.
    """
    level = parse_alert_policy(given["alert_policy"]).get(env, OTHER_LEVEL)
    debounce_ms = _debounce_ms(given["notify_debounce"])
    if not given["notify"] and given["notify_file"] is None:
        return None, ()
    urls, warning = notify_urls_of(given)
    if not urls:
        return None, (warning,)
    options = NotifyOptions(
        urls=tuple(urls),
        level=level,
        debounce_ms=debounce_ms,
        runbook_url=given["runbook_url"],
    )
    silent = None
    if level is Level.OFF and not given["dry_run"]:
        silent = f"nobody is notified: {env} is OFF; --alert-policy {env}=WARN tells"
    return options, (warning, silent)


def check_notify(options: NotifyOptions | None, env: str) -> None:
    """
    Refuse a URL that can't be one, before anything is made.

    Raises:
        BadInput: naming the option and the URL's number, not the URL.
    """
    if options is not None:
        from projections.notify_targets import open_targets  # noqa: PLC0415

        open_targets(options.urls, env=env)


def _debounce_ms(text: str) -> int:
    if text.strip() == "0":
        return 0
    try:
        return duration_ms_of(text)
    except BadInput as error:
        raise BadInput(f"--notify-debounce: {error}") from None
