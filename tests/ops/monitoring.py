"""
A real Prometheus and a real Alertmanager on the files of ops/, run at a multiple of their pace.

What changes is listed in `scaled_rules`, `prometheus_config` and `alertmanager_config`: durations,
addresses, and receivers, which are webhooks here. Conditions, labels, routes and inhibition are the
files' own.
"""

import json
import random
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlencode

import yaml
from ops_support import OPS, RULES, program, read_yaml

PACE: Final = 60
"""A minute of the rule file is a second here, and so is a window."""

WAIT_SEC: Final = 180.0
SECONDS_FROM: Final = 60
"""Numbers of an expression from this on are seconds, as the rule file says."""

_DURATION: Final = re.compile(r"\b(\d+)(d|h|m|s)\b")
_UNITS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000}
_Found = TypeVar("_Found")


def scaled(text: str) -> str:
    """Return a text with its durations and its seconds divided by the pace."""
    text = _DURATION.sub(lambda found: f"{int(found[1]) * _UNITS[found[2]] // PACE}ms", text)
    return re.sub(
        r"(?<![\w.])\d+(?![\w.])",
        lambda found: f"{int(found[0]) / PACE:g}" if int(found[0]) >= SECONDS_FROM else found[0],
        text,
    )


def scaled_rules() -> dict[str, Any]:
    """Return the rule file, faster."""
    content = dict(read_yaml(RULES))
    for group in content["groups"]:
        for rule in group["rules"]:
            rule |= {
                key: scaled(rule[key]) for key in ("expr", "for", "keep_firing_for") if key in rule
            }
    return content


def prometheus_config(rules: Path, targets: Path, alertmanager_port: int) -> dict[str, Any]:
    """Return ops/prometheus.yml, faster, with targets that come and go."""
    content = dict(read_yaml(OPS / "prometheus.yml"))
    content["global"] = {name: scaled(value) for name, value in content["global"].items()}
    content["rule_files"] = [str(rules)]
    (manager,) = content["alerting"]["alertmanagers"]
    manager["static_configs"] = [{"targets": [f"127.0.0.1:{alertmanager_port}"]}]
    (job,) = content["scrape_configs"]
    del job["static_configs"]
    job["file_sd_configs"] = [{"files": [str(targets / "*.json")], "refresh_interval": "1s"}]
    # A page takes as long as it takes: the machine doesn't run at our pace.
    content["global"] |= {"scrape_interval": "500ms", "scrape_timeout": "500ms"}
    return content


def alertmanager_config(receiver_url: str) -> dict[str, Any]:
    """Return ops/alertmanager.yml, faster, with every receiver at a webhook of its name."""
    content = dict(read_yaml(OPS / "alertmanager.yml"))
    for route in (content["route"], *content["route"]["routes"]):
        for name in ("group_wait", "group_interval", "repeat_interval"):
            if name in route:
                route[name] = scaled(route[name])
    for receiver in content["receivers"]:
        name = receiver["name"]
        for kind in [key for key in receiver if key.endswith("_configs")]:
            del receiver[kind]
        if name != "nobody":
            hook = {"url": f"{receiver_url}/{name}", "send_resolved": True}
            receiver["webhook_configs"] = [hook]
    return content


class Told(NamedTuple):
    """One alert as it arrived at a webhook."""

    receiver: str
    status: str
    labels: dict[str, str]

    def is_of(self, name: str, status: str, labels: dict[str, str]) -> bool:
        named = self.labels["alertname"] == name and self.status == status
        return named and labels.items() <= self.labels.items()


class Receiver:
    """The webhook: what was told, in order."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                name = self.path.strip("/")
                receiver.told += [
                    Told(name, alert["status"], alert["labels"]) for alert in body["alerts"]
                ]
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def wait_long(look: Callable[[], _Found], what: str) -> _Found:
    """Return what a look gives as soon as it is true; fail if that takes very long."""
    ends = time.monotonic() + WAIT_SEC
    while not (found := look()):
        assert time.monotonic() < ends, f"waited {WAIT_SEC:g} s for {what}"
        time.sleep(0.05)
    return found


class Daemon:
    """One of the two programs, on a port of its own."""

    def __init__(self, folder: Path, name: str, ready: str, *options: str) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        for _ in range(20):
            self.port = random.randrange(20_000, 32_000)
            self.url = f"http://127.0.0.1:{self.port}"
            with self._log.open("wb") as log:
                self.process = subprocess.Popen(
                    [program(name), f"--web.listen-address=127.0.0.1:{self.port}", *options],
                    cwd=folder,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            wait_long(lambda: self._is_ready(ready) or self.process.poll() is not None, name)
            if self.process.poll() is None:
                return
            if "address already in use" not in self._log.read_text():
                break
        raise AssertionError(f"{name} didn't start:\n{self._log.read_text()[-4000:]}")

    def get(self, path: str, **query: str) -> Any:
        """Return an answer's JSON."""
        address = f"{self.url}{path}?{urlencode(query)}"
        with urllib.request.urlopen(address, timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> None:
        """Send JSON."""
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"{self.url}{path}", data, headers)
        urllib.request.urlopen(asked, timeout=30).close()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def _is_ready(self, path: str) -> bool:
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(f"{self.url}{path}", timeout=5).close()
            return True
        return False


