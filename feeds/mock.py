"""
The mock feed: made-up KPIs that tell a story, for the guide's examples and for demos.

`mock://SCENARIO?seed=N` names the story. What a window holds depends only on the scenario, the
seed, the symbol and how many windows lie between the origin and it, so that a runner that was
restarted goes on where it stopped, and two runs of a demo show the same figures.

Source: LIVE_MODE_GUIDE.md, Quick Start and Runbook; DESIGN.md section 4.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Final, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec

from domain.errors import BadInput
from domain.kpis import Reading
from domain.windows import SymbolReadings, WindowReadings, check_interval, check_symbols

DEFAULT_SCENARIO: Final = "healthy"
SEED_MAX: Final = 2**63 - 1

Ranges = Mapping[str, tuple[float, float]]
"""By KPI, the lowest and the highest value that it is drawn from."""


class Phase(msgspec.Struct, frozen=True):
    """
    Some windows in a row that are alike.

    Attributes:
        windows: how many; None is for good, in a scenario's last phase.
        ranges: where the first symbol's KPIs differ from `HEALTHY`.
        silent: nothing arrives, for any symbol.
    """

    windows: int | None
    ranges: Ranges = {}
    silent: bool = False


class Scenario(msgspec.Struct, frozen=True):
    """Phases one after the other, beginning again after the last if it doesn't go on for good."""

    phases: tuple[Phase, ...]

    def phase_at(self, index: int) -> Phase:
        """Return the phase of a window by its number, from 0; before that it is the first."""
        lengths = [phase.windows for phase in self.phases if phase.windows is not None]
        left = max(index, 0)
        if len(lengths) == len(self.phases):
            left %= sum(lengths)
        for phase in self.phases:
            if phase.windows is None or left < phase.windows:
                return phase
            left -= phase.windows
        raise AssertionError("the phases of a scenario cover every window")


HEALTHY: Final[Ranges] = {
    "edge_bps": (3.0, 4.0),
    "maker_taker_ratio": (0.88, 0.95),
    "risk_ratio": (0.15, 0.30),
    "p95_latency_ms": (120.0, 250.0),
    "anomaly_score": (0.0, 1.2),
}
SLOW: Final[Ranges] = {"p95_latency_ms": (360.0, 480.0)}
# The figures of the guide's runbook, Scenario 1.
CRITICAL: Final[Ranges] = {"edge_bps": (2.0, 2.0), "risk_ratio": (0.45, 0.45)}

# The lengths are made for the default hysteresis: 3 WARN windows lead to COOLDOWN, 12 OK windows
# out of it, and 24 out of FROZEN.
SCENARIOS: Final = {
    "healthy": Scenario((Phase(None),)),
    "warn": Scenario((Phase(6), Phase(None, SLOW))),
    "incident": Scenario((Phase(30), Phase(8, SLOW), Phase(4, CRITICAL), Phase(None))),
    "flapping": Scenario(
        (
            Phase(2),
            Phase(1, SLOW),
            Phase(2),
            Phase(2, SLOW),
            Phase(1),
            Phase(2, SLOW),
            Phase(2),
            Phase(3, SLOW),
            Phase(14),
            Phase(1, SLOW),
            Phase(2),
            Phase(1, CRITICAL),
            Phase(26),
        )
    ),
    "outage": Scenario((Phase(20), Phase(10, silent=True), Phase(None))),
}

_DECIMALS: Final = 3
_FILLS: Final = (20, 60)
_NOTIONAL_PER_FILL: Final = (400.0, 1_200.0)


class MockFeed:
    """A `LiveFeed` that makes its windows up, at once and always the same."""

    kind: Literal["mock"] = "mock"

    def __init__(
        self, url: str, symbols: Sequence[str], *, interval_ms: int, origin_ms: int
    ) -> None:
        """
        Take the scenario and the seed from the url.

        Args:
            url: `mock://SCENARIO?seed=N`; without a scenario healthy, without a seed 0.
            symbols: the first one has the trouble, the others are healthy.
            interval_ms: the length of a window.
            origin_ms: the start of the scenario's first window, the same after a restart.

        Raises:
            BadInput: naming what is wrong with the url, and what is known.
        """
        self._name, self._seed = _parse(url)
        self._symbols = check_symbols(symbols, source="--symbols")
        self._interval_ms = check_interval(interval_ms, source="--interval-sec")
        self._origin_ms = origin_ms
        self._newest_ms: int | None = None

    @property
    def description(self) -> str:
        """The url with everything spelled out: `mock://incident?seed=0`."""
        return f"mock://{self._name}?seed={self._seed}"

    def collect(self, start_ms: int, end_ms: int) -> WindowReadings:
        """Return the window that starts at `start_ms`, whatever has been asked for before."""
        index = (start_ms - self._origin_ms) // self._interval_ms
        phase = SCENARIOS[self._name].phase_at(index)
        if phase.silent:
            return WindowReadings(start_ms=start_ms)
        self._newest_ms = end_ms
        troubled = self._symbols[0]
        readings = {
            symbol: self._readings(symbol, index, phase.ranges if symbol == troubled else {})
            for symbol in self._symbols
        }
        return WindowReadings(start_ms=start_ms, symbols=readings)

    @property
    def lateness_ms(self) -> int:
        """Return 0: a mock market is never late."""
        return 0

    @property
    def newest_ms(self) -> int | None:
        """The end of the last window that wasn't silent."""
        return self._newest_ms

    def poll(self, now_ms: int) -> None:
        """Do nothing: there is nothing to take in."""

    def notices(self) -> list[str]:
        """Return []: there is nothing to tell."""
        return []

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def _readings(self, symbol: str, index: int, ranges: Ranges) -> SymbolReadings:
        # A text is a seed that gives the same numbers in every process; a tuple's hash isn't.
        dice = random.Random(f"{self._name}/{self._seed}/{symbol}/{index}")
        kpis: dict[str, Reading] = {
            name: round(dice.uniform(*span), _DECIMALS)
            for name, span in {**HEALTHY, **ranges}.items()
        }
        fills = dice.randint(*_FILLS)
        notional = round(fills * dice.uniform(*_NOTIONAL_PER_FILL), 2)
        return SymbolReadings(kpis=kpis, notional=notional, fills=fills)


def _parse(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise BadInput(f"{url}: expected mock://SCENARIO?seed=N, was: {error}") from error
    if parts.scheme != "mock" or parts.path not in ("", "/") or parts.fragment:
        raise BadInput(f"{url}: expected mock://SCENARIO?seed=N")
    name = parts.netloc or DEFAULT_SCENARIO
    if name not in SCENARIOS:
        raise BadInput(f"{url}: expected one of the scenarios {', '.join(SCENARIOS)}, was {name!r}")
    for key, _ in options:
        if key != "seed":
            raise BadInput(f"{url}: expected no option but seed, was {key!r}")
    if len(options) > 1:
        raise BadInput(f"{url}: expected one seed, was {len(options)}")
    return name, _seed_of(url, options[0][1] if options else "0")


def _seed_of(url: str, text: str) -> int:
    # The length is looked at first, because reading a very long number is slow or refused.
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(SEED_MAX))
    if not is_number or int(text) > SEED_MAX:
        raise BadInput(f"{url}: expected a seed from 0 to {SEED_MAX}, was {text[:40]!r}")
    return int(text)
