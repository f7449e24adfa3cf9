"""The dashboard's queries, as Prometheus gets them from Grafana."""

import json
from typing import Any, Final, NamedTuple

from ops_support import OPS

DASHBOARD: Final = OPS / "grafana/live_dashboard.json"


class Asked(NamedTuple):
    """A panel's query: its title, and its expression with Grafana's variables."""

    panel: str
    expression: str


def dashboard() -> dict[str, Any]:
    """Return the dashboard as it is provisioned."""
    return dict(json.loads(DASHBOARD.read_text(encoding="utf-8")))


def panels() -> dict[str, dict[str, Any]]:
    """Return the panels by title, rows aside."""
    return {panel["title"]: panel for panel in dashboard()["panels"] if panel["type"] != "row"}


def queries() -> list[Asked]:
    """Return every query of every panel."""
    return [
        Asked(title, target["expr"])
        for title, panel in panels().items()
        for target in panel["targets"]
    ]


def annotations() -> list[Asked]:
    """Return the annotations' queries."""
    return [Asked(found["name"], found["expr"]) for found in dashboard()["annotations"]["list"]]


def filled(expression: str, *, env: str = "prod", rate_interval: str = "1m") -> str:
    """Return a query with the variables' values: all exchanges, all symbols."""
    for name, value in {
        "$__rate_interval": rate_interval,
        "$env": env,
        "$exchange": ".*",
        "$symbol": ".*",
    }.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression
