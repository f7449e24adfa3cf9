"""
What happened, as a picture: KPIs against their thresholds, states as bands, overrides and gaps.

The picture is a Vega-Lite specification made of a history's tables, with nothing to be loaded from
elsewhere; drawing it is the caller's. Source: issue 5, `live audit plot`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import CannotTell
from domain.events import TradingState
from domain.kpis import KPIS, Kpi
from domain.windows import format_time
from projections.history import History

POINTS_MAX: Final = 1_200
"""More windows than these are told in bins, of which each shows its worst window."""

SYMBOLS_MAX: Final = 10
WIDTH: Final = 900
_STATE_COLOURS: Final = {
    TradingState.ACTIVE: "#2e7d32",
    TradingState.COOLDOWN: "#f9a825",
    TradingState.FROZEN: "#c62828",
}
_GAP_COLOUR: Final = "#616161"
_OVERRIDE_COLOUR: Final = "#6a1b9a"
_UNITS: Final = {"edge_bps": "bps", "p95_latency_ms": "ms"}
_TIME_LABELS: Final = (
    "utcFormat(datum.value, utchours(datum.value) || utcminutes(datum.value) || "
    "utcseconds(datum.value) ? (utcseconds(datum.value) ? '%H:%M:%S' : '%H:%M') : '%d %b')"
)
"""A day at midnight, else the time of day, seconds only where they matter."""

_SCHEMA: Final = "https://vega.github.io/schema/vega-lite/v5.json"

Row = dict[str, Any]
Spec = dict[str, Any]


class Picture(msgspec.Struct, frozen=True):
    """
    A picture's specification, and what it leaves out.

    Attributes:
        spec: Vega-Lite, its data included.
        notes: what somebody should know who looks at it, in sentences.
    """

    spec: Spec
    notes: tuple[str, ...]


def picture_of(
    history: History, *, from_ms: int | None, to_ms: int | None, symbol: str | None = None
) -> Picture:
    """
    Return the picture of a span of one stream's history.

    Args:
        history: of one stream.
        from_ms, to_ms: the span, the end exclusive; None for as far as the history goes.
        symbol: the only one to show; None for the first ten.

    Raises:
        CannotTell: if the span holds no window.
    """
    (stream,) = history.streams.values()
    windows = history.table("windows", from_ms=from_ms, to_ms=to_ms)
    if not windows.num_rows:
        raise CannotTell(f"{stream.key} has no window in that span")
    ordered = history.table(
        "symbols", from_ms=from_ms, to_ms=to_ms, columns=["symbol", "rank"]
    ).sort_by("rank")
    known = [symbol] if symbol is not None else ordered["symbol"].unique().to_pylist()
    symbols = known[:SYMBOLS_MAX]
    chosen = pc.field("symbol").isin(symbols)
    throttles = history.table("symbols", from_ms=from_ms, to_ms=to_ms, where=chosen)
    kpis = history.table("kpis", from_ms=from_ms, to_ms=to_ms, where=chosen)
    start_ms, end_ms = _ms(pc.min(windows["window_start"])), _ms(pc.max(windows["window_end"]))
    bin_ms = _bin_ms(windows, start_ms, end_ms)
    notes = _notes(known, windows, bin_ms)
    spec = {
        "$schema": _SCHEMA,
        "title": {
            "text": f"{stream.key}, {format_time(start_ms)} to {format_time(end_ms)}",
            "subtitle": list(notes),
            "anchor": "start",
        },
        "datasets": {
            "bands": _bands(history, windows, start_ms, end_ms),
            "gaps": _gaps(windows),
            "overrides": _overrides(history, start_ms, end_ms),
            "throttles": _throttle_points(throttles, bin_ms),
            "kpis": [point for kpi in KPIS for point in _kpi_points(kpis, kpi, bin_ms)],
        },
        "vconcat": [
            _state_panel(start_ms, end_ms),
            _throttle_panel(symbols),
            *(_kpi_panel(kpi, symbols) for kpi in KPIS),
        ],
        "resolve": {"scale": {"x": "shared", "color": "independent"}},
        "config": {"view": {"stroke": None}, "axis": {"grid": False}, "background": "white"},
    }
    return Picture(spec, notes)


def _notes(known: Sequence[str], windows: pa.Table, bin_ms: int) -> tuple[str, ...]:
    notes = []
    interval_ms = windows["interval_ms"][0].as_py()
    if bin_ms > interval_ms:
        notes.append(f"each point is the worst of {bin_ms // interval_ms} windows")
    if len(known) > SYMBOLS_MAX:
        notes.append(f"{SYMBOLS_MAX} of {len(known)} symbols; name one with --symbol")
    return tuple(notes)


def _bin_ms(windows: pa.Table, start_ms: int, end_ms: int) -> int:
    """Return the length of a point in time: one window, or enough for `POINTS_MAX`."""
    interval_ms = int(windows["interval_ms"][0].as_py())  # A stream has but one.
    count = -(-(end_ms - start_ms) // interval_ms)
    return interval_ms * -(-count // POINTS_MAX)


def _bands(history: History, windows: pa.Table, start_ms: int, end_ms: int) -> list[Row]:
    """Return from when to when each state held."""
    changes = history.table("transitions", from_ms=start_ms, to_ms=end_ms + 1).to_pylist()
    state, since_ms = windows["state_before"][0].as_py(), start_ms
    bands: list[Row] = []
    for change in changes:
        at_ms = _time(change["happened_at"])
        if at_ms > since_ms:
            bands.append({"state": state, "from": since_ms, "to": min(at_ms, end_ms)})
        state, since_ms = change["to_state"], max(at_ms, start_ms)
    if end_ms > since_ms:
        bands.append({"state": state, "from": since_ms, "to": end_ms})
    return bands


def _gaps(windows: pa.Table) -> list[Row]:
    gaps = windows.filter(pc.field("is_gap")).select(["window_start", "window_end"]).to_pylist()
    return [{"from": _time(gap["window_start"]), "to": _time(gap["window_end"])} for gap in gaps]


def _overrides(history: History, start_ms: int, end_ms: int) -> list[Row]:
    """Return the overrides that were in force in the span, from when to when."""
    events = history.table("overrides", to_ms=end_ms).to_pylist()
    ended = {
        event["override_id"]: event["happened_at"] for event in events if event["event"] == "ended"
    }
    found = []
    for event in events:
        if event["event"] != "applied":
            continue
        until = ended.get(event["override_id"])
        until_ms = end_ms if until is None else min(_time(until), end_ms)
        if event["kind"] == "unfreeze":
            until_ms = _time(event["happened_at"])
        if until_ms < start_ms:
            continue
        scope = "" if event["symbol"] is None else f" {event['symbol']}"
        bound = "" if event["cap"] is None else f" {event['cap']:g}"
        text = f"{event['kind']}{bound}{scope} by {event['actor']}"
        from_ms = max(_time(event["happened_at"]), start_ms)
        found.append({"from": from_ms, "to": until_ms, "text": text})
    return found


def _throttle_points(symbols: pa.Table, bin_ms: int) -> list[Row]:
    """Return the least effective throttle of each point in time and symbol."""
    binned = _binned(symbols.select(["window_end", "symbol", "effective_throttle"]), bin_ms)
    least = binned.group_by(["time", "symbol"]).aggregate([("effective_throttle", "min")])
    return [
        {"time": row["time"], "symbol": row["symbol"], "value": row["effective_throttle_min"]}
        for row in least.sort_by("time").to_pylist()
    ]


def _kpi_points(kpis: pa.Table, kpi: Kpi, bin_ms: int) -> list[Row]:
    """Return the worst value of each point in time and symbol, null if any value is missing."""
    rows = kpis.filter(pc.field("kpi") == kpi.name)
    binned = _binned(rows.select(["window_end", "symbol", "value", "threshold"]), bin_ms)
    worst = "min" if kpi.breached_when == "<" else "max"
    points = binned.group_by(["time", "symbol"]).aggregate(
        [("value", worst), ("value", "count"), ("threshold", "max")]
    )
    return [
        {
            "kpi": kpi.name,
            "time": row["time"],
            "symbol": row["symbol"],
            "value": row[f"value_{worst}"] if row["value_count"] else None,
            "threshold": row["threshold_max"],
        }
        for row in points.sort_by("time").to_pylist()
    ]


def _binned(rows: pa.Table, bin_ms: int) -> pa.Table:
    """Return the rows with the end of the point in time that each belongs to, in ms."""
    ends = rows["window_end"].cast(pa.int64())
    # A window belongs to the point that its end lies in, so that a point never tells the future.
    whole = pc.divide(pc.add(ends, bin_ms - 1), bin_ms)
    return rows.append_column("time", pc.multiply(whole, bin_ms))


def _state_panel(start_ms: int, end_ms: int) -> Spec:
    scale = {"domain": [state.value for state in TradingState], "range": [*_STATE_COLOURS.values()]}
    return {
        "width": WIDTH,
        "height": 26,
        "title": _panel_title("state"),
        "layer": [
            {
                "data": {"name": "bands"},
                "mark": {"type": "rect"},
                "encoding": {
                    **_span(domain=[start_ms, end_ms]),
                    "color": {"field": "state", "scale": scale, "title": "state"},
                },
            },
            {
                "data": {"name": "gaps"},
                "mark": {"type": "rect", "color": _GAP_COLOUR, "opacity": 0.75},
                "encoding": _span(),
            },
            {
                "data": {"name": "overrides"},
                "mark": {"type": "rect", "color": _OVERRIDE_COLOUR, "yOffset": 19},
                "encoding": {**_span(), "tooltip": {"field": "text"}},
            },
            {
                "data": {"name": "overrides"},
                "mark": {
                    "type": "text", "align": "left", "baseline": "bottom", "y": -3,
                    "color": _OVERRIDE_COLOUR, "fontSize": 10,
                },
                "encoding": {"x": _time_of("from"), "text": {"field": "text"}},
            },
        ],
    }  # fmt: skip


def _throttle_panel(symbols: Sequence[str]) -> Spec:
    return {
        "width": WIDTH,
        "height": 70,
        "title": _panel_title("effective throttle"),
        "layer": [
            *_background(),
            {
                "data": {"name": "throttles"},
                "mark": {"type": "line", "interpolate": "step-before", "strokeWidth": 1.5},
                "encoding": {
                    "x": _time_of("time"),
                    "y": _value("value", domain=[0, 1]),
                    "color": _by_symbol(symbols),
                },
            },
        ],
    }


def _kpi_panel(kpi: Kpi, symbols: Sequence[str]) -> Spec:
    only = [{"filter": f"datum.kpi == '{kpi.name}'"}]
    unit = _UNITS.get(kpi.name)
    breach = f"breached when {kpi.breached_when} the dashed threshold"
    title = f"{kpi.name} ({unit}), {breach}" if unit else f"{kpi.name}, {breach}"
    return {
        "width": WIDTH,
        "height": 100,
        "title": _panel_title(title),
        "layer": [
            *_background(),
            {
                "data": {"name": "kpis"},
                "transform": only,
                "mark": {"type": "line", "interpolate": "step-before", "strokeDash": [4, 3]},
                "encoding": {
                    "x": _time_of("time"),
                    "y": _value("threshold"),
                    "color": _by_symbol(symbols),
                },
            },
            {
                "data": {"name": "kpis"},
                "transform": only,
                "mark": {"type": "line", "strokeWidth": 1.2, "point": {"size": 4}},
                "encoding": {
                    "x": _time_of("time"),
                    "y": _value("value"),
                    "color": _by_symbol(symbols),
                },
            },
        ],
    }


def _background() -> list[Spec]:
    """Return the bands behind a panel: a rule for each state that isn't ACTIVE, and the gaps."""
    shades = [
        {
            "data": {"name": "bands"},
            "transform": [{"filter": f"datum.state == '{state}'"}],
            "mark": {"type": "rect", "color": colour, "opacity": 0.13},
            "encoding": _span(),
        }
        for state, colour in _STATE_COLOURS.items()
        if state is not TradingState.ACTIVE
    ]
    gaps = {
        "data": {"name": "gaps"},
        "mark": {"type": "rect", "color": _GAP_COLOUR, "opacity": 0.35},
        "encoding": _span(),
    }
    return [*shades, gaps]


