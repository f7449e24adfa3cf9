"""Who is told of what, and what is kept back: asked of Alertmanager itself."""

from collections.abc import Iterable, Iterator

import pytest
from monitoring import Daemon, start_alertmanager, wait_long
from ops_support import OPS, rule_names, rules, run_program

UNHEARD = "http://127.0.0.1:9"
"""Nobody listens there; these tests ask who would be told."""

SYMBOL_ALERTS = {"LiveThrottleLow", "LiveSymbolFrozen", "LiveKPIViolation"}
FACTS = {"LiveExternalWrite", "LiveTradedWhileFrozen", "LiveWatchdog", "LiveControllerAbsent"}
"""What stays told of a runner that is gone."""


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = start_alertmanager(tmp_path_factory.mktemp("alertmanager"), UNHEARD)
    yield daemon
    daemon.stop()


def keeps_back(
    alertmanager: Daemon, env: str, names: Iterable[str], expected: set[str], **labels: str
) -> None:
    """Have these alerts fire for an environment, and wait until just those are not told of it."""
    common = {"env": env, "exchange": "bybit", **labels}
    alertmanager.post(
        "/api/v2/alerts", [{"labels": {"alertname": name, **common}} for name in names]
    )

    def settled() -> bool:
        found = alertmanager.get("/api/v2/alerts", filter=f'env="{env}"')
        states = {alert["labels"]["alertname"]: alert["status"]["state"] for alert in found}
        kept = {name for name, state in states.items() if state == "suppressed"}
        return (
            set(names) == set(states)
            and "unprocessed" not in states.values()
            and (kept == expected)
        )

    wait_long(settled, f"{expected} kept back of {names}")


def test_a_runner_that_is_gone_keeps_back_all_that_it_said(alertmanager: Daemon) -> None:
    keeps_back(alertmanager, "gone", rule_names(), set(rule_names()) - FACTS)


def test_a_runner_that_is_gone_keeps_nothing_of_another_back(alertmanager: Daemon) -> None:
    keeps_back(alertmanager, "away", ["LiveControllerAbsent"], set())
    keeps_back(alertmanager, "there", ["LiveStateFrozen", "LiveRedisDown"], set())


def test_a_halt_of_everything_keeps_its_symbols_back(alertmanager: Daemon) -> None:
    names = ("LiveStateFrozen", *SYMBOL_ALERTS, "LiveExternalWrite", "LiveRedisDown")
    keeps_back(alertmanager, "halted", names, SYMBOL_ALERTS, symbol="BTCUSDT")
    keeps_back(alertmanager, "ill", SYMBOL_ALERTS, set(), symbol="BTCUSDT")


def test_a_cause_keeps_back_what_follows_from_it(alertmanager: Daemon) -> None:
    for env, cause, follows in (
        ("stale", "LiveLedgerStale", {"LiveFeedSilent", "LiveProjectionLagging"}),
        ("behind", "LiveClockFault", {"LiveLedgerStale"}),
    ):
        keeps_back(alertmanager, env, [cause, *follows], follows)
    names = ["LiveRedisDown", "LiveProjectionLagging"]
    keeps_back(alertmanager, "redis", names, {names[1]}, projection="redis")
    keeps_back(alertmanager, "artifacts", names, set(), projection="artifacts")


def receiver_of(*labels: str) -> str:
    """Return who is told of an alert, by the file as it is."""
    config = f"--config.file={OPS / 'alertmanager.yml'}"
    found = run_program("amtool", "config", "routes", "test", config, *labels)
    assert found.returncode == 0, found.stdout
    return found.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("env", "severity", "receiver"),
    [
        ("prod", "CRIT", "desk-crit"),
        ("prod", "WARN", "desk-warn"),
        ("staging", "WARN", "desk-warn"),
        ("dev", "CRIT", "nobody"),
        ("prod-dry-run", "CRIT", "nobody"),
    ],
)
def test_an_alert_goes_to_its_desk_and_one_of_dev_to_nobody(
    env: str, severity: str, receiver: str
) -> None:
    for rule in rules():
        if rule["labels"]["severity"] != severity:
            continue
        labels = (f"alertname={rule['alert']}", f"env={env}", f"severity={severity}")
        assert receiver_of(*labels) == receiver, rule["alert"]


def test_the_watchdog_has_a_receiver_of_its_own() -> None:
    assert receiver_of("alertname=LiveWatchdog", "severity=none") == "watchdog"
