"""
What looks wrong in a policy, by itself and against data.

Source: issue 6, `live policy lint`; DESIGN.md section 1.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from domain.errors import CannotTell
from domain.events import TradingState
from domain.kpis import KPIS, Kpi
from domain.policy import Policy
from domain.windows import format_time
from replay.policy_survey import KpiSurvey, PolicySurvey, Runs, survey_policy
from replay.recovery import Recovery, expected_windows, recovery_table
from replay.source import Source
from replay.tracks import FROZEN, STATES, Candidate, Engine, Timeline, Track, track_by_core

SYMBOLS_TOLD_MAX: Final = 5
SYMBOLS_ASSUMED: Final = (1, 5)
"""For how many symbols recovery is told where no data says."""


class Finding(msgspec.Struct, frozen=True):
    """
    One thing that looks wrong.

    Attributes:
        code: names the kind, for programs.
        key: the policy's key that it is about.
        text: what it is, in words.
        symbols: whose; empty where it is about none in particular.
    """

    code: str
    key: str
    text: str
    symbols: tuple[str, ...] = ()


class RunReport(msgspec.Struct, frozen=True):
    """How often the data held a run of so many OK windows, and its longest."""

    key: str
    wanted: int
    held: int
    longest: int
    longest_end: str | None


class DataReport(msgspec.Struct, frozen=True):
    """
    What the data holds under the policy.

    Attributes:
        windows, gap_windows: those with data, and those that are missing.
        not_ok_rate: how often a symbol's window is not OK while trading is halted.
        windows_not_ok_rate: how often a window is not OK then, over all symbols.
        unfreeze_windows: to expect until FROZEN is left, by `windows_not_ok_rate`; None for never.
        windows_in: windows by state that a replay of the policy gives; empty if it can't start.
    """

    source: str
    symbols: tuple[str, ...]
    interval_ms: int
    windows: int
    gap_windows: int
    not_ok_rate: float
    windows_not_ok_rate: float
    unfreeze_windows: float | None
    runs: list[RunReport]
    windows_in: dict[str, int]


class LintReport(msgspec.Struct, frozen=True):
    """All findings, what recovery is to be expected, and what the data holds if there is some."""

    policy_hash: str
    findings: list[Finding]
    recovery: list[Recovery]
    data: DataReport | None


def lint_policy(
    policy: Policy, source: Source | None, *, engine: Engine = track_by_core
) -> LintReport:
    """
    Return what looks wrong in a policy.

    Args:
        source: data to hold it against; None for the policy alone.

    Raises:
        CannotTell: if the source has no window.
    """
    findings = list(_static_findings(policy))
    if source is None:
        recovery = recovery_table(policy, SYMBOLS_ASSUMED, None)
        return LintReport(policy.hash, findings, recovery, None)
    survey = survey_policy(policy, source.commands(), source.interval_ms)
    if not survey.windows:
        raise CannotTell(f"{source.name} holds no window")
    findings += _column_findings(policy, survey)
    findings += _run_findings(survey)
    findings += _symbol_findings(policy, source.symbols)
    windows_in: dict[str, int] = {}
    if policy.global_freeze_symbols <= len(source.symbols):
        decided = engine(source, [Candidate("linted", policy)])
        windows_in = _windows_in(decided.timeline, decided.tracks[0])
        findings += _state_findings(policy, decided.timeline, decided.tracks[0], windows_in)
    rate = survey.not_ok / survey.judged
    return LintReport(
        policy.hash,
        findings,
        recovery_table(policy, (len(source.symbols),), rate),
        _data_report(policy, source, survey, windows_in),
    )


def _static_findings(policy: Policy) -> Iterator[Finding]:
    for kpi in KPIS:
        # The KPIs that the default policy waives are those that exist only over fills.
        if kpi.waived and kpi.name not in policy.waived_when_halted:
            yield Finding(
                "no-waiver",
                "waived_when_halted",
                f"{kpi.name} exists only over fills, which stop when trading halts: without a "
                "waiver FROZEN may never be left",
            )
    by_scope = {"thresholds": policy.thresholds} | {
        f"symbols.{symbol}": own for symbol, own in policy.symbols.items()
    }
    for at, thresholds in by_scope.items():
        for kpi in KPIS:
            threshold = thresholds.get(kpi.policy_key)
            if threshold is None:
                continue
            mildest, harshest = (
                (kpi.lowest, kpi.highest) if kpi.breached_when == "<" else (kpi.highest, kpi.lowest)
            )
            if threshold == mildest:
                yield Finding(
                    "never-breached",
                    f"{at}.{kpi.policy_key}",
                    f"no {kpi.name} can be {_side(kpi)} {threshold:g}: it is never judged",
                )
            elif threshold == harshest:
                yield Finding(
                    "always-breached",
                    f"{at}.{kpi.policy_key}",
                    f"only a {kpi.name} of exactly {threshold:g} is OK",
                )


def _column_findings(policy: Policy, survey: PolicySurvey) -> Iterator[Finding]:
    """Yield what the data's columns say; symbols for which it is the same stand together."""
    for kpi in KPIS:
        columns = {symbol: found[kpi.name] for symbol, found in survey.kpis.items()}
        lacking = _symbols_where(columns, lambda column: not column.valid)
        if lacking and kpi.name in policy.required_kpis:
            yield Finding(
                "required-missing",
                "required_kpis",
                f"{kpi.name} is required, and {_told(lacking)} never has a valid value: frozen for "
                "good",
                lacking,
            )
        elif lacking:
            yield Finding(
                "not-judged",
                f"thresholds.{kpi.policy_key}",
                f"{_told(lacking)} never has a valid {kpi.name}: it is never judged",
                lacking,
            )
        nan = _symbols_where(columns, lambda column: 2 * column.malformed > column.windows)
        if nan:
            yield Finding(
                "mostly-malformed",
                kpi.name,
                f"of {_told(nan)} it is mostly malformed ({_most(columns, nan, 'malformed')}): NaN "
                "is never excused as absent; leave it empty for no value",
                nan,
            )
        absent = _symbols_where(
            columns, lambda column: 2 * column.absent > column.windows and column.valid > 0
        )
        if absent:
            yield Finding(
                "mostly-absent",
                kpi.name,
                f"of {_told(absent)} it is mostly absent ({_most(columns, absent, 'absent')})",
                absent,
            )
        yield from _threshold_findings(policy, kpi, columns)