def _span(domain: Sequence[int] | None = None) -> Spec:
    return {"x": _time_of("from", domain=domain), "x2": {"field": "to"}}


def _time_of(field: str, domain: Sequence[int] | None = None) -> Spec:
    scale: Spec = {"type": "utc"}
    if domain is not None:
        scale["domain"] = list(domain)
    axis = {"labelExpr": _TIME_LABELS, "title": None}
    return {"field": field, "type": "temporal", "scale": scale, "axis": axis}


def _value(field: str, domain: Sequence[float] | None = None) -> Spec:
    scale: Spec = {"zero": False} if domain is None else {"domain": list(domain)}
    return {"field": field, "type": "quantitative", "scale": scale, "title": None}


def _by_symbol(symbols: Sequence[str]) -> Spec:
    legend = {"title": "symbol"} if len(symbols) > 1 else None
    return {"field": "symbol", "scale": {"domain": list(symbols)}, "legend": legend}


def _panel_title(text: str) -> Spec:
    return {"text": text, "anchor": "start", "fontSize": 11, "fontWeight": "normal"}


def _ms(scalar: pa.Scalar) -> int:
    return int(scalar.cast(pa.int64()).as_py())


def _time(moment: datetime) -> int:
    """Return a timestamp of Python's as ms UTC."""
    return round(moment.timestamp() * 1000)
