"""
The Grafana dashboard: `queries.py` as panels, with variables and annotations.

`make docs` writes `live_dashboard.json`, `make check` sees that it is up to date. Source: issue 4.
"""

import json
from collections.abc import Callable
from typing import Any, Final

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    gauge,
    heatmap,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from ops.grafana.queries import GREEN, RED, ROWS, STREAM, YELLOW, Panel, Query, Row

UID: Final = "live-ledger"
SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
TRANSITIONS: Final = {"FROZEN": RED, "COOLDOWN": YELLOW, "ACTIVE": GREEN}

_ALL: Final = models.VariableOption(selected=True, text="All", value="$__all")


def dashboard_json() -> str:
    """Return the dashboard as Grafana imports and provisions it."""
    return json.dumps(_dashboard().build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _dashboard() -> dashboard.Dashboard:
    built = (
        dashboard.Dashboard("Live Ledger")
        .uid(UID)
        .description("What the controller decides, why, and whether it can be believed.")
        .tags(["live-ledger"])
        .time("now-6h", "now")
        .refresh("15s")
        .timezone("utc")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .variables([_datasource(), _env(), *_choices()])
    )
    for state, colour in TRANSITIONS.items():
        built = built.annotation(
            dashboard.AnnotationQuery()
            .name(f"to {state}")
            .datasource(SOURCE)
            .icon_color(colour)
            .expr(f'changes(live_transitions_total{{{STREAM},state="{state}"}}[1m]) > 0')
        )
    for row in ROWS:
        built = _with_row(built, row)
    return built


def _with_row(built: dashboard.Dashboard, row: Row) -> dashboard.Dashboard:
    built = built.with_row(dashboard.Row(row.title))
    for panel in row.panels:
        built = built.with_panel(_BUILDERS[panel.kind](panel))
    return built


def _datasource() -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _env() -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable("env")
        .label("Environment")
        .datasource(SOURCE)
        .query("label_values(live_state, env)")
        .refresh(models.VariableRefresh.ON_DASHBOARD_LOAD)
        .current(models.VariableOption(selected=True, text="prod", value="prod"))
    )


def _choices() -> list[dashboard.QueryVariable]:
    """Return the variables of which any number may be chosen, at first all."""
    queries = {
        "exchange": 'label_values(live_state{env="$env"}, exchange)',
        "symbol": f"label_values(live_symbol_throttle{{{STREAM}}}, symbol)",
    }
    return [
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(SOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(_ALL)
        for name, query in queries.items()
    ]


def _target(query: Query, number: int, *, instant: bool, as_table: bool = False) -> Any:
    target = prometheus.Dataquery().expr(query.expression).ref_id(chr(ord("A") + number))
    target = target.instant() if instant else target.range()
    if as_table:
        target = target.format(PromQueryFormat.TABLE)
    return target.legend_format(query.legend) if query.legend else target


def _common(builder: Any, panel: Panel, *, instant: bool, as_table: bool = False) -> Any:
    """Give a panel what every kind has."""
    builder = (
        builder.title(panel.title)
        .description(panel.about)
        .datasource(SOURCE)
        .span(panel.width)
        .height(panel.height)
        .unit(panel.unit)
    )
    for number, query in enumerate(panel.queries):
        target = _target(query, number, instant=instant, as_table=as_table)
        builder = builder.with_target(target)
    if panel.steps:
        steps = [models.Threshold(value=value, color=colour) for value, colour in panel.steps]
        absolute = dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE)
        builder = builder.thresholds(absolute.steps(steps)).color_scheme(
            dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)
        )
    if panel.names:
        options = {
            value: models.ValueMappingResult(text=text, color=colour, index=index)
            for index, (value, text, colour) in enumerate(panel.names)
        }
        builder = builder.mappings([models.ValueMap(options=options)])
    if panel.top is not None:
        builder = builder.min(0.0).max(panel.top)
    return builder


def _reduced() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"])


def _gauge(panel: Panel) -> Any:
    return _common(gauge.Panel(), panel, instant=True).reduce_options(_reduced())


def _stat(panel: Panel) -> Any:
    return (
        _common(stat.Panel(), panel, instant=True)
        .reduce_options(_reduced())
        .color_mode(common_models.BigValueColorMode.BACKGROUND)
        .graph_mode(common_models.BigValueGraphMode.NONE)
    )


def _series(panel: Panel) -> Any:
    dashed = [
        models.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash"}),
        models.DynamicConfigValue(id_val="custom.lineWidth", value=1),
    ]
    return (
        _common(timeseries.Panel(), panel, instant=False)
        .line_interpolation(common_models.LineInterpolation.STEP_AFTER)
        .show_points(common_models.VisibilityMode.NEVER)
        .fill_opacity(0)
        .override_by_regexp("/(threshold|required)$/", dashed)
    )


def _bars(panel: Panel) -> Any:
    stacked = common.StackingConfig().mode(common_models.StackingMode.NORMAL)
    return (
        _common(timeseries.Panel(), panel, instant=False)
        .draw_style(common_models.GraphDrawStyle.BARS)
        .fill_opacity(80)
        .stacking(stacked)
    )


def _table(panel: Panel) -> Any:
    hidden = {"Time": True, "__name__": True, "job": True}
    built = _common(table.Panel(), panel, instant=True, as_table=True)
    if panel.steps:
        cell = [
            models.DynamicConfigValue(
                id_val="custom.cellOptions", value={"type": "color-background"}
            )
        ]
        built = built.override_by_name("Value", cell)
    return built.with_transformation(
        models.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden})
    )


def _heatmap(panel: Panel) -> Any:
    built = heatmap.Panel().calculate(False)
    built = built.color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues"))
    built = built.y_axis(heatmap.YAxisConfig().unit(panel.unit))
    for number, query in enumerate(panel.queries):
        target = _target(query, number, instant=False).format(PromQueryFormat.HEATMAP)
        built = built.with_target(target)
    return (
        built.title(panel.title)
        .description(panel.about)
        .datasource(SOURCE)
        .span(panel.width)
        .height(panel.height)
    )


_BUILDERS: Final[dict[str, Callable[[Panel], Any]]] = {
    "gauge": _gauge,
    "stat": _stat,
    "series": _series,
    "bars": _bars,
    "table": _table,
    "heatmap": _heatmap,
}
