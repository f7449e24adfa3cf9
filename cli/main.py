"""
The `live` command, and how a process ends.
"""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Final, NoReturn

import click

from cli.lazy import Commands, LazyGroup
from domain.errors import CannotTell, LiveError

COMMANDS: Final[Commands] = {
    "run": ("cli.run", "Decide windows as a feed delivers them, and record every decision."),
    "status": ("cli.status", "Show the state, its cause, the way back and the throttles."),
    "explain": ("cli.explain", "Say why the state is what it is, or was, and what leads out."),
    "audit": ("cli.audit", "Look into what happened: timeline, episodes, one window, two times."),
    "gate": ("cli.gate", "Check the latest artifacts against thresholds, for CI."),
    "report": ("cli.report", "Make the LIVE_* artifacts again from the ledger."),
    "replay": ("cli.replay", "Decide recorded windows again, perhaps under another policy."),
    "accuracy": ("cli.accuracy", "Compare what shadows decided with what was decided live."),
    "policy": ("cli.policy", "Check, compare and test policy files."),
    "override": ("cli.override", "Freeze, cap or unfreeze by hand; list and clear."),
    "export": ("cli.export", "Publish the ledger's state to Redis."),
    "rebuild": ("cli.rebuild", "Make history, Redis keys or artifacts again from the ledger."),
    "notify": ("cli.notify", "Try where notifications go."),
}


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from cli.version import code_version  # noqa: PLC0415

        click.echo(f"live {code_version()}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 fine or PASS, 1 FAIL, 2 bad usage or input, 3 can't tell, "
    "4 another runner holds the stream, 5 the ledger is damaged or can't be written.",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
def live() -> None:
    """Live Ledger: turns a live-trading bot down or off when it goes wrong, and remembers why."""


def main(command: click.Command = live, args: list[str] | None = None) -> NoReturn:
    """
    Run a command and leave the process with its exit code.

    Errors are told on stderr in one line; see `domain.errors` for the codes.
    """
    try:
        # Without its standalone mode click returns the code that a command exits with.
        code = command.main(args=args, standalone_mode=False)
    except click.ClickException as error:
        _tell(error.show)
        sys.exit(error.exit_code)
    except click.Abort:
        _tell(lambda: click.echo("Aborted.", err=True))
        sys.exit(130)
    except OSError as error:
        # There is no room for the output: nothing can be told.
        sys.exit(_tell_lost_output(error))
    except LiveError as error:
        told = f"Error: {error}"
        _tell(lambda: click.echo(told, err=True))
        sys.exit(error.exit_code)
    except SystemExit:
        # Only click itself ends like this, and only where nobody reads any more: with 1, which
        # is FAIL here.
        sys.exit(CannotTell.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _tell(say: Callable[[], None]) -> None:
    """Tell why a command ends; where nobody reads it the exit code still says so."""
    try:
        say()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _tell_lost_output(error: OSError) -> int:
    """Say, where that is still possible, why there is no output; return the exit code."""
    with contextlib.suppress(OSError):
        click.echo(f"Error: {error.filename or 'the output'}: {error.strerror}", err=True)
    # Python must not try once more to write what is left when it exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return CannotTell.exit_code


if __name__ == "__main__":
    main()
