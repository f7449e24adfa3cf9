"""The dashboard has the guide's panels, asks for metrics that there are, and is provisioned."""

import re

import pytest
from grafana_support import annotations, dashboard, filled, panels, queries
from ops_support import OPS, read_yaml, rules

from ops.grafana.dashboard import dashboard_json
from projections.metrics_catalogue import GROUPS

GUIDE = {
    "Live State": 'live_state{env="prod"}',
    "Throttle Factor": 'live_throttle_factor{env="prod"}',
    "Per-Symbol Throttle": 'live_symbol_throttle{env="prod"}',
    "Violations Count": 'sum(increase(live_violations_total{env="prod"}[1h]))',
}
"""LIVE_MODE_GUIDE.md, Dashboard Panels: title and query."""

KINDS = ("gauge", "timeseries", "table", "stat")
SYSTEM = {"up", "ALERTS", "process_resident_memory_bytes", "process_cpu_seconds_total"}
HISTOGRAM = re.compile(r"_(bucket|sum|count)$")


def known() -> set[str]:
    return {metric.name for group in GROUPS for metric in group.metrics}


def asked_metrics(expression: str) -> set[str]:
    found = set(
        re.findall(r"\b(live_\w+|up|redis_up|ALERTS|process_\w+)\b(?=[\[{)\s]|$)", expression)
    )
    return {HISTOGRAM.sub("", name) for name in found}


def test_what_is_committed_is_what_the_generator_makes() -> None:
    assert (OPS / "grafana/live_dashboard.json").read_text(encoding="utf-8") == dashboard_json()


def test_the_guides_four_panels_come_first_with_its_queries_and_kinds() -> None:
    first = list(panels().values())[:4]
    assert [panel["title"] for panel in first] == list(GUIDE)
    assert tuple(panel["type"] for panel in first) == KINDS
    for panel in first:
        (target,) = panel["targets"]
        # The variables that generalise the guide's query select everything by default.
        asked = filled(target["expr"]).replace(',exchange=~".*"', "").replace(',symbol=~".*"', "")
        assert asked == GUIDE[panel["title"]]


def test_the_state_has_the_guides_thresholds_and_colours() -> None:
    defaults = panels()["Live State"]["fieldConfig"]["defaults"]
    steps = [(step["value"], step["color"]) for step in defaults["thresholds"]["steps"]]
    # A step holds from its value on; the first one, whatever is below the second, has none.
    assert steps == [(None, "red"), (1.0, "yellow"), (2.0, "green")]
    named = {key: value["text"] for key, value in defaults["mappings"][0]["options"].items()}
    assert named == {"0": "FROZEN", "1": "COOLDOWN", "2": "ACTIVE"}


def test_the_variables_choose_env_exchange_and_symbol_and_prod_is_the_default() -> None:
    variables = {found["name"]: found for found in dashboard()["templating"]["list"]}
    assert set(variables) == {"datasource", "env", "exchange", "symbol"}
    assert variables["env"]["current"]["value"] == "prod"
    for name in ("exchange", "symbol"):
        assert variables[name]["multi"]
        assert variables[name]["allValue"] == ".*"


def test_transitions_into_each_state_are_annotated() -> None:
    assert [found.panel for found in annotations()] == ["to FROZEN", "to COOLDOWN", "to ACTIVE"]
    for found in annotations():
        assert "live_transitions_total" in found.expression


@pytest.mark.parametrize("panel", list(panels()))
def test_a_panel_asks_for_metrics_that_there_are_and_says_what_it_shows(panel: str) -> None:
    assert panels()[panel]["description"]
    for query in queries():
        if query.panel == panel:
            assert asked_metrics(query.expression)
            assert asked_metrics(query.expression) <= known() | SYSTEM


def test_every_alert_asks_for_metrics_that_there_are() -> None:
    for rule in rules():
        found = asked_metrics(rule["expr"])
        assert found <= known() | SYSTEM | {"redis_up"}, rule["alert"]


def test_every_metric_is_on_the_dashboard_or_in_an_alert() -> None:
    shown = {name for query in queries() for name in asked_metrics(query.expression)}
    alerted = {name for rule in rules() for name in asked_metrics(rule["expr"])}
    assert known() - shown - alerted == {"live_last_window_end_timestamp_seconds"}


def test_panels_fit_the_grid_and_overlap_nowhere() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + column, place["y"] + line)
            for column in range(place["w"])
            for line in range(place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_provisioning_files_fit_together() -> None:
    folder = OPS / "grafana/provisioning"
    (source,) = read_yaml(folder / "datasources/prometheus.yml")["datasources"]
    assert source["type"] == "prometheus"
    scraped = read_yaml(OPS / "prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped
    (provider,) = read_yaml(folder / "dashboards/live.yml")["providers"]
    assert provider["type"] == "file"
