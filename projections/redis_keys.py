"""
What one ledger version puts into Redis: the keys, and every value under them.

A function of the stream's state alone. Source: LIVE_MODE_GUIDE.md, Redis Keys; DESIGN.md section 3.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec
from msgspec.structs import replace

from domain.errors import CannotTell
from domain.events import StateTransitioned, TradingState
from domain.kpis import KPIS
from domain.state import State
from domain.windows import format_time
from projections.freshness import INTERVALS_BELIEVED
from projections.views import LedgerPlace, effective_notional, kpi_values, override_view

TTL_SEC: Final = 3600
TRANSITIONS_MAX: Final = 1_000


class LiveKeys(msgspec.Struct, frozen=True):
    """The names of one env and exchange's keys."""

    namespace: str

    @property
    def state(self) -> str:
        """String: the global state."""
        return f"{self.namespace}state"

    @property
    def summary(self) -> str:
        """Hash: `Publication.summary`."""
        return f"{self.namespace}summary"

    @property
    def transitions(self) -> str:
        """Stream: an entry a transition, its id the transition's number in the ledger."""
        return f"{self.namespace}transitions"

    @property
    def hold(self) -> str:
        """String: while it is there, nothing above FROZEN is published; it says who and why."""
        return f"{self.namespace}hold"

    @property
    def lease(self) -> str:
        """Hash: the token and the owner of whoever may publish."""
        return f"{self.namespace}lease"

    @property
    def fence(self) -> str:
        """String: the highest token ever given."""
        return f"{self.namespace}fence"

    def throttle(self, symbol: str) -> str:
        """String: what may be traded of the symbol, 0.0 to 1.0."""
        return f"{self.namespace}throttle:{symbol}"

    def kpi_throttle(self, symbol: str) -> str:
        """String: the symbol's KPI-based throttle: who is ill."""
        return f"{self.namespace}kpi_throttle:{symbol}"


class Transition(msgspec.Struct, frozen=True):
    """One entry of the stream: its number in the ledger, from 1, and its fields."""

    number: int
    fields: dict[str, str]


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """
    All that one ledger version publishes.

    Attributes:
        version, ledger_id: which version of which ledger.
        throttles, kpi_throttles: by symbol, in configured order; effective and KPI-based.
        retired: symbols that were removed; their keys go to 0.0, then expire.
        summary: the summary's fields.
        transitions: entries for the stream, in order; those that are there already are skipped.
        valid_until_ms: from then on nothing of it may be believed.
        fault: why everything is FROZEN against the ledger; "" normally.
    """

    version: int
    ledger_id: str
    state: TradingState
    throttles: dict[str, str]
    kpi_throttles: dict[str, str]
    retired: tuple[str, ...]
    summary: dict[str, str]
    transitions: tuple[Transition, ...]
    ttl_sec: int
    valid_until_ms: int
    fault: str = ""


def live_keys(env: str, exchange: str) -> LiveKeys:
    """Return the keys of an env and exchange, whose names are well formed (`stream_key`)."""
    return LiveKeys(f"{env}:{exchange}:live:")


def valid_until(state: State) -> int:
    """Return until when the state may be believed, in ms UTC; 0 before its first window."""
    if state.window is None:
        return 0
    return state.window + (1 + INTERVALS_BELIEVED) * state.interval_ms + state.lateness_ms


def publication_of(
    state: State,
    place: LedgerPlace,
    *,
    ttl_sec: int = TTL_SEC,
    valid_until_ms: int | None = None,
    transitions: Sequence[StateTransitioned] = (),
) -> Publication:
    """
    Return what a state publishes.

    Args:
        place: up to which event of its stream the state goes.
        ttl_sec: how long the keys live, in s.
        valid_until_ms: as `valid_until` if it isn't given.
        transitions: the state's latest, the last one last; if none are given, the last one as the
            state remembers it.

    Raises:
        CannotTell: if no run has begun yet.
    """
    if not state.ledger_id:
        raise CannotTell("no run has begun yet; there is nothing to publish")
    until_ms = valid_until(state) if valid_until_ms is None else valid_until_ms
    throttles = {
        symbol: format_number(value) for symbol, value in state.effective_throttles().items()
    }
    kpi_throttles = {
        symbol: format_number(value) for symbol, value in state.per_symbol_throttles().items()
    }
    return Publication(
        version=place.version,
        ledger_id=state.ledger_id,
        state=state.trading_state,
        throttles=throttles,
        kpi_throttles=kpi_throttles,
        retired=tuple(memory.symbol for memory in state.retired),
        summary={
            **_kpis(state),
            **_cause(state),
            **_counts(state),
            "symbols": ",".join(state.symbol_names),
            **{f"throttle:{symbol}": text for symbol, text in throttles.items()},
            **{f"kpi_throttle:{symbol}": text for symbol, text in kpi_throttles.items()},
            **_notionals(state),
            "version": str(place.version),
            "position": str(place.position),
            "ledger_id": state.ledger_id,
            "valid_until": str(until_ms),
            "fault": "",
        },
        transitions=_transitions(state, transitions),
        ttl_sec=ttl_sec,
        valid_until_ms=until_ms,
    )


