"""
The CI gate: whether the artifacts are whole and fresh, and every KPI keeps its threshold.

It reads the three files back and judges them by the domain's own comparison, so that gate and
controller agree. What is missing, stale or contradicts itself is UNKNOWN, and one UNKNOWN check
outweighs everything else: the gate concludes nothing from data that it can't believe.

Source: LIVE_MODE_GUIDE.md, CI Gate; DESIGN.md section 3, Exit codes.
"""

import errno
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from domain.errors import BadInput, CannotTell
from domain.events import TradingState
from domain.kpis import KPI_BY_NAME, KPIS, Kpi
from domain.verdicts import breach, format_threshold
from domain.windows import SYMBOL_PATTERN, check_symbols, parse_time
from projections.artifacts import DECISION, REPORT, SUMMARY
from projections.views import Decision, LedgerPlace, Summary

FILE_BYTES_MAX: Final = 16 * 1024 * 1024
FUTURE_MS_MAX: Final = 60_000
"""How far the clocks of the runner and of the gate may be apart."""

_SHARED: Final = ("ledger", "state", "throttle", "per_symbol_throttle", "window")
"""What summary and decision both hold, and must agree on."""

_View = TypeVar("_View")


class Outcome(StrEnum):
    """What a check, or the gate, came to."""

    PASS = "PASS"  # noqa: S105 - an outcome, no password
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"

    @property
    def exit_code(self) -> int:
        """0 for PASS, 1 for FAIL, 3 for UNKNOWN."""
        return _EXIT_CODES[self]


_EXIT_CODES: Final = {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.UNKNOWN: CannotTell.exit_code}


class Check(msgspec.Struct, frozen=True):
    """
    One thing that the gate looked at.

    Attributes:
        name: a file, `version`, `age`, ..., `throttle`, or a KPI as in files.
        subject: the symbol it is about, None where it is about all.
        sentence: what was found, against what was asked for.
        value, comparator, threshold: `value comparator threshold` is what PASS takes; the units
            are the KPI's own, seconds for an age. None where there is no such thing.
    """

    name: str
    subject: str | None
    outcome: Outcome
    sentence: str
    value: str | float | None = None
    comparator: str | None = None
    threshold: str | float | None = None


class GateLimits(msgspec.Struct, frozen=True):
    """
    What is asked of the artifacts.

    Attributes:
        thresholds: by KPI name, one for each of `KPIS`, in the KPI's own unit.
        max_age_sec: how long ago the last window may have ended; 0 is any time ago.
        env: which env they must be of, None for any.
        refuses_mock: whether made-up KPIs won't do.
    """

    thresholds: dict[str, float]
    max_age_sec: float
    env: str | None = None
    refuses_mock: bool = False


class ArtifactsRead(msgspec.Struct, frozen=True):
    """What was found in a folder: what could be read, and the checks that tell about it."""

    summary: Summary | None
    decision: Decision | None
    report: str | None
    checks: tuple[Check, ...]

    @property
    def is_whole(self) -> bool:
        """Whether all three files are there, well-formed and of one version."""
        return outcome_of(self.checks) is Outcome.PASS


class GateResult(msgspec.Struct, frozen=True):
    """The outcome, and every check in the order it was made; `ledger` is the summary's place."""

    outcome: Outcome
    exit_code: int
    checks: tuple[Check, ...]
    ledger: LedgerPlace | None

    def count(self, outcome: Outcome) -> int:
        """Return how many checks came to an outcome."""
        return sum(check.outcome is outcome for check in self.checks)


def check_limits(limits: GateLimits) -> GateLimits:
    """
    Return the limits if they are numbers that something can be held against.

    Raises:
        BadInput: naming the option of a threshold that isn't a finite number of its KPI's domain,
            or of an age that isn't a finite number from 0.
    """
    for kpi in KPIS:
        threshold = limits.thresholds[kpi.name]
        if not kpi.is_valid(threshold):
            raise BadInput(
                f"--{kpi.gate_option}: expected a finite number{_domain(kpi)}, was {threshold:g}"
            )
    if not 0 <= limits.max_age_sec < float("inf"):
        raise BadInput(f"--max-age: expected seconds from 0 (any age), was {limits.max_age_sec:g}")
    return limits


