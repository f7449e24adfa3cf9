"""
Draw the dashboard's panels: `make pictures`, with Debian's package prometheus.

A real run plays an incident at high speed, a real Prometheus scrapes it, and the panels' own
queries are drawn, one picture a row of the dashboard, into docs/images/. No Grafana is needed.
"""

import json
import math
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import altair as alt
import yaml
from PIL import Image

from ops.grafana.queries import ROWS, Panel, Row

IMAGES: Final = Path(__file__).parent / "images"
INTERVAL_SEC: Final = 0.5
WINDOWS: Final = 90
"""The incident is over after 42 windows, and the way back after 66."""

SCRAPE: Final = "250ms"
RATE_INTERVAL: Final = "2s"
WAIT_SEC: Final = 120.0
WIDTH, HEIGHT, SCALE = 240, 110, 1.0
COLUMNS: Final = 3
VERDICT_COLOURS: Final = {"OK": "#2e7d32", "WARN": "#f9a825", "CRIT": "#c62828"}
COLOURS: Final = 48

PICTURES: Final = {
    "Live Ledger": "dashboard-guide.png",
    "What may be traded, and the way back": "dashboard-trading.png",
    "KPIs against their thresholds": "dashboard-kpis.png",
    "Feed and windows": "dashboard-windows.png",
}
"""By row, its picture."""


class Span(NamedTuple):
    """What is drawn, in seconds since the epoch."""

    began: float
    ended: float


def main() -> None:
    """Play, ask, draw."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="live-") as name:
        folder = Path(name)
        with playing(folder) as metrics_port, prometheus(folder, metrics_port) as url:
            began = time.time()
            wait_for(lambda: value(url, "sum(live_windows_total)") >= WINDOWS, "the incident")
            span = Span(began, time.time())
            for row in ROWS:
                if row.title in PICTURES:
                    write(picture(row, url, span), IMAGES / PICTURES[row.title])


def write(chart: Any, path: Path) -> None:
    """Write a picture with as few colours as do, which makes it a quarter as large."""
    chart.save(path, scale_factor=SCALE)
    with Image.open(path) as image:
        image.convert("RGB").quantize(COLOURS).save(path, optimize=True)
    print(f"written: {path.name}, {path.stat().st_size / 1024:.0f} KiB")


def picture(row: Row, url: str, span: Span) -> Any:
    """Return a row's panels as one chart."""
    charts = [panel_chart(panel, rows_of(panel, url, span)) for panel in row.panels]
    chart = alt.concat(*charts, columns=COLUMNS, title=row.title)
    return chart.resolve_scale(color="independent", y="independent").configure(
        font="sans-serif", axis=alt.AxisConfig(labelFontSize=9, titleFontSize=9)
    )


def panel_chart(panel: Panel, rows: list[dict[str, Any]]) -> Any:
    """Return a panel's data over time: steps, or bars where Grafana draws bars."""
    base = alt.Chart({"values": rows}, width=WIDTH, height=HEIGHT, title=panel.title)
    shared = {
        "x": alt.X("elapsed:Q", title="seconds"),
        "y": alt.Y("reading:Q", title=None if panel.unit == "none" else panel.unit),
        "color": alt.Color(
            "series:N", title=None, legend=alt.Legend(labelFontSize=8), scale=_scale_of(rows)
        ),
    }
    if panel.kind == "heatmap":
        return base.mark_rect(width=4).encode(
            x=shared["x"],
            y=alt.Y("series:N", title="s, at most", sort="descending"),
            color=alt.Color("reading:Q", title="windows", scale=alt.Scale(scheme="blues")),
        )
    if panel.kind == "bars":
        return base.mark_bar(width=2).encode(**shared)
    dash = alt.StrokeDash("dashed:N", legend=None)
    return base.mark_line(interpolate="step-after", strokeWidth=1.5).encode(
        **shared, strokeDash=dash
    )


def _scale_of(rows: list[dict[str, Any]]) -> Any:
    """Return the colours of verdicts where the series are some; else the library's own."""
    names = {row["series"] for row in rows}
    if not names or not names <= VERDICT_COLOURS.keys():
        return alt.Undefined
    return alt.Scale(domain=[*VERDICT_COLOURS], range=[*VERDICT_COLOURS.values()])


