"""Scraping a run over HTTP as Prometheus does, and looking up what it said."""

import re
import urllib.request
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from projections.metrics_catalogue import Metric

_URL = re.compile(r"metrics at (http://\S+)")


class Scrape(NamedTuple):
    """One page: each series' value by its name and labels, and each metric's type and help."""

    series: Mapping[tuple[str, frozenset[tuple[str, str]]], float]
    kinds: Mapping[str, str]
    helps: Mapping[str, str]

    def value(self, name: str, **labels: str) -> float:
        """Return the value of the one series that has these labels beside `env` and `exchange`."""
        wanted = labels.items()
        found = [
            (got, value)
            for (series, got), value in self.series.items()
            if series == name and wanted <= dict(got).items()
        ]
        assert len(found) == 1, f"{name} {labels}: {found}"
        return found[0][1]

    def by(self, name: str, *labels: str) -> dict[str | tuple[str, ...], float]:
        """Return a metric's values by these labels' values; by one label's, without a tuple."""
        found: dict[str | tuple[str, ...], float] = {}
        for (series, got), value in self.series.items():
            if series == name:
                values = tuple(dict(got)[label] for label in labels)
                found[values[0] if len(values) == 1 else values] = value
        return found

    def labels(self, name: str) -> list[dict[str, str]]:
        """Return the labels of each of a metric's series."""
        return [dict(got) for series, got in self.series if series == name]

    @property
    def names(self) -> set[str]:
        """The names of all series."""
        return {name for name, _ in self.series}


def scrape(url: str) -> Scrape:
    """Return what the address says now."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.status == 200
        return parsed(answer.read().decode())


def parsed(page: str) -> Scrape:
    """Return what a page says; a series that is there twice is a fault."""
    series: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    kinds, helps = {}, {}
    for family in text_string_to_metric_families(page):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        kinds[name], helps[name] = family.type, family.documentation
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in series, key
            series[key] = sample.value
    return Scrape(series, kinds, helps)


def metrics_url(output: str) -> str:
    """Return where a run has said that its metrics are, "" if it hasn't."""
    found = _URL.search(output)
    return "" if found is None else found[1]


def series_names(metric: Metric) -> Iterator[str]:
    """Yield the names that a metric's series have."""
    if metric.kind == "histogram":
        yield from (f"{metric.name}{suffix}" for suffix in ("_bucket", "_sum", "_count"))
    else:
        yield metric.name
