"""Pictures as self-contained SVG, the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

LOOK: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "quantserve",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a report.

    Attributes:
        name: Of its file, without ending.
        caption: What is seen, and by which rules.
        svg: The whole document.
    """

    name: str
    caption: str
    svg: str


def draw(paint: Callable[[Figure], None], width: float, height: float) -> str:
    """An SVG document, inches wide and high, of what ``paint`` puts on the figure."""
    with mpl.rc_context(LOOK):
        figure = Figure((width, height), layout="constrained")
        paint(figure)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def logarithmic_ms(axis: Axes, *, horizontal: bool) -> None:
    """A logarithmic axis of milliseconds, labelled with plain numbers."""
    chosen = axis.xaxis if horizontal else axis.yaxis
    (axis.set_xscale if horizontal else axis.set_yscale)("log")
    chosen.set_major_formatter("{x:g}")
    chosen.set_minor_formatter(mpl.ticker.LogFormatter(minor_thresholds=(1.5, 0.6)))