def _threshold_findings(
    policy: Policy, kpi: Kpi, columns: dict[str, KpiSurvey]
) -> Iterator[Finding]:
    """Yield which thresholds the data always breaches, and which never."""
    by_key: dict[str, list[str]] = {}
    for symbol, column in columns.items():
        own = kpi.policy_key in policy.symbols.get(symbol, {})
        if column.valid:
            by_key.setdefault(f"symbols.{symbol}" if own else "thresholds", []).append(symbol)
    for at, symbols in by_key.items():
        threshold = policy.thresholds_of(symbols[0])[kpi.policy_key]
        always = tuple(name for name in symbols if columns[name].breached == columns[name].valid)
        never = not any(columns[name].breached for name in symbols)
        if not always and not never:
            continue
        concerned = always or tuple(symbols)
        lowest = min(columns[name].lowest for name in concerned)
        highest = max(columns[name].highest for name in concerned)
        values = sum(columns[name].valid for name in concerned)
        told = "every" if always else "no"
        yield Finding(
            "always-breached" if always else "never-breached",
            f"{at}.{kpi.policy_key}",
            f"{told} {kpi.name} of {_told(concerned)} is {_side(kpi)} {threshold:g} "
            f"({values} values from {lowest:g} to {highest:g})",
            concerned,
        )


def _run_findings(survey: PolicySurvey) -> Iterator[Finding]:
    if not survey.unfreeze.held:
        yield Finding(
            "never-unfreezes",
            "unfreeze_after_ok_windows",
            f"the data never holds {survey.unfreeze.wanted} OK windows in a row, the longest run "
            f"is {survey.unfreeze.longest}: FROZEN is never left",
        )
    if not survey.recover.held:
        yield Finding(
            "never-recovers",
            "min_ok_windows",
            f"the data never holds {survey.recover.wanted} OK windows in a row while it is traded, "
            f"the longest run is {survey.recover.longest}: COOLDOWN never leads to ACTIVE",
        )


