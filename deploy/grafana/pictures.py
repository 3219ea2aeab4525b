"""Draws every panel's queries, without Grafana: ``python -m deploy.grafana.pictures --help``."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Mapping
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deploy.grafana.panels import VARIANT
from deploy.grafana.queries import Query, all_queries

COLUMNS = 4
PANEL_INCHES = (4.2, 2.9)
DOTS_PER_INCH = 70
POINTS = 120
SCALES = {"s": (1e3, "ms"), "percentunit": (100, "%"), "bytes": (1 / 1024**2, "MiB")}
"""Grafana's units: factor, and what is shown instead."""

Line = tuple[list[float], list[float]]
"""Minutes, 0 being now, and values."""

Style = dict[str, Any]
"""Colour and dashes of a line."""


def main() -> None:
    """Ask Prometheus for the last minutes and write one picture for each dashboard."""
    parser = argparse.ArgumentParser(prog="python -m deploy.grafana.pictures", description=__doc__)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="URL")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"), metavar="FOLDER")
    parser.add_argument("--minutes", type=float, default=10, metavar="N")
    parser.add_argument("--model", default=".+", metavar="REGEX")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    boards: dict[str, list[Query]] = {}
    for query in all_queries(span="1m", model=chosen.model):
        boards.setdefault(query.dashboard, []).append(query)
    with httpx.Client(base_url=chosen.prometheus, timeout=30) as prometheus:
        for title, queries in boards.items():
            name = title.lower().replace(" ", "-")
            draw(title, queries, prometheus, chosen.minutes * 60).savefig(
                chosen.out / f"{name}.png", dpi=DOTS_PER_INCH
            )


def draw(title: str, queries: list[Query], prometheus: httpx.Client, seconds: float) -> Figure:
    """One axes for each query, in the order of the dashboard; variants look alike in all."""
    mpl.rcParams.update({"font.size": 7, "axes.titlesize": 8, "legend.fontsize": 6})
    drawn = [(query, _lines(prometheus, query, seconds)) for query in queries]
    variants = sorted({name for query, lines in drawn if query.legend == VARIANT for name in lines})
    styles = {name: _style(number) for number, name in enumerate(variants)}
    rows = ceil(len(queries) / COLUMNS)
    figure = Figure((COLUMNS * PANEL_INCHES[0], rows * PANEL_INCHES[1] + 1), layout="constrained")
    figure.suptitle(f"{title} (drawn by deploy/grafana/pictures.py, not by Grafana)")
    for number, (query, lines) in enumerate(drawn, 1):
        axes = figure.add_subplot(rows, COLUMNS, number)
        axes.set_title(f"{query.row}: {query.panel}")
        _draw_panel(axes, query, lines, styles)
    handles = [Line2D([], [], label=name, **style) for name, style in styles.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _draw_panel(
    axes: Axes, query: Query, lines: Mapping[str, Line], styles: Mapping[str, Style]
) -> None:
    factor, unit = SCALES.get(query.unit, (1, ""))
    axes.set_ylabel(unit)
    if query.instant:
        latest = {name: factor * values[-1] for name, (_, values) in lines.items()}
        axes.bar(range(len(latest)), list(latest.values()), color="tab:green")
        axes.set_xticks(range(len(latest)), list(latest), rotation=90)
        return
    for number, (name, (minutes, values)) in enumerate(lines.items()):
        style = styles.get(name, _style(number))
        axes.plot(minutes, [factor * value for value in values], label=name, **style)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes")
    if lines and not set(lines) <= set(styles):
        axes.legend(loc="lower left", fontsize=6 if len(lines) <= 12 else 4)


def _style(number: int) -> Style:
    """Variants of a model, which follow each other, get colours of their own."""
    return {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3]}


def _lines(prometheus: httpx.Client, query: Query, seconds: float) -> dict[str, Line]:
    """What the query had for values, by legend and sorted by it."""
    now = time.time()
    parameters = {
        "query": query.expression,
        "start": str(now - seconds),
        "end": str(now),
        "step": str(seconds / POINTS),
    }
    answer = prometheus.get("/api/v1/query_range", params=parameters)
    answer.raise_for_status()
    found: dict[str, Line] = {}
    for one in answer.json()["data"]["result"]:
        points = [(at, float(value)) for at, value in one["values"]]
        points = [(at, value) for at, value in points if isfinite(value)]
        if points:
            found[_name(query.legend, one["metric"])] = (
                [(at - now) / 60 for at, _ in points],
                [value for _, value in points],
            )
    return dict(sorted(found.items()))


def _name(legend: str, labels: dict[str, Any]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: str(labels.get(found[1], "")), legend)


if __name__ == "__main__":
    main()
