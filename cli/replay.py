"""
`live replay`: decide recorded windows again, through the core itself; or compare policies.

Source: DESIGN.md section 4.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec.structs import replace

from cli.compare import CompareOptions, compare_options, print_comparison, print_shadows
from cli.options import live_option, stream_options
from cli.setup import read_policy_file
from cli.sources import (
    BUNDLE_SUFFIX,
    KPI_FILE_SUFFIXES,
    RecordedStream,
    SourceOptions,
    open_bundle_source,
    open_kpi_file_told,
    open_recorded,
    open_source,
)
from cli.texts import interval_ms_of, split_symbols
from domain.commands import AdoptPolicy, Command
from domain.errors import BadInput
from domain.events import RampProfile, TradingState
from domain.policy import Policy
from profiles.loader import load_profiles
from projections.wording import cause_words
from replay.commands import commands_of_events, commands_of_windows
from replay.replaying import ReplayedWindow, ReplaySummary
from replay.replaying import replay as replay_commands
from replay.source import BundleSource, RecordedSource


class ReplayOptions(msgspec.Struct, frozen=True):
    """What a replay decides by, instead of what was recorded."""

    policy_file: Path | None
    symbols: tuple[str, ...] | None
    interval_ms: int | None
    profile_name: str | None

    @property
    def decides_otherwise(self) -> bool:
        """Whether another policy than the recorded one is asked for."""
        return self.policy_file is not None or self.profile_name is not None

    def profile(self) -> RampProfile | None:
        """Return the limits asked for; without a profile no limit applies."""
        return None if self.profile_name is None else load_profiles().limits(self.profile_name)

    def policy(self) -> Policy:
        """Return the policy asked for: the default, the profile's part, the file's over it."""
        policy = Policy()
        if self.profile_name is not None:
            policy = load_profiles().policy(self.profile_name, policy)
        if self.policy_file is not None:
            policy = read_policy_file(self.policy_file, policy)
        return policy


@click.command()
@click.argument("source")
@live_option(
    "--policy",
    "policies",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Decide by this policy; several are compared. "
    "[default: as recorded; for a KPI file the default policy]",
)
@live_option("--symbols", metavar="A,B,...", help="Only these symbols, in this order.")
@live_option(
    "--interval-sec",
    type=float,
    help="A window's length. [default: the commonest step of a KPI file]",
)
@live_option(
    "--ramp-profile",
    metavar="A|B|C",
    help="Apply the profile's limits and policy. [default: no limits; when comparing as recorded]",
)
@stream_options
@compare_options
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object a window; when comparing one for all.",
)
def replay(
    source: str,
    policies: tuple[Path, ...],
    symbols: str | None,
    interval_sec: float | None,
    ramp_profile: str | None,
    env: str | None,
    exchange: str | None,
    dry_run: bool,
    as_json: bool,
    **comparing: Any,
) -> None:
    """
    Decide the windows of SOURCE again: a ledger, the folder of a history, a bundle (ZIP), or a KPI
    file (Parquet, CSV, JSONL).

    A replay under another policy is exact up to its first divergence from what was recorded, and
    a model after it: other decisions would have changed what was traded. With --compare, several
    --policy or any option about labels, policies stand side by side with what was recorded:
    docs/replay.md says how each figure is made. Exit codes: 0 fine, 2 bad usage or input, 3 no
    data, 5 the ledger is damaged.
    """
    selected = None if symbols is None else split_symbols(symbols)
    interval_ms = None if interval_sec is None else interval_ms_of(interval_sec)
    compared = CompareOptions(**comparing)
    if compared.shadow:
        _compare_shadows(
            source,
            SourceOptions(selected, interval_ms, env, exchange, dry_run),
            compared,
            is_alone=not policies and ramp_profile is None,
            as_json=as_json,
        )
        return
    if compared.is_asked or len(policies) > 1:
        profile = None if ramp_profile is None else load_profiles().limits(ramp_profile)
        with open_source(
            source, SourceOptions(selected, interval_ms, env, exchange, dry_run), profile=profile
        ) as opened:
            print_comparison(opened, policies, ramp_profile, compared, as_json=as_json)
        return
    options = ReplayOptions(
        policy_file=policies[0] if policies else None,
        symbols=selected,
        interval_ms=interval_ms,
        profile_name=ramp_profile,
    )
    suffix = Path(source).suffix.lower()
    if suffix in KPI_FILE_SUFFIXES:
        _print(replay_commands(_file_commands(Path(source), options)), as_json)
        return
    if suffix == BUNDLE_SUFFIX:
        asked = SourceOptions(selected, interval_ms, env, exchange, dry_run)
        bundle = open_bundle_source(Path(source), asked, options.profile())
        rows = replay_commands(_bundle_commands(bundle, options), bundle.before)
        _print(rows, as_json, before=bundle.before.trading_state)
        return
    stream = SourceOptions(selected, interval_ms, env, exchange, dry_run)
    with open_recorded(source, stream) as recorded:
        _print(replay_commands(_recorded_commands(recorded, options)), as_json)


def _compare_shadows(
    source: str, options: SourceOptions, compared: CompareOptions, *, is_alone: bool, as_json: bool
) -> None:
    if not is_alone:
        raise BadInput("--shadow: expected no --policy and no --ramp-profile beside it")
    if Path(source).suffix.lower() in {BUNDLE_SUFFIX, *KPI_FILE_SUFFIXES}:
        raise BadInput(f"--shadow: expected a ledger, was the file {source}")
    with open_recorded(source, options) as stream:
        if stream.ledger is None:
            raise BadInput(f"--shadow: expected a ledger, was the history {source}")
        opened = RecordedSource(source, stream.state, stream.events, symbols=options.symbols)
        print_shadows(opened, stream.ledger, stream.id, compared, as_json=as_json)


def _file_commands(path: Path, options: ReplayOptions) -> Iterator[Command]:
    feed = open_kpi_file_told(path, options.symbols, options.interval_ms)
    return commands_of_windows(
        feed.windows(),
        symbols=feed.symbols,
        interval_ms=feed.interval_ms,
        policy=options.policy(),
        profile=options.profile(),
    )


def _bundle_commands(bundle: BundleSource, options: ReplayOptions) -> Iterator[Command]:
    """Yield a bundle's commands, another policy in the place of the recorded ones if one is."""
    for command in bundle.commands():
        if options.decides_otherwise and isinstance(command, AdoptPolicy):
            yield replace(command, policy=options.policy())
        else:
            yield command