def start_alertmanager(folder: Path, receiver_url: str) -> Daemon:
    """Return Alertmanager, run by `alertmanager_config`, with no peers."""
    config = folder / "alertmanager.yml"
    config.write_text(yaml.safe_dump(alertmanager_config(receiver_url)))
    return Daemon(
        folder,
        "prometheus-alertmanager",
        "/-/ready",
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager'}",
        "--cluster.listen-address=",
    )


class Monitoring:
    """Both daemons, and the webhook behind them."""

    def __init__(self, folder: Path) -> None:
        self._targets = folder / "targets"
        self._targets.mkdir()
        self.receiver = Receiver()
        self.alertmanager = start_alertmanager(folder, self.receiver.url)
        rules = folder / "rules.yml"
        rules.write_text(yaml.safe_dump(scaled_rules()))
        config = folder / "prometheus.yml"
        told = prometheus_config(rules, self._targets, self.alertmanager.port)
        config.write_text(yaml.safe_dump(told))
        self.prometheus = Daemon(
            folder,
            "prometheus",
            "/-/ready",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            "--rules.alert.resend-delay=1s",
        )

    def scrape(self, env: str, port: int) -> None:
        """Have a runner scraped from now on."""
        target = {"targets": [f"127.0.0.1:{port}"], "labels": {"env": env, "exchange": "bybit"}}
        written = self._targets / f"{env}.tmp"
        written.write_text(json.dumps([target]))
        written.replace(self._targets / f"{env}.json")

    def fires(self, name: str, **labels: str) -> int:
        """Wait until an alert is told as firing; return its place among all that was told."""
        return self._told(name, "firing", 0, labels)

    def resolves(self, name: str, *, after: int = 0, **labels: str) -> int:
        """Wait until an alert is told as resolved after a place; return its own."""
        return self._told(name, "resolved", after, labels)

    def inhibited(self, name: str, by: str, **labels: str) -> None:
        """Wait until Alertmanager keeps an alert to itself because of another."""

        def look() -> bool:
            found = self.alertmanager.get("/api/v2/alerts", active="false")
            named = {alert["fingerprint"]: alert["labels"]["alertname"] for alert in self._alerts()}
            return any(
                alert["labels"]["alertname"] == name
                and labels.items() <= alert["labels"].items()
                and by in {named.get(source) for source in alert["status"]["inhibitedBy"]}
                for alert in found
            )

        wait_long(look, f"{name} inhibited by {by}")

    def active(self, name: str, **labels: str) -> None:
        """Wait until an alert fires and nothing keeps it back."""
        wait_long(
            lambda: any(
                alert["labels"]["alertname"] == name
                and labels.items() <= alert["labels"].items()
                and alert["status"]["state"] == "active"
                for alert in self._alerts()
            ),
            f"{name} active",
        )

    def series(self, expression: str, *, seconds: float, step_sec: float = 1.0) -> list[Any]:
        """Return an expression's series over the last seconds."""
        now = time.time()
        answer = self.prometheus.get(
            "/api/v1/query_range",
            query=expression,
            start=repr(now - seconds),
            end=repr(now),
            step=repr(step_sec),
        )
        return list(answer["data"]["result"])

    def close(self) -> None:
        self.prometheus.stop()
        self.alertmanager.stop()
        self.receiver.close()

    def _alerts(self) -> list[Any]:
        return list(self.alertmanager.get("/api/v2/alerts"))

    def _told(self, name: str, status: str, after: int, labels: dict[str, str]) -> int:
        def look() -> int | None:
            for place, told in enumerate(self.receiver.told[after:], start=after + 1):
                if told.is_of(name, status, labels):
                    return place
            return None

        place = wait_long(look, f"{name} {labels} {status}")
        assert place is not None
        return place


@contextmanager
def running_monitoring(folder: Path) -> Iterator[Monitoring]:
    folder.mkdir(exist_ok=True)
    monitoring = Monitoring(folder)
    try:
        yield monitoring
    finally:
        monitoring.close()
