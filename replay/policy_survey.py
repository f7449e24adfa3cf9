"""
What a policy would find in some data, window by window: values against thresholds, runs of OK.

Runs of OK windows are judged twice, because of the waivers: once as if trading were halted, which
is when FROZEN has to be left, and once as if it went on, as it does in COOLDOWN. The judging is the
core's own. Source: issue 6, `live policy lint`.
"""

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from domain.commands import AdoptPolicy, Command, ObserveWindow, PassWindows
from domain.events import SymbolMemory
from domain.judging import judge_symbol, window_verdict
from domain.kpis import KPIS, Kpi, Verdict
from domain.policy import Policy
from domain.state import State
from domain.windows import NOTHING, SymbolReadings, WindowReadings, without_unwritable


class KpiSurvey(msgspec.Struct):
    """One KPI of one symbol: how many windows had what, and the range of the valid values."""

    valid: int = 0
    breached: int = 0
    malformed: int = 0
    absent: int = 0
    lowest: float = 0.0
    highest: float = 0.0

    @property
    def windows(self) -> int:
        """All of them."""
        return self.valid + self.malformed + self.absent


class Runs(msgspec.Struct):
    """
    Stretches of OK windows without a break.

    Attributes:
        wanted: the length that counts.
        held: how many stretches were at least so long.
        longest: the longest one's length, and `longest_end_ms` when it ended.
    """

    wanted: int
    held: int = 0
    longest: int = 0
    longest_end_ms: int | None = None
    current: int = 0

    def add(self, is_ok: bool, end_ms: int) -> None:
        """Count a window."""
        self.current = self.current + 1 if is_ok else 0
        self.held += self.current == self.wanted
        if self.current > self.longest:
            self.longest, self.longest_end_ms = self.current, end_ms


class PolicySurvey:
    """
    What some data holds under a policy.

    Attributes:
        windows, gap_windows: those with data, and those that are missing.
        kpis: by symbol and KPI, over the windows with data.
        unfreeze, recover: the runs that lead out of FROZEN and of COOLDOWN.
        not_ok: windows of symbols that are not OK while trading is halted, of `judged`.
        windows_not_ok: windows that are not OK then, over all symbols.
    """

    def __init__(self, policy: Policy) -> None:
        self.windows = 0
        self.gap_windows = 0
        self.kpis: dict[str, dict[str, KpiSurvey]] = {}
        self.unfreeze = Runs(policy.unfreeze_after_ok_windows)
        self.recover = Runs(policy.min_ok_windows)
        self.judged = 0
        self.not_ok = 0
        self.windows_not_ok = 0
        self._policy = policy
        self._symbols: tuple[str, ...] = ()
        self._halted = _World(policy, is_halted=True)
        self._trading = _World(policy, is_halted=False)

    def add(self, readings: WindowReadings, interval_ms: int) -> None:
        """Take in one window."""
        end_ms = readings.start_ms + interval_ms
        arrived = {
            symbol: without_unwritable(readings.symbols.get(symbol, NOTHING))
            for symbol in self._symbols
        }
        for symbol, got in arrived.items():
            self._count(symbol, got)
        verdict, ill = self._halted.judge(arrived)
        self.windows += 1
        self.judged += len(arrived)
        self.not_ok += ill
        self.windows_not_ok += verdict is not Verdict.OK
        self.unfreeze.add(verdict is Verdict.OK, end_ms)
        self.recover.add(self._trading.judge(arrived)[0] is Verdict.OK, end_ms)

    def add_gap(self, windows: int, end_ms: int) -> None:
        """Take in windows that are missing: no run goes on over them."""
        self.gap_windows += windows
        self.unfreeze.add(False, end_ms)
        self.recover.add(False, end_ms)
        self._halted.skip(windows)
        self._trading.skip(windows)

    def choose(self, symbols: tuple[str, ...]) -> None:
        """From here on these are the symbols."""
        self._symbols = symbols
        for symbol in symbols:
            self.kpis.setdefault(symbol, {kpi.name: KpiSurvey() for kpi in KPIS})

    def _count(self, symbol: str, readings: SymbolReadings) -> None:
        thresholds = self._policy.thresholds_of(symbol)
        for kpi in KPIS:
            _count_kpi(
                self.kpis[symbol][kpi.name], kpi, readings, threshold=thresholds[kpi.policy_key]
            )


def survey_policy(policy: Policy, commands: Iterable[Command], interval_ms: int) -> PolicySurvey:
    """Return what the windows that the commands tell hold under a policy."""
    survey = PolicySurvey(policy)
    next_ms: int | None = None
    for command in commands:
        match command:
            case AdoptPolicy():
                survey.choose(command.symbols)
            case PassWindows() if next_ms is not None and command.until > next_ms:
                survey.add_gap((command.until - next_ms) // interval_ms, command.until)
                next_ms = command.until
            case ObserveWindow():
                survey.add(command.readings, interval_ms)
                next_ms = command.readings.start_ms + interval_ms
            case _:
                pass
    return survey


class _World:
    """The symbols' memories under the assumption that trading is always halted, or never is."""

    def __init__(self, policy: Policy, *, is_halted: bool) -> None:
        self._policy = policy
        self._is_halted = is_halted
        self._memories: dict[str, SymbolMemory] = {}

    def judge(self, arrived: dict[str, SymbolReadings]) -> tuple[Verdict, int]:
        """Return the window's verdict, and how many symbols are not OK."""
        before = [
            self._memories.get(symbol) or SymbolMemory(symbol=symbol, halted=self._is_halted)
            for symbol in arrived
        ]
        judged = [
            judge_symbol(self._policy, memory, arrived[memory.symbol], held=False)
            for memory in before
        ]
        verdict = window_verdict(self._policy, State(symbols=tuple(before)), judged)
        for symbol in judged:
            memory = replace(symbol.memory, halted=self._is_halted)
            self._memories[memory.symbol] = memory
        return verdict, sum(symbol.verdict is not Verdict.OK for symbol in judged)

    def skip(self, windows: int) -> None:
        """Forget what counted; so many windows without data freeze a symbol on its own."""
        is_frozen = windows >= self._policy.no_data_freeze_windows
        for symbol, memory in self._memories.items():
            self._memories[symbol] = replace(
                memory, ok_windows=0, excused=False, frozen=memory.frozen or is_frozen
            )


def _count_kpi(survey: KpiSurvey, kpi: Kpi, readings: SymbolReadings, *, threshold: float) -> None:
    reading = readings.kpis.get(kpi.name)
    if reading is None:
        survey.absent += 1
    elif not kpi.is_valid(reading):
        survey.malformed += 1
    else:
        value = float(reading)
        is_first = not survey.valid
        survey.lowest = value if is_first else min(survey.lowest, value)
        survey.highest = value if is_first else max(survey.highest, value)
        survey.valid += 1
        survey.breached += kpi.is_breached(value, threshold)
