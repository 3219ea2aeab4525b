"""Draws what a board opens with, without Grafana: ``python -m deploy.grafana.pictures --help``."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Mapping, Sequence
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from deploy.grafana.compare_variants import MULTIPLE
from deploy.grafana.panels import VARIANT
from deploy.grafana.queries import Query, all_queries

COLUMNS = 2
PANEL_INCHES = (4.4, 2.7)
DOTS_PER_INCH = 110
POINTS = 120
SCALES = {"s": (1e3, "ms"), "percentunit": (100, "%"), "bytes": (1 / 1024**2, "MiB")}
"""Grafana's units: factor, and what is shown instead."""

COLOURS = {"green": "tab:green", "text": "lightgrey", "orange": "tab:orange", "red": "tab:red"}
"""Grafana's colours of states."""

Line = tuple[list[float], list[float]]
"""Minutes, 0 being now, and values."""

Style = dict[str, Any]
"""Colour and dashes of a line."""

Drawn = tuple[Query, Mapping[str, Line]]
"""A query, and what it had for values."""

SECOND: Style = {"linestyle": ":", "linewidth": 0.9}
"""How a panel's second query looks, in the colours of the first."""


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
        if query.is_open:
            boards.setdefault(query.dashboard, []).append(query)
    with httpx.Client(base_url=chosen.prometheus, timeout=30) as prometheus:
        for title, queries in boards.items():
            name = title.lower().replace(" ", "-")
            draw(title, queries, prometheus, chosen.minutes * 60).savefig(
                chosen.out / f"{name}.png", dpi=DOTS_PER_INCH
            )


def draw(title: str, queries: list[Query], prometheus: httpx.Client, seconds: float) -> Figure:
    """One axes for each panel, in the order of the dashboard; variants look alike in all."""
    mpl.rcParams.update({"font.size": 7, "axes.titlesize": 8, "legend.fontsize": 6})
    panels: dict[tuple[str, str], list[Drawn]] = {}
    for query in queries:
        drawn = query, _lines(prometheus, query, seconds)
        panels.setdefault((query.row, query.panel), []).append(drawn)
    everything = [drawn for panel in panels.values() for drawn in panel]
    variants = {name for query, lines in everything if query.legend == VARIANT for name in lines}
    styles = {name: _style(number) for number, name in enumerate(sorted(variants))}
    rows = ceil(len(panels) / COLUMNS)
    figure = Figure((COLUMNS * PANEL_INCHES[0], rows * PANEL_INCHES[1] + 1), layout="constrained")
    figure.suptitle(f"{title} (drawn by deploy/grafana/pictures.py, not by Grafana)")
    for number, ((row, panel), parts) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, COLUMNS, number)
        axes.set_title(f"{row}: {panel}")
        _draw_panel(axes, parts, styles)
    handles = [Line2D([], [], label=name, **style) for name, style in styles.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _draw_panel(axes: Axes, parts: Sequence[Drawn], styles: Mapping[str, Style]) -> None:
    query, lines = parts[0]
    factor, unit = SCALES.get(query.unit, (1, ""))
    axes.set_ylabel(unit)
    if query.instant:
        latest = {name: values[-1] for name, (_, values) in lines.items()}
        axes.bar(
            range(len(latest)),
            [factor * value for value in latest.values()],
            color=[_colour_of(value, query) for value in latest.values()],
        )
        axes.set_xticks(range(len(latest)), list(latest), rotation=90)
        return
    if query.states:
        _draw_bands(axes, query, lines)
        return
    _draw_lines(axes, lines, styles, factor, {})
    for other, more in parts[1:]:
        is_multiple = MULTIPLE in other.legend
        target = axes.twinx() if is_multiple else axes
        _draw_lines(target, more, styles, 1 if is_multiple else factor, SECOND)
        target.set_ylim(bottom=0)
        if is_multiple:
            target.set_ylabel(f"{MULTIPLE} (dotted)")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes")
    if len(parts) > 1 and MULTIPLE not in parts[1][0].legend:
        kinds = [_kind(part.legend) for part, _ in parts]
        looks: list[Style] = [{}, *([SECOND] * (len(parts) - 1))]
        handles = [
            Line2D([], [], color="k", label=kind, **look)
            for kind, look in zip(kinds, looks, strict=True)
        ]
        axes.legend(handles=handles, loc="upper left")
    elif lines and not {_variant(name) for name in lines} <= set(styles):
        axes.legend(loc="lower left", fontsize=6 if len(lines) <= 12 else 4)


def _colour_of(value: float, query: Query) -> str:
    """The colour of a tile with this value."""
    holding = [colour for least, colour in query.steps if least is None or value >= least]
    return COLOURS[holding[-1]]


def _draw_lines(
    axes: Axes, lines: Mapping[str, Line], styles: Mapping[str, Style], factor: float, look: Style
) -> None:
    for number, (name, (minutes, values)) in enumerate(lines.items()):
        style = {**styles.get(_variant(name), _style(number)), **look}
        axes.plot(minutes, [factor * value for value in values], label=name, **style)


def _variant(name: str) -> str:
    """The variant that a line is of, whatever else it is called."""
    return name.partition(" ")[0]


def _kind(legend: str) -> str:
    """What a panel's lines are, beside whose."""
    return re.sub("{{.*?}}:?", "", legend).strip() or "value"


def _draw_bands(axes: Axes, query: Query, lines: Mapping[str, Line]) -> None:
    """A band for each line, in the colours of its states, which a legend names."""
    colours = {value: COLOURS[colour] for value, (_, colour) in query.states.items()}
    for row, (minutes, values) in enumerate(lines.values()):
        width = (minutes[-1] - minutes[0]) / max(len(minutes) - 1, 1) if len(minutes) > 1 else 1
        axes.barh(
            [row] * len(minutes),
            [width] * len(minutes),
            left=minutes,
            height=0.8,
            color=[colours[int(value)] for value in values],
        )
    axes.set_yticks(range(len(lines)), list(lines))
    axes.invert_yaxis()
    axes.set_xlabel("minutes")
    patches = [Patch(color=colours[value], label=name) for value, (name, _) in query.states.items()]
    axes.legend(handles=patches, loc="lower left", fontsize=5)


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