def fault_of(publication: Publication, text: str) -> Publication:
    """
    Return the publication with everything FROZEN and at 0.0, and why.

    It is accepted whatever version is there: the ledger couldn't be written, or the run has ended.
    """
    return replace(
        publication,
        state=TradingState.FROZEN,
        throttles=dict.fromkeys(publication.throttles, "0.0"),
        summary={**publication.summary, **frozen_fields(publication), "fault": text},
        fault=text,
    )


def frozen_fields(publication: Publication) -> dict[str, str]:
    """Return the summary's fields that are others when everything is frozen."""
    return {
        "state": TradingState.FROZEN.value,
        "throttle": "0.0",
        **{f"throttle:{symbol}": "0.0" for symbol in publication.throttles},
        **{
            name: "0.0"
            for name, value in publication.summary.items()
            if name.startswith("notional:") and value
        },
    }


def format_number(value: float | None) -> str:
    """Return the shortest text with at least one decimal and no exponent; "" for None."""
    if value is None:
        return ""
    text = f"{Decimal(repr(float(value))):f}"
    return text if "." in text else f"{text}.0"


def _kpis(state: State) -> dict[str, str]:
    """Return the last window's span, and of each KPI the worst symbol's value."""
    if state.observed is None:
        return {"window_start": "", "window_end": "", **{kpi.name: "" for kpi in KPIS}}
    aggregate = kpi_values(state, state.observed).aggregate
    return {
        "window_start": format_time(state.observed.window),
        "window_end": format_time(state.observed.end_ms),
        **{kpi.name: format_number(aggregate[kpi.name]) for kpi in KPIS},
    }


def _cause(state: State) -> dict[str, str]:
    return {
        "state": state.trading_state.value,
        "throttle": format_number(state.throttle),
        "previous_state": "" if state.previous is None else state.previous.value,
        "since": "" if state.since_ms is None else format_time(state.since_ms),
        "triggered_by": state.triggered_by or "",
        "reasons": _json(state.reasons),
        "overrides": _json([override_view(override) for override in state.overrides_in_force]),
    }


def _counts(state: State) -> dict[str, str]:
    """Return the counters, and how much the stream holds; `ok_windows_required` is "" in ACTIVE."""
    required = state.ok_windows_required
    counts = msgspec.structs.asdict(state.counts)
    return {
        "ok_windows": str(state.ok_windows),
        "ok_windows_required": "" if required is None else str(required),
        "warn_windows": str(state.warn_windows),
        **{f"count:{name}": str(count) for name, count in counts.items()},
    }


def _notionals(state: State) -> dict[str, str]:
    """Return what each symbol may trade, in USD; "" without a profile."""
    return {
        f"notional:{symbol}": format_number(effective_notional(state, throttle))
        for symbol, throttle in state.effective_throttles().items()
    }


def _transitions(state: State, given: Sequence[StateTransitioned]) -> tuple[Transition, ...]:
    latest = list(given)[-TRANSITIONS_MAX:]
    if latest:
        first = state.counts.transitions - len(latest) + 1
        return tuple(
            Transition(number, _transition_fields(event))
            for number, event in enumerate(latest, start=first)
        )
    if state.previous is None:
        return ()
    fields = _cause(state)
    names = ("state", "throttle", "previous_state", "since", "triggered_by", "reasons")
    return (Transition(state.counts.transitions, {name: fields[name] for name in names}),)


def _transition_fields(event: StateTransitioned) -> dict[str, str]:
    return {
        "state": event.state.value,
        "throttle": format_number(event.throttle),
        "previous_state": event.previous.value,
        "since": format_time(event.since_ms),
        "triggered_by": event.triggered_by or "",
        "reasons": _json(event.reasons),
    }


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