def read_artifacts(folder: Path) -> ArtifactsRead:
    """
    Return what the folder holds, with a check for each file and one for their common version.

    Nothing is raised for what is missing or malformed: that is an UNKNOWN check.
    """
    if not folder.is_dir():
        sentence = f"the folder {str(folder)!r} isn't there; make it with live run"
        return ArtifactsRead(None, None, None, (_unknown("artifacts", sentence),))
    summary, summary_check = _read(folder / SUMMARY, _decoder(Summary))
    decision, decision_check = _read(folder / DECISION, _decoder(Decision))
    report, report_check = _read(folder / REPORT, bytes.decode)
    checks = [summary_check, decision_check, report_check]
    if summary is not None and decision is not None and report is not None:
        checks.append(_same_version(summary, decision, report))
    return ArtifactsRead(summary, decision, report, tuple(checks))


def judge(found: ArtifactsRead, limits: GateLimits, *, now_ms: int) -> GateResult:
    """
    Return every check of the artifacts, and what they come to together.

    Args:
        found: from `read_artifacts`.
        limits: from `check_limits`.
        now_ms: the time to hold `generated_at_utc` against, milliseconds since the epoch, UTC.
    """
    summary = found.summary
    checks = found.checks
    if summary is not None:
        checks += (
            age_check(summary.generated_at_utc, limits, now_ms),
            *env_check(summary.env, limits),
            *feed_check(summary.feed, limits),
            state_check(summary.state, summary.throttle),
            _required(summary),
            _symbols(summary),
        )
        # A name that isn't a symbol's is told, escaped, by the check of the symbols only.
        for symbol in dict.fromkeys(summary.symbols):
            if SYMBOL_PATTERN.fullmatch(symbol):
                checks += tuple(_symbol_checks(summary, symbol, limits))
    outcome = outcome_of(checks)
    place = None if summary is None else summary.ledger
    return GateResult(outcome, outcome.exit_code, checks, place)


def merge_results(*results: GateResult) -> GateResult:
    """Return what several results come to together; the place is the first one's that has one."""
    checks = tuple(check for result in results for check in result.checks)
    outcome = outcome_of(checks)
    places = [result.ledger for result in results if result.ledger is not None]
    return GateResult(outcome, outcome.exit_code, checks, places[0] if places else None)


def outcome_of(checks: tuple[Check, ...]) -> Outcome:
    """Return UNKNOWN if any check is, or if there is none; else FAIL if any is; else PASS."""
    outcomes = {check.outcome for check in checks} or {Outcome.UNKNOWN}
    for outcome in (Outcome.UNKNOWN, Outcome.FAIL):
        if outcome in outcomes:
            return outcome
    return Outcome.PASS


def age_check(generated_at: str, limits: GateLimits, now_ms: int) -> Check:
    """Check how long ago the last window ended. A time to come is no age, whatever is allowed."""
    try:
        age_ms = now_ms - parse_time(generated_at)
    except ValueError:
        return _unknown("age", f"generated_at_utc: expected an ISO time, was {generated_at!r}")
    age_sec, max_sec = age_ms / 1000, limits.max_age_sec
    outcome = Outcome.UNKNOWN
    if age_ms < -FUTURE_MS_MAX:
        sentence = f"generated_at_utc is {-age_sec:.12g} s in the future: {generated_at!r}"
    elif max_sec and age_sec > max_sec:
        sentence = f"age {age_sec:.12g} s > {max_sec:.12g} s: stale"
    else:
        outcome = Outcome.PASS
        told = f"<= {max_sec:.12g} s" if max_sec else "(any age will do)"
        sentence = f"age {age_sec:.12g} s {told}"
    limit = ("<=", max_sec) if max_sec else (None, None)
    return Check("age", None, outcome, sentence, age_sec, *limit)


