"""Real runs, a real Prometheus and a real Alertmanager: each alert arrives, and so does its end."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from grafana_support import annotations, filled, queries
from incidents import STORIES
from monitoring import Monitoring, running_monitoring
from ops_support import program, rule_names

WATCHDOG = "LiveWatchdog"
EMPTY = ("to COOLDOWN",)
"""What the story of prod doesn't touch: it is FROZEN, then ACTIVE."""


def watchdog_story(monitoring: Monitoring) -> None:
    """It has fired all along; when Prometheus is stopped it is told no more, and so resolves."""
    told = monitoring.fires(WATCHDOG)
    monitoring.prometheus.stop()
    monitoring.resolves(WATCHDOG, after=told)
    receivers = {
        told.receiver for told in monitoring.receiver.told if told.labels["alertname"] == WATCHDOG
    }
    assert receivers == {"watchdog"}


def test_every_alert_has_its_story() -> None:
    told = [name for names in STORIES.values() for name in names]
    assert sorted([*told, WATCHDOG]) == sorted(rule_names())


def test_each_alert_is_seen_firing_and_resolving_and_every_panel_has_data(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    # All at once, and in one test, because a minute of it is as much as should be waited for.
    for name in ("prometheus", "prometheus-alertmanager"):
        program(name)
    began = time.time()
    with running_monitoring(tmp_path / "daemons") as monitoring, ThreadPoolExecutor() as threads:
        stories = {
            story: threads.submit(story, monitoring, tmp_path / story.__name__) for story in STORIES
        }
        for story, future in stories.items():
            with subtests.test("the alerts", story=story.__name__):
                future.result()
        for query in (*queries(), *annotations()):
            found = monitoring.series(
                filled(query.expression, rate_interval="5s"), seconds=time.time() - began
            )
            with subtests.test("the dashboard", query=query):
                if query.panel in EMPTY:
                    assert not found
                else:
                    values = [value for series in found for _, value in series["values"]]
                    assert values and set(values) != {"NaN"}
        with subtests.test("the watchdog"):
            watchdog_story(monitoring)