def rows_of(panel: Panel, url: str, span: Span) -> list[dict[str, Any]]:
    """Return what a panel's queries gave, a row a sample."""
    rows = []
    for query in panel.queries:
        expression = filled(query.expression)
        for found in ask(
            url,
            "query_range",
            query=expression,
            start=span.began,
            end=span.ended,
            step=INTERVAL_SEC,
        ):
            series = query.legend
            for label, text in found["metric"].items():
                series = series.replace(f"{{{{{label}}}}}", text)
            series = series or found["metric"].get("symbol", "")
            rows += [
                {
                    "series": series,
                    "elapsed": round(moment - span.began, 1),
                    "reading": float(text),
                    "dashed": series.endswith(("threshold", "required")),
                }
                for moment, text in found["values"]
                if math.isfinite(float(text))
            ]
    if panel.kind == "heatmap":
        return apart(rows)
    # Bars of nothing make a picture large. What never happened keeps them, to have axes.
    happened = [row for row in rows if row["reading"]]
    return happened if panel.kind == "bars" and happened else rows


def apart(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a histogram's rows, each bucket without those below it, empty ones left out."""
    bounded = [row for row in rows if row["series"] != "+Inf"]
    below: dict[float, float] = {}
    parts = []
    for row in sorted(bounded, key=lambda row: float(row["series"])):
        count = row["reading"] - below.get(row["elapsed"], 0.0)
        below[row["elapsed"]] = row["reading"]
        if count > 0.01:
            parts.append({**row, "reading": count})
    return parts


def filled(expression: str) -> str:
    """Return a query with the dashboard's variables filled in."""
    for name, text in {
        "$__rate_interval": RATE_INTERVAL,
        "$env": "demo",
        "$exchange": ".*",
        "$symbol": ".*",
    }.items():
        expression = expression.replace(name, text)
    return expression


@contextmanager
def playing(folder: Path) -> Iterator[int]:
    """Give the metrics' port of a run that plays the incident."""
    live = str(Path(sys.executable).with_name("live"))
    log = folder / "live.log"
    options = [
        *("--env", "demo", "--feed", "mock://incident", "--symbols", "BTCUSDT,ETHUSDT"),
        *("--ramp-profile", "C", "--interval-sec", str(INTERVAL_SEC), "--iterations", "0"),
        *("--ledger", "l.sqlite", "--metrics-port", "0"),
    ]
    with log.open("wb") as output, started([live, "run", *options], folder, output):
        wait_for(lambda: "metrics at " in log.read_text(), "the run")
        yield int(log.read_text().partition("metrics at http://127.0.0.1:")[2].partition("/")[0])


@contextmanager
def prometheus(folder: Path, metrics_port: int) -> Iterator[str]:
    """Give the address of a Prometheus that scrapes the run."""
    program = shutil.which("prometheus")
    if program is None:
        sys.exit("prometheus (Debian's package prometheus) is not installed")
    job = {
        "job_name": "live-ledger",
        "honor_labels": True,
        "static_configs": [{"targets": [f"127.0.0.1:{metrics_port}"]}],
    }
    config = {
        "global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE},
        "scrape_configs": [job],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = [
        *(program, "--config.file=prometheus.yml", "--storage.tsdb.path=data"),
        f"--web.listen-address={address}",
    ]
    with (folder / "prometheus.log").open("wb") as output, started(words, folder, output):
        url = f"http://{address}"
        wait_for(lambda: value(url, "count(up)") == 1, "Prometheus")
        yield url


@contextmanager
def started(words: list[str], folder: Path, output: Any) -> Iterator[None]:
    """Run a program until the end of the block."""
    process = subprocess.Popen(words, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def ask(url: str, path: str, **query: object) -> list[Any]:
    """Return a query's result."""
    address = f"{url}/api/v1/{path}?{urlencode(query)}"
    with urllib.request.urlopen(address, timeout=30) as answer:
        return list(json.load(answer)["data"]["result"])


def value(url: str, expression: str) -> float:
    """Return a query's one value, 0 if there is none or nobody answers yet."""
    try:
        found = ask(url, "query", query=expression)
    except OSError:
        return 0.0
    return float(found[0]["value"][1]) if found else 0.0


def wait_for(look: Any, what: str) -> None:
    """Wait until a look is true."""
    ends = time.monotonic() + WAIT_SEC
    while not look():
        if time.monotonic() > ends:
            raise SystemExit(f"waited {WAIT_SEC:g} s for {what}")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
