"""Random policies and histories for Hypothesis: values cluster around thresholds, runs are long."""

from typing import Any, NamedTuple

from decider_spec import (
    BTC,
    ETH,
    HEALTHY,
    KPI_NAMES,
    MINUTE_MS,
    NO_FILLS,
    NOTHING,
    OK,
    SOL,
    at,
    profile,
    readings,
)
from decider_spec import Ledger as Story
from hypothesis import strategies as st

from domain.commands import ObserveClock, ObserveWindow
from domain.errors import CommandRefused
from domain.events import Event
from domain.kpis import KPIS, Defect, Kpi, Reading
from domain.policy import Policy
from domain.state import State
from domain.windows import SymbolReadings, WindowReadings

NAMES = (BTC, ETH, SOL, "XRPUSDT")


def ok_values(kpi: Kpi) -> list[float]:
    """Return values that no policy of ours breaches, the threshold itself among them."""
    healthy = HEALTHY[kpi.name]
    assert isinstance(healthy, float)
    return [kpi.threshold, healthy]


def breaches(kpi: Kpi) -> list[float]:
    return [kpi.threshold + (-0.01 if kpi.breached_when == "<" else 0.01)]


def no_data(kpi: Kpi) -> list[Reading | None]:
    out = [-0.01] if kpi.lowest == 0.0 else []
    return [None, Defect.STALE, float("nan"), *out]


def worse(kpi: Kpi) -> list[Reading | None]:
    """Return what an OK value can be replaced by so that it isn't better."""
    return [*no_data(kpi), *breaches(kpi)]


SINGLE = [readings(**{kpi.name: value}) for kpi in KPIS for value in worse(kpi) + ok_values(kpi)]
SEVERAL = [
    readings(edge_bps=None, anomaly_score=None),
    readings(edge_bps=None, maker_taker_ratio=None, risk_ratio=0.41),
    readings(edge_bps=Defect.NAN, p95_latency_ms=351.0, anomaly_score=2.1),
    readings(maker_taker_ratio=0.5, risk_ratio=None, anomaly_score=None),
]

arrivals = st.one_of(
    st.sampled_from([OK, OK, NO_FILLS, NOTHING]), st.sampled_from(SINGLE), st.sampled_from(SEVERAL)
)


class Window(NamedTuple):
    """So many windows alike; `arrived` has one entry a symbol, the last one for all the rest."""

    times: int
    arrived: tuple[SymbolReadings, ...]


class Gap(NamedTuple):
    windows: int


class Overriding(NamedTuple):
    kind: str
    symbol: int | None
    cap: float
    minutes: float | None


class Clearing(NamedTuple):
    minutes: float


class ClockBack(NamedTuple):
    windows: int


Step = Window | Gap | Overriding | Clearing | ClockBack


@st.composite
def policies(draw: st.DrawFn, /, symbols: int, counts_max: int = 3, **fixed: Any) -> Policy:
    """Return a runnable policy with counts up to about `counts_max`."""
    counts = st.integers(1, counts_max)
    required = draw(st.lists(st.sampled_from(KPI_NAMES), min_size=1, unique=True))
    others = [name for name in KPI_NAMES if name != required[0]]
    min_ok = draw(counts)
    drawn: dict[str, Any] = {
        "required_kpis": tuple(required),
        "waived_when_halted": tuple(draw(st.lists(st.sampled_from(others), unique=True))),
        "min_warn_windows": draw(counts),
        "min_ok_windows": min_ok,
        "unfreeze_after_ok_windows": min_ok + draw(st.integers(0, 2)),
        "no_data_freeze_windows": draw(counts),
        "global_freeze_symbols": draw(st.integers(1, min(3, symbols))),
        "cooldown_throttle": draw(st.sampled_from([0.3, 0.5, 0.6])),
        "symbols": draw(st.sampled_from([{}, {ETH: {"max_risk": 0.21}}])),
    }
    return Policy(**{**drawn, **fixed})


windows_alike = st.builds(
    Window, st.sampled_from([1, 1, 1, 2, 5]), st.lists(arrivals, min_size=1, max_size=4).map(tuple)
)
gaps = st.builds(Gap, st.integers(1, 5))
overridings = st.builds(
    Overriding,
    st.sampled_from(["freeze", "cap", "unfreeze"]),
    st.sampled_from([None, 0, 1]),
    st.sampled_from([0.0, 0.4, 1.0]),
    st.sampled_from([None, 0.5, 1.5, 3.0, 20.0]),
)
series = st.lists(st.one_of(windows_alike, windows_alike, windows_alike, gaps), max_size=12)
stories = st.lists(
    st.one_of(
        windows_alike,
        windows_alike,
        windows_alike,
        gaps,
        overridings,
        st.builds(Clearing, st.sampled_from([0.0, 0.5])),
        st.builds(ClockBack, st.integers(1, 3)),
    ),
    max_size=12,
)


@st.composite
def ledgers(draw: st.DrawFn, /, **fixed: Any) -> Story:
    """Return a new ledger of 1 to 4 symbols under a random policy and perhaps a limit."""
    count = draw(st.integers(1, 4))
    limit = draw(st.integers(1, count))
    policy = draw(policies(limit, **fixed))
    return Story(policy, *NAMES[:count], limits=None if limit == count else profile(limit))


def window_readings(story: Story, arrived: tuple[SymbolReadings, ...]) -> WindowReadings:
    names = story.state.symbol_names
    padded = [*arrived, *[arrived[-1]] * len(names)]
    return WindowReadings(
        start_ms=story.next_window, symbols=dict(zip(names, padded, strict=False))
    )


def tell(story: Story, steps: list[Step]) -> list[tuple[State, list[Event]]]:
    """Tell the steps; return the state before each command and the events that it gave."""
    told = []
    for step in steps:
        for _ in range(step.times if isinstance(step, Window) else 1):
            before = story.state
            try:
                events = _tell_one(story, step)
            except CommandRefused:
                continue
            told.append((before, events))
    return told


def _tell_one(story: Story, step: Step) -> list[Event]:
    match step:
        case Window():
            readings_now = window_readings(story, step.arrived)
            return story.when(ObserveWindow(readings=readings_now))
        case Gap():
            return story.skip(step.windows)
        case Overriding():
            names = story.state.symbol_names
            symbol = None if step.symbol is None else names[step.symbol % len(names)]
            cap = step.cap if step.kind == "cap" else None
            return story.override(step.kind, symbol, cap=cap, minutes=step.minutes)
        case Clearing():
            if not story.state.overrides_in_force:
                return []
            return story.clear(story.next_window + round(step.minutes * MINUTE_MS))
        case ClockBack():
            return story.when(ObserveClock(window=(story.state.window or at(0)) - MINUTE_MS))
