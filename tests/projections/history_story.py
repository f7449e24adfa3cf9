"""A long, seeded story of one stream on a real ledger, with everything in it that can happen."""

import random
from collections.abc import Sequence
from typing import Final

from domain.commands import (
    AdoptPolicy,
    ApplyOverride,
    ClearOverride,
    Command,
    ObserveClock,
    ObserveWindow,
    PassWindows,
    ReportExternalWrite,
    ReportFill,
    StartRun,
    StopRun,
)
from domain.controller import decide, fold
from domain.errors import CommandRefused
from domain.events import Event, Override, OverrideKind, RampProfile
from domain.kpis import KPIS, Defect, Reading
from domain.policy import Policy
from domain.windows import SymbolReadings, WindowReadings
from ledger.application import Ledger, StreamState
from ledger.streams import parse_stream_id

NAMES: Final = ("BTCUSDT", "ETHUSDT", "X-1.P_2", "ADAUSDT")
INTERVAL_MS: Final = 600_000
ORIGIN_MS: Final = 1_767_571_200_000

OK: Final[dict[str, Reading]] = {
    "edge_bps": 3.25,
    "maker_taker_ratio": 0.9,
    "risk_ratio": 0.2,
    "p95_latency_ms": 200.0,
    "anomaly_score": 1.0,
}
BREACHES: Final[dict[str, Reading]] = {
    "edge_bps": 2.0,
    "maker_taker_ratio": 0.5,
    "risk_ratio": 0.45,
    "p95_latency_ms": 361.5,
    "anomaly_score": 3.0,
}
OUTSIDE: Final[dict[str, Reading]] = {
    "maker_taker_ratio": 1.5,
    "risk_ratio": -0.1,
    "p95_latency_ms": -3.0,
}


