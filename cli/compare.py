"""
`live replay --compare`: policies side by side, for people and for programs.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec

from cli.setup import read_policy_file
from cli.texts import to_json, warn
from domain.errors import BadInput, CannotTell
from domain.policy import Policy
from domain.windows import format_time, parse_time
from ledger.application import Ledger
from ledger.streams import shadows_of
from profiles.loader import load_profiles
from projections.wording import cause_words
from replay.beside import decided_beside, decisions_of
from replay.comparing import (
    FLAP_WINDOWS,
    Comparison,
    PolicyResult,
    Question,
    compare,
    compare_decided,
)
from replay.labels import Incident, Judgement, parse_labels
from replay.source import Source
from replay.tracks import Candidate

LABELS_BYTES_MAX: Final = 4 << 20
EDGE_WINDOWS: Final = 12
CELL: Final = 16
"""The width of a policy's column."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


class CompareOptions(msgspec.Struct, frozen=True):
    """What a comparison is asked for, as options."""

    compare: bool
    shadow: bool
    labels: Path | None
    edge_below: float | None
    edge_windows: int | None
    flap_windows: int | None

    @property
    def is_asked(self) -> bool:
        """Whether policies are to be compared: any of the options is given."""
        return (
            self.compare
            or self.shadow
            or any(
                value is not None
                for value in (self.labels, self.edge_below, self.edge_windows, self.flap_windows)
            )
        )

    def question(self) -> Question:
        """
        Return what to ask.

        Raises:
            BadInput: if the options contradict each other, or the labels can't be read.
        """
        if self.labels is not None and self.edge_below is not None:
            raise BadInput("--labels and --edge-below: expected one of them, was both")
        if self.edge_windows is not None and self.edge_below is None:
            raise BadInput("--edge-windows: expected --edge-below with it, was none")
        if self.edge_below is not None and not math.isfinite(self.edge_below):
            raise BadInput(f"--edge-below: expected a finite number, was {self.edge_below:g}")
        return Question(
            incidents=() if self.labels is None else _read_labels(self.labels),
            edge_below_bps=self.edge_below,
            edge_windows=self.edge_windows or EDGE_WINDOWS,
            flap_windows=self.flap_windows or FLAP_WINDOWS,
        )