def _recorded_commands(stream: RecordedStream, options: ReplayOptions) -> Iterator[Command]:
    return commands_of_events(
        stream.events(),
        policy=options.policy() if options.decides_otherwise else None,
        symbols=options.symbols,
        profile=options.profile(),
    )


def _print(
    rows: Iterator[ReplayedWindow], as_json: bool, before: TradingState = TradingState.ACTIVE
) -> None:
    if as_json:
        encoder = msgspec.json.Encoder()
        for row in rows:
            click.echo(encoder.encode(row).decode())
        return
    summary = ReplaySummary(before)
    for row in rows:
        summary.add(row)
    _print_summary(summary)


def _print_summary(summary: ReplaySummary) -> None:
    if summary.first is None or summary.last is None:
        click.echo("no window")
        return
    total = summary.windows + summary.gap_windows
    click.echo(
        f"{summary.windows} windows from {summary.first.window} to {summary.last.window}, "
        f"{summary.gap_windows} missing in {summary.gaps} gaps"
    )
    for state in TradingState:
        windows = summary.windows_in[state]
        click.echo(f"{state:9} {windows:>9} windows  {windows / total:6.1%}")
    click.echo(f"transitions {summary.transitions}")
    freeze = summary.first_freeze
    if freeze is None:
        click.echo("first freeze: none")
    else:
        cause = cause_words(freeze.reasons, freeze.triggered_by)
        click.echo(f"first freeze: window {freeze.window}: {cause}")