def env_check(env: str, limits: GateLimits) -> Iterator[Check]:
    """Yield whether the env is the one that was asked for, if one was."""
    if limits.env is None:
        return
    same = env == limits.env
    yield Check(
        "env",
        None,
        Outcome.PASS if same else Outcome.UNKNOWN,
        f"env={limits.env}" if same else f"env={env!r}, expected {limits.env!r}",
        env,
        "==",
        limits.env,
    )


def feed_check(feed: str, limits: GateLimits) -> Iterator[Check]:
    """Yield whether the feed is a real one, if that was asked for."""
    if not limits.refuses_mock:
        return
    mock = feed.strip().lower().startswith("mock:")
    yield Check(
        "feed",
        None,
        Outcome.UNKNOWN if mock else Outcome.PASS,
        f"feed={feed!r}" + (": made-up KPIs tell nothing about prod" if mock else ""),
        feed,
        "!=",
        "mock://",
    )


def state_check(state: TradingState, throttle: float) -> Check:
    """Check that the last state lets anything be traded at all."""
    if state is not TradingState.FROZEN and not 0 < throttle <= 1:
        return _unknown("state", f"state={state} contradicts its throttle {throttle:g}")
    outcome = Outcome.FAIL if state is TradingState.FROZEN else Outcome.PASS
    return Check("state", None, outcome, f"state={state}", state.value, "!=", "FROZEN")


def _read(path: Path, decode: Callable[[bytes], _View]) -> tuple[_View | None, Check]:
    """Return a file's content in its shape, None if it has none, and the check that says so."""
    try:
        content = _content(path)
    except OSError as error:
        return None, _unknown(path.name, f"{path.name} can't be read: {error.strerror}")
    if not content.strip():
        return None, _unknown(path.name, f"{path.name} is empty")
    try:
        value = decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The error may quote the file, whose control characters mustn't reach a terminal.
        told = str(error).encode("unicode_escape").decode()
        return None, _unknown(path.name, f"{path.name} is not well-formed: {told}")
    return value, Check(path.name, None, Outcome.PASS, f"{path.name} is well-formed")