def compare_options(command: _Command) -> _Command:
    """Give a command the options of a comparison."""
    options = (
        click.option("--compare", is_flag=True, help="Compare with what was recorded."),
        click.option(
            "--shadow",
            is_flag=True,
            help="Compare what the ledger's shadows decided beside it (live run --shadow).",
        ),
        click.option(
            "--labels",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Incidents to judge freezes by: CSV or JSON with start, end and perhaps symbol "
            "and name.",
        ),
        click.option(
            "--edge-below",
            type=float,
            metavar="BPS",
            help="Take for an incident where the edge was below this over --edge-windows.",
        ),
        click.option(
            "--edge-windows",
            type=click.IntRange(1, 100_000),
            metavar="N",
            help=f"The windows that --edge-below is about. [default: {EDGE_WINDOWS}]",
        ),
        click.option(
            "--flap-windows",
            type=click.IntRange(1, 1_000_000),
            metavar="N",
            help="Reduced again within so many windows after recovering is a flap. "
            f"[default: {FLAP_WINDOWS}]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def print_comparison(
    source: Source,
    policies: Sequence[Path],
    profile_name: str | None,
    options: CompareOptions,
    *,
    as_json: bool,
) -> None:
    """
    Compare the policies over the source, and print the result.

    Without a policy what was recorded is decided again; where nothing was, the default policy is.

    Raises:
        BadInput, CannotTell: see `replay.comparing.compare`.
    """
    question = options.question()
    base = Policy()
    if profile_name is not None:
        base = load_profiles().policy(profile_name, base)
    candidates = [Candidate(str(path), read_policy_file(path, base)) for path in policies]
    if not candidates:
        is_recorded = source.recorded() is not None and profile_name is None
        candidates = [
            Candidate("decided again", None) if is_recorded else Candidate("default policy", base)
        ]
    _print(compare(source, candidates, question), question, as_json=as_json)


def print_shadows(
    source: Source, ledger: Ledger, stream_id: str, options: CompareOptions, *, as_json: bool
) -> None:
    """
    Compare what the stream's shadows decided with what it decided, and print the result.

    Raises:
        CannotTell: if it has no shadow, or they have no window in common.
    """
    streams = shadows_of(ledger.stream_ids(), stream_id)
    if not streams:
        raise CannotTell(f"{stream_id} has no shadow; run it with --shadow FILE")
    live, *shadows = [
        decisions_of((record.event for record in ledger.records(other)), name, source.interval_ms)
        for name, other in {"recorded": stream_id, **streams}.items()
    ]
    for shadow, other in zip(shadows, streams.values(), strict=True):
        shadow.track.policy = ledger.stream(other).state.policy
    question = options.question()
    found = compare_decided(source, decided_beside(live, shadows), question)
    _print(found, question, as_json=as_json)


def _print(found: Comparison, question: Question, *, as_json: bool) -> None:
    _warn_of_clipped(question.incidents, found)
    click.echo(to_json(found) if as_json else "\n".join(_lines(found)))


def _read_labels(path: Path) -> list[Incident]:
    suffix = path.suffix.lower()
    if suffix not in {".csv", ".json"}:
        raise BadInput(f"--labels: expected a file ending in .csv or .json, was {path}")
    try:
        with path.open("rb") as file:
            data = file.read(LABELS_BYTES_MAX + 1)
        if len(data) > LABELS_BYTES_MAX:
            raise BadInput(f"--labels: {path} is larger than {LABELS_BYTES_MAX} bytes")
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise BadInput(f"--labels: {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"--labels: {path}: expected UTF-8: {error}") from None
    return parse_labels(text, source=str(path), is_json=suffix == ".json")


def _warn_of_clipped(incidents: Sequence[Incident], found: Comparison) -> None:
    first_ms, end_ms = parse_time(found.first), parse_time(found.end)
    for incident in incidents:
        if incident.start_ms < first_ms or incident.end_ms > end_ms:
            warn(
                f"{incident.place}: {format_time(incident.start_ms)} to "
                f"{format_time(incident.end_ms)} lies only in part within the data, "
                f"{found.first} to {found.end}"
            )


def _lines(found: Comparison) -> list[str]:
    """Return the comparison as a table, a column a policy, and what it is worth."""
    results = found.results
    symbols = ", ".join(found.symbols)
    lines = [
        f"{found.windows} windows of {found.interval_ms / 1000:g} s, {found.first} to "
        f"{found.last}, {found.gap_windows} of them missing; {symbols}",
        "",
        _row("", [_short(result.name) for result in results]),
    ]
    lines += [
        _row(f"time {state}", [_share(result.windows_in[state], found) for result in results])
        for state in results[0].windows_in
    ]
    lines += [
        _row("transitions", [str(result.transitions) for result in results]),
        _row("freezes", [str(result.freezes) for result in results]),
        _row(f"frozen again within {found.flap_windows}", [str(r.refreezes) for r in results]),
        _row(f"flaps (within {found.flap_windows})", [str(result.flaps) for result in results]),
        _row("decided otherwise", [_differ(result) for result in results]),
        _row("exact part", [_exact(result) for result in results]),
    ]
    if results[0].labels is not None:
        lines += _label_rows([result.labels for result in results if result.labels is not None])
    lines += _money_rows(found)
    lines += ["", *_notes(found)]
    return lines


def _label_rows(judged: Sequence[Judgement]) -> list[str]:
    return [
        _row(f"incidents caught, of {judged[0].incidents}", [str(one.caught) for one in judged]),
        _row("  at least reduced", [str(one.reduced) for one in judged]),
        _row("  median delay to freeze", [_duration(one.median_delay_sec) for one in judged]),
        _row("  median delay to reduce", [_duration(one.median_reduced_sec) for one in judged]),
        _row("needless freezes", [str(one.needless_freezes) for one in judged]),
        _row("frozen outside incidents", [f"{one.frozen_outside_share:.1%}" for one in judged]),
    ]


def _money_rows(found: Comparison) -> list[str]:
    money = [result.money for result in found.results]
    unit = "quote" if found.unit == "quote" else "bps x 1"
    return [
        _row(f"earned ({unit})", [_amount(one.earned) for one in money]),
        _row("  loss avoided", [_amount(one.loss_avoided) for one in money]),
        _row("  edge forgone", [_amount(one.edge_forgone) for one in money]),
    ]


def _notes(found: Comparison) -> list[str]:
    """Return what a reader must know before believing the table."""
    notes = []
    for result in found.results:
        freeze, divergence = result.first_freeze, result.divergence
        if freeze is not None:
            cause = cause_words(freeze.reasons, freeze.triggered_by)
            notes.append(f"{result.name}: first freeze, window {freeze.window}: {cause}")
        if divergence is not None and divergence.first is not None and result.policy_hash:
            notes.append(
                f"{result.name}: exact up to window {divergence.first}, a model after it: other "
                "decisions would have changed what was traded"
            )
    if found.baseline == "always on":
        notes.append(
            "no decision was recorded: the windows are taken as traded without a controller"
        )
    by = ", ".join(f"{why} {count}" for why, count in sorted(found.censored_by.items()))
    notes.append(
        f"money over {found.scored} windows of symbols; {found.censored} "
        f"({found.censored_share:.1%}) are censored, not counted as zero{f': {by}' if by else ''}"
    )
    if found.unit == "bps":
        notes.append("no notional is known: each window of a symbol has the weight 1, in bps")
    if found.scaled:
        notes.append(
            f"{found.scaled} of them were traded at a throttle below 1, their notional scaled up"
        )
    notes.append("a throttle decided at a window's end earns from the next window on")
    return notes


def _row(title: str, cells: Sequence[str]) -> str:
    return f"{title:27}" + "".join(f"{cell:>{CELL}}" for cell in cells)


def _short(name: str) -> str:
    """Return a policy's name as a column's head: the end of a path that is too long."""
    stem = name.rpartition("/")[2]
    return stem if len(stem) < CELL else f"..{stem[-(CELL - 3) :]}"


def _share(windows: int, found: Comparison) -> str:
    return f"{windows / found.windows:.1%}"


def _differ(result: PolicyResult) -> str:
    return "-" if result.divergence is None else str(result.divergence.windows)


def _exact(result: PolicyResult) -> str:
    return "-" if result.divergence is None else f"{result.divergence.exact_share:.1%}"


def _amount(amount: float) -> str:
    amount = round(amount, 2) + 0.0  # A negative zero becomes zero.
    return f"{amount:,.2f}" if abs(amount) < 1e6 else f"{amount:,.0f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:g} s" if seconds < 120 else f"{seconds / 60:.1f} min"