def _symbol_findings(policy: Policy, symbols: Sequence[str]) -> Iterator[Finding]:
    for symbol in policy.symbols:
        if symbol not in symbols:
            yield Finding(
                "unknown-symbol",
                f"symbols.{symbol}",
                f"the data has no {symbol}, it has {_told(tuple(symbols))}",
                (symbol,),
            )
    if policy.global_freeze_symbols > len(symbols):
        yield Finding(
            "never-entered",
            "global_freeze_symbols",
            f"{policy.global_freeze_symbols} CRIT symbols are wanted and the data has "
            f"{len(symbols)}: FROZEN can't be entered, and no run would start",
        )


def _state_findings(
    policy: Policy, timeline: Timeline, track: Track, windows_in: dict[str, int]
) -> Iterator[Finding]:
    """Yield the states that a replay never entered, or entered for good."""
    for state in (TradingState.COOLDOWN, TradingState.FROZEN):
        if not windows_in[state]:
            yield Finding("never-entered", "", f"over this data {state} is never entered")
    if not track.freezes or track.states[-1] != FROZEN:
        return
    last = track.freezes[-1]
    left = timeline.window_count - sum(timeline.windows[: last.row + 1])
    if left >= 2 * policy.unfreeze_after_ok_windows:
        yield Finding(
            "never-left",
            "",
            f"FROZEN is entered in window {format_time(timeline.starts_ms[last.row])} and not left "
            f"in the {left} windows after it",
        )


def _data_report(
    policy: Policy, source: Source, survey: PolicySurvey, windows_in: dict[str, int]
) -> DataReport:
    windows_rate = survey.windows_not_ok / survey.windows
    expected = expected_windows(policy.unfreeze_after_ok_windows, 1.0 - windows_rate)
    return DataReport(
        source=source.name,
        symbols=source.symbols,
        interval_ms=source.interval_ms,
        windows=survey.windows,
        gap_windows=survey.gap_windows,
        not_ok_rate=survey.not_ok / survey.judged,
        windows_not_ok_rate=windows_rate,
        unfreeze_windows=expected if expected < float("inf") else None,
        runs=[
            _run_report("unfreeze_after_ok_windows", survey.unfreeze),
            _run_report("min_ok_windows", survey.recover),
        ],
        windows_in=windows_in,
    )


def _run_report(key: str, runs: Runs) -> RunReport:
    end = None if runs.longest_end_ms is None else format_time(runs.longest_end_ms)
    return RunReport(key, runs.wanted, runs.held, runs.longest, end)


def _windows_in(timeline: Timeline, track: Track) -> dict[str, int]:
    windows_in = dict.fromkeys(map(str, STATES), 0)
    for state, windows in zip(track.states, timeline.windows, strict=True):
        windows_in[STATES[state]] += windows
    return windows_in


def _symbols_where(
    columns: dict[str, KpiSurvey], holds: Callable[[KpiSurvey], bool]
) -> tuple[str, ...]:
    return tuple(symbol for symbol, column in columns.items() if holds(column))


def _most(columns: dict[str, KpiSurvey], symbols: Iterable[str], what: str) -> str:
    """Return the share of a kind of cell: `96.0% of 4264 windows`."""
    windows = sum(columns[symbol].windows for symbol in symbols)
    cells = sum(getattr(columns[symbol], what) for symbol in symbols)
    return f"{cells / windows:.1%} of {windows} windows"


def _side(kpi: Kpi) -> str:
    return "below" if kpi.breached_when == "<" else "above"


def _told(symbols: Sequence[str]) -> str:
    """Return the symbols' names, of many only the first."""
    if len(symbols) <= SYMBOLS_TOLD_MAX:
        return ", ".join(symbols)
    rest = len(symbols) - SYMBOLS_TOLD_MAX
    return f"{', '.join(symbols[:SYMBOLS_TOLD_MAX])} and {rest} more"
