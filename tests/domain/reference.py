"""
The rules of DESIGN.md section 1 once more, naively, with nothing of domain/. No overrides.
"""

from collections.abc import Callable, Mapping
from typing import Any

OK, WARN, CRIT = 0, 1, 2

TABLE: list[tuple[str, str, str, int, Callable[[float], bool]]] = [
    # KPI, policy key, breached when, verdict, domain
    ("edge_bps", "min_edge_bps", "<", CRIT, lambda value: True),
    ("maker_taker_ratio", "min_maker_taker", "<", WARN, lambda value: 0 <= value <= 1),
    ("risk_ratio", "max_risk", ">", CRIT, lambda value: value >= 0),
    ("p95_latency_ms", "max_latency_ms", ">", WARN, lambda value: value >= 0),
    ("anomaly_score", "max_anomaly", ">", CRIT, lambda value: True),
]


class Symbol:
    """What is known of one symbol."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.verdict = OK
        self.waived = False  # A waiver excused a KPI in this window.
        self.no_data = dict.fromkeys([row[0] for row in TABLE], 0)
        self.breached = dict.fromkeys([row[0] for row in TABLE], False)
        self.frozen = False
        self.was_frozen = False
        self.probation = False
        self.ok_count = 0
        self.helped = False  # A waiver excused a KPI in one of the OK windows.
        self.throttle = 1.0
        self.effective = 1.0
        self.halted = False  # Its effective throttle was 0.0 after the previous window.


class Reference:
    """One stream; feed it windows in order and read what it thinks."""

    def __init__(self, policy: Mapping[str, Any], names: list[str], limit: int) -> None:
        self.policy = policy
        self.symbols = [Symbol(name) for name in names]
        self.limit = limit
        self.state, self.throttle = "ACTIVE", 1.0
        self.ok_count, self.warn_count, self.helped = 0, 0, False
        self.triggered_by: str | None = None

    def gap(self, windows: int) -> None:
        """A gap is as many windows without data; its cause is the gap."""
        before, triggered_by = self.state, self.triggered_by
        for _ in range(windows):
            self.window({})
        self.triggered_by = triggered_by if self.state == before else None

    def window(self, arrived: Mapping[str, Mapping[str, Any]]) -> None:
        for symbol in self.symbols:
            self.judge(symbol, arrived.get(symbol.name, {}))
            self.latch(symbol)
        verdict = self.window_verdict()
        self.count(verdict)
        self.move(verdict)
        for position, symbol in enumerate(self.symbols):
            symbol.effective = min(self.throttle, symbol.throttle)
            if position >= self.limit:
                symbol.effective = 0.0
            symbol.halted = symbol.effective == 0.0

    def judge(self, symbol: Symbol, values: Mapping[str, Any]) -> None:
        policy = self.policy
        thresholds = {**policy["thresholds"], **policy["symbols"].get(symbol.name, {})}
        verdicts = [OK]
        symbol.waived = False
        for kpi, key, breached_when, weight, in_domain in TABLE:
            value, threshold = values.get(kpi), thresholds[key]
            if isinstance(value, float) and abs(value) < float("inf") and in_domain(value):
                symbol.no_data[kpi] = 0
                bad = value < threshold if breached_when == "<" else value > threshold
                symbol.breached[kpi] = bad
                verdicts.append(weight if bad else OK)
                continue
            must_be_there = kpi in policy["required_kpis"] or symbol.breached[kpi]
            if value is None and not must_be_there:
                symbol.no_data[kpi] = 0
            elif value is None and symbol.halted and kpi in policy["waived_when_halted"]:
                symbol.no_data[kpi] = 0
                symbol.waived = True
            else:
                symbol.no_data[kpi] += 1
                too_long = symbol.no_data[kpi] >= policy["no_data_freeze_windows"]
                verdicts.append(CRIT if too_long else WARN)
        symbol.verdict = max(verdicts)

    def latch(self, symbol: Symbol) -> None:
        symbol.was_frozen = symbol.frozen
        if symbol.verdict == OK:
            symbol.ok_count += 1
            symbol.helped = symbol.helped or symbol.waived
        else:
            symbol.ok_count, symbol.helped = 0, False
        if symbol.verdict == CRIT:
            symbol.frozen, symbol.probation = True, False
        elif symbol.frozen and symbol.ok_count >= self.policy["unfreeze_after_ok_windows"]:
            symbol.frozen, symbol.probation = False, symbol.helped
            symbol.ok_count, symbol.helped = 0, False
        elif symbol.probation and symbol.ok_count >= self.policy["min_ok_windows"]:
            symbol.probation = False
        symbol.throttle = {OK: 1.0, WARN: 0.5, CRIT: 0.0}[symbol.verdict]
        if symbol.probation:
            symbol.throttle = min(symbol.throttle, 0.5)
        if symbol.frozen:
            symbol.throttle = 0.0

    def window_verdict(self) -> int:
        entering, freezes_at = self.symbols[: self.limit], self.policy["global_freeze_symbols"]
        if len([symbol for symbol in entering if symbol.verdict == CRIT]) >= freezes_at:
            return CRIT
        if freezes_at > 1:
            entering = [symbol for symbol in entering if not symbol.was_frozen]
            if entering == []:
                return WARN
        return OK if all(symbol.verdict == OK for symbol in entering) else WARN

    def count(self, verdict: int) -> None:
        self.warn_count = self.warn_count + 1 if verdict == WARN else 0
        self.ok_count = self.ok_count + 1 if verdict == OK else 0
        waived = any(symbol.waived for symbol in self.symbols[: self.limit])
        self.helped = verdict == OK and (self.helped or waived)

    def move(self, verdict: int) -> None:
        policy, cooldown = self.policy, self.policy["cooldown_throttle"]
        worst = max(symbol.verdict for symbol in self.symbols[: self.limit])
        ill = [symbol.name for symbol in self.symbols[: self.limit] if symbol.verdict == worst]
        culprit = ill[0] if worst != OK else None
        if verdict == CRIT and self.state != "FROZEN":
            self.go("FROZEN", 0.0, culprit)
        elif self.state == "ACTIVE" and self.warn_count >= policy["min_warn_windows"]:
            self.go("COOLDOWN", cooldown, culprit)
        elif self.state == "COOLDOWN" and self.ok_count >= policy["min_ok_windows"]:
            self.go("ACTIVE", 1.0, None)
        elif self.state == "FROZEN" and self.ok_count >= policy["unfreeze_after_ok_windows"]:
            if self.helped:
                self.go("COOLDOWN", cooldown, None)
            else:
                self.go("ACTIVE", 1.0, None)

    def go(self, state: str, throttle: float, triggered_by: str | None) -> None:
        self.state, self.throttle, self.triggered_by = state, throttle, triggered_by
        self.ok_count, self.warn_count, self.helped = 0, 0, False