class Teller:
    """Tells a story, an append at a time; the same one for the same seed."""

    def __init__(self, ledger: Ledger, stream_id: str = "dev:bybit", seed: int = 0) -> None:
        self.ledger = ledger
        self.stream = ledger.stream(stream_id)
        self._random = random.Random(f"{seed} {self.stream.version}")
        self._key = parse_stream_id(stream_id)
        self._runs = 0
        if not self.stream.version:
            self._begin()

    def tell(self, steps: int) -> StreamState:
        """Take so many steps."""
        for _ in range(steps):
            self._step()
        return self.stream

    @property
    def next_window(self) -> int:
        window = self.stream.state.next_window
        return ORIGIN_MS if window is None else window

    def _begin(self) -> None:
        self._append([self._start(), *self._adoption(), self._window(ORIGIN_MS)])

    def _step(self) -> None:
        try:
            self._append(self._commands())
        except CommandRefused:
            self._append([self._window(self.next_window)])

    def _commands(self) -> Sequence[Command]:
        dice, window = self._random.random(), self.next_window
        middle = window + INTERVAL_MS // 2
        state = self.stream.state
        if dice < 0.8:
            return [self._window(window)]
        if dice < 0.83:
            later = window + INTERVAL_MS * self._random.choice([1, 3, 30, 400])
            return [PassWindows(until=later), self._window(later)]
        if dice < 0.9:
            return [ApplyOverride(override=self._override(middle))]
        if dice < 0.93 and state.overrides_in_force:
            ended = self._random.choice(state.overrides_in_force)
            return [ClearOverride(id=ended.id, at_ms=middle, actor="kim", reason="all is well")]
        if dice < 0.94:
            return [ObserveClock(window=window - 7 * INTERVAL_MS)]
        if dice < 0.95:
            return [self._window(window - INTERVAL_MS * self._random.randint(1, 5))]
        if dice < 0.97:
            return [self._foreign(middle)]
        if dice < 0.98:
            return [ReportFill("BTCUSDT", middle, window - INTERVAL_MS, 12.5, 5_000)]
        self._runs += 1
        run = state.run
        assert run is not None
        stop = StopRun(run_id=run.run_id, reason="stopped by a signal", at_ms=middle)
        return [stop, self._start(), *self._adoption(), self._window(window)]

    def _start(self) -> StartRun:
        return StartRun(
            run_id=f"run-{self.stream.version}",
            ledger_id=self.stream.state.ledger_id or f"ledger-{self.stream.id}",
            env=self._key.env,
            exchange=self._key.exchange,
            dry_run=self._key.dry_run,
            interval_ms=INTERVAL_MS,
            feed="test",
            feed_kind="file",
            code_version="0",
            started_at_ms=self.next_window - 1_234,
            host="a",
            process_id=7,
        )

    def _adoption(self) -> list[Command]:
        count = self._random.randint(2, len(NAMES))
        policy = Policy(
            min_warn_windows=self._random.choice([2, 3]),
            min_ok_windows=3,
            unfreeze_after_ok_windows=self._random.choice([4, 6]),
            global_freeze_symbols=self._random.choice([1, 1, 2]),
            symbols={"ETHUSDT": {"max_risk": self._random.choice([0.3, 0.35])}},
        )
        limits = RampProfile(name="P", max_notional=300.0, max_symbols=count - 1)
        profile = self._random.choice([None, limits]) if count > 2 else None
        return [AdoptPolicy(window=0, policy=policy, symbols=NAMES[:count], profile=profile)]

    def _window(self, window: int) -> ObserveWindow:
        calm = self._random.random() < 0.7
        symbols = {symbol: self._readings(calm) for symbol in self.stream.state.symbol_names}
        symbols = symbols or {symbol: self._readings(True) for symbol in NAMES}
        counts = {"late": 2} if self._random.random() < 0.1 else {}
        position = f"{window}-0" if self._random.random() < 0.5 else None
        return ObserveWindow(
            readings=WindowReadings(
                start_ms=window, symbols=symbols, feed_counts=counts, feed_position=position
            )
        )

    def _readings(self, calm: bool) -> SymbolReadings:
        kpis = dict(OK)
        kpis["edge_bps"] = 3.0 + self._random.random()
        if not calm:
            for kpi in KPIS:
                dice = self._random.random()
                if dice < 0.05:
                    kpis[kpi.name] = BREACHES[kpi.name]
                elif dice < 0.08:
                    del kpis[kpi.name]
                elif dice < 0.1:
                    kpis[kpi.name] = self._random.choice(list(Defect))
                elif dice < 0.12 and kpi.name in OUTSIDE:
                    kpis[kpi.name] = OUTSIDE[kpi.name]
        known = self._random.random() < 0.8
        return SymbolReadings(
            kpis, 1_000 * self._random.random() if known else None, 3 if known else None
        )

    def _override(self, at_ms: int) -> Override:
        kind = self._random.choice(list(OverrideKind))
        return Override(
            id=f"o-{self.stream.version}",
            kind=kind,
            actor="kim",
            reason="a drill, =1+1",
            applied_at_ms=at_ms,
            symbol=self._random.choice([None, self.stream.state.symbol_names[0]]),
            cap=0.25 if kind is OverrideKind.CAP else None,
            expires_at_ms=self._random.choice([None, at_ms + 3 * INTERVAL_MS]),
        )

    def _foreign(self, at_ms: int) -> ReportExternalWrite:
        return ReportExternalWrite(
            id=f"f-{self.stream.version}",
            key=f"{self.stream.id}:live:state",
            symbol=None,
            found=self._random.choice(["ACTIVE", "FROZEN", "nonsense"]),
            expected=self.stream.state.trading_state.value,
            at_ms=at_ms,
        )

    def _append(self, commands: Sequence[Command]) -> None:
        """Decide the commands, each under the policy then in force, and append what follows."""
        state = self.stream.state
        events: list[Event] = []
        for command in commands:
            new = decide(state.policy, state, command)
            state = fold(state, new)
            events += new
        decided_at_ms = state.next_window if self._random.random() < 0.9 else None
        self.stream = self.ledger.append(self.stream, events, decided_at_ms=decided_at_ms)