def _content(path: Path) -> bytes:
    """Return a file's bytes; whatever is no file (a pipe would block) or too big is an OSError."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no file")
    with path.open("rb") as file:
        content = file.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise OSError(errno.EFBIG, f"it is over {FILE_BYTES_MAX // 1024**2} MiB")
    return content


def _decoder(view: type[_View]) -> Callable[[bytes], _View]:
    return msgspec.json.Decoder(view).decode


def _same_version(summary: Summary, decision: Decision, report: str) -> Check:
    """Check that the files are of one version, by what each says that another says too."""
    differ = [name for name in _SHARED if getattr(summary, name) != getattr(decision, name)]
    place = summary.ledger
    if differ:
        sentence = f"{SUMMARY} and {DECISION} differ in {', '.join(differ)}"
    elif f"Stream `{place.stream}`, version {place.version}," not in report:
        sentence = f"{REPORT} isn't of {SUMMARY}'s {place.stream!r}, version {place.version}"
    else:
        sentence = f"all three files are of {place.stream!r}, version {place.version}"
        return Check("version", None, Outcome.PASS, sentence)
    return _unknown("version", sentence)


def _required(summary: Summary) -> Check:
    """Check that it is known which KPIs must be there: none at all would excuse everything."""
    names = summary.required_kpis
    strangers = [name for name in names if name not in KPI_BY_NAME]
    if strangers:
        return _unknown("required_kpis", f"required_kpis: {strangers[0]!r} is no KPI known here")
    if not names:
        return _unknown("required_kpis", "required_kpis: expected at least one KPI, was none")
    return Check("required_kpis", None, Outcome.PASS, f"required: {', '.join(names)}")


def _symbols(summary: Summary) -> Check:
    """Check that there are symbols, each named once, and no values of any other."""
    try:
        symbols = check_symbols(summary.symbols, source="symbols")
    except BadInput as error:
        return _unknown("symbols", str(error))
    mentioned = Counter([*summary.kpis.per_symbol, *summary.per_symbol_throttle])
    strangers = sorted(mentioned.keys() - set(symbols))
    if strangers:
        return _unknown("symbols", f"symbols: {strangers[0]!r} has values, but isn't listed")
    count = len(symbols)
    return Check("symbols", None, Outcome.PASS, f"{count} symbols", count, ">", 0)


def _symbol_checks(summary: Summary, symbol: str, limits: GateLimits) -> Iterator[Check]:
    """Yield the checks of one symbol: its throttle, then its KPIs in the order of the table."""
    yield _throttle(summary, symbol)
    values = summary.kpis.per_symbol.get(symbol)
    if values is None:
        yield _unknown("kpis", "not in kpis.per_symbol", symbol)
        return
    for kpi in KPIS:
        value, threshold = values.get(kpi.name), limits.thresholds[kpi.name]
        if value is None:
            yield _absent(summary, symbol, kpi, threshold)
        else:
            yield _kpi(symbol, kpi, value, threshold)


def _throttle(summary: Summary, symbol: str) -> Check:
    throttle = summary.per_symbol_throttle.get(symbol)
    if throttle is None:
        return _unknown("throttle", "not in per_symbol_throttle", symbol)
    if not 0 <= throttle <= 1:
        return _unknown("throttle", f"throttle={throttle:g} is outside 0 to 1", symbol)
    outcome = Outcome.PASS if throttle else Outcome.FAIL
    sentence = f"throttle={throttle:g}" + (" > 0" if throttle else ": frozen on its own")
    return Check("throttle", symbol, outcome, sentence, throttle, ">", 0.0)


def _kpi(symbol: str, kpi: Kpi, value: float, threshold: float) -> Check:
    """Check a value as the controller does: one that equals its threshold passes."""
    kept = _kept_when(kpi)
    shown = format_threshold(kpi, value)
    if not kpi.is_valid(value):
        outcome, sentence = Outcome.UNKNOWN, f"{kpi.label}={shown}, expected{_domain(kpi)}"
    elif kpi.is_breached(value, threshold):
        outcome, sentence = Outcome.FAIL, breach(kpi, value, threshold).reason
    else:
        outcome = Outcome.PASS
        sentence = f"{kpi.label}={shown} {kept} {format_threshold(kpi, threshold)}"
    return Check(kpi.name, symbol, outcome, sentence, value, kept, threshold)


def _absent(summary: Summary, symbol: str, kpi: Kpi, threshold: float) -> Check:
    """Check a KPI without a value: it passes if it isn't required, and nobody misses it."""
    outcome = Outcome.UNKNOWN
    if kpi.name in summary.required_kpis:
        sentence = f"{kpi.label}=no data, required"
    elif any(told.symbol == symbol and told.kpi == kpi.name for told in summary.violations):
        sentence = f"{kpi.label}=no data, listed as a violation"
    else:
        outcome, sentence = Outcome.PASS, f"{kpi.label} absent, not required"
    return Check(kpi.name, symbol, outcome, sentence, None, _kept_when(kpi), threshold)


def _kept_when(kpi: Kpi) -> str:
    """Return the comparison that isn't a breach."""
    return ">=" if kpi.breached_when == "<" else "<="


def _domain(kpi: Kpi) -> str:
    """Return the KPI's domain in words, with a space before; nothing if it is every number."""
    lowest = "" if kpi.lowest == -float("inf") else f" from {kpi.lowest:g}"
    highest = "" if kpi.highest == float("inf") else f" to {kpi.highest:g}"
    return lowest + highest


def _unknown(name: str, sentence: str, subject: str | None = None) -> Check:
    return Check(name, subject, Outcome.UNKNOWN, sentence)
