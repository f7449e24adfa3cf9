"""
Measure everything and print one table: `python -m benchmarks [--json] [--windows N] [SUBJECT...]`.

A ratio is ours by the peer's, both measured in this run.
"""

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.measuring import ROOT, Figure, Scale, machine

SUBJECTS: Final = (
    "append",
    "window",
    "core",
    "rebuild",
    "startup",
    "aggregation",
    "live",
    "freeze",
    "metrics",
    "audit",
    "history",
    "kernel",
)
"""Modules of this package with a `measure(scale)`, in the order of the table."""

HEADINGS: Final = ("what", "ours", "peer", "ratio", "aim", "")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=", ".join(SUBJECTS))
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--windows", type=int, default=500_000, help="in the large ledger")
    # Not the system's folder for temporary files, which is often in memory.
    parser.add_argument("--folder", type=Path, default=ROOT / "artifacts", help="on a real disk")
    options = parser.parse_args()
    unknown = set(options.subjects) - set(SUBJECTS)
    if unknown or options.windows < 1:
        parser.error(f"expected some of {', '.join(SUBJECTS)}, and at least 1 window")
    options.folder.mkdir(parents=True, exist_ok=True)
    figures: list[Figure] = []
    for subject in options.subjects or SUBJECTS:
        print(f"measuring {subject} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="benchmarks-") as folder:
            scale = Scale(folder=Path(folder), windows=options.windows)
            figures += importlib.import_module(f"benchmarks.{subject}").measure(scale)
    print(_as_json(figures) if options.json else _as_table(figures))


def _as_json(figures: list[Figure]) -> str:
    rows = [
        {**msgspec.to_builtins(figure), "ratio": figure.ratio, "met": figure.is_met}
        for figure in figures
    ]
    return json.dumps({"machine": machine(), "figures": rows}, indent=2)


def _as_table(figures: list[Figure]) -> str:
    rows = [HEADINGS, *map(_cells, figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([machine(), "", *lines])


def _cells(figure: Figure) -> tuple[str, ...]:
    bound = "at most" if figure.better == "lower" else "at least"
    unit = "x" if figure.peer is not None else f" {figure.unit}"
    met = {None: "", True: "met", False: "NOT MET"}[figure.is_met]
    return (
        figure.what,
        f"{_short(figure.ours)} {figure.unit}",
        "" if figure.peer is None else f"{_short(figure.peer)} ({figure.peer_name})",
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        "" if figure.aim is None else f"{bound} {figure.aim:g}{unit}",
        met,
    )


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


if __name__ == "__main__":
    main()
