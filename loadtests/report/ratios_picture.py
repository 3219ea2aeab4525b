"""A picture of several variants' figures, each as a ratio to the reference's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from loadtests.report.picture import Picture, draw
from loadtests.report.styles import styles
from loadtests.results import IntervalEstimate

CAPTION = "Each variant's figures; the dashed line is the reference, bars are 95 % intervals."
SPAN = 4
"""From a ratio of so many between the largest and the smallest, the axis is logarithmic."""


@dataclass(frozen=True, slots=True)
class RatioPanel:
    """One figure of all variants.

    Attributes:
        title: What it is, and of which ratio.
        ratios: Of each variant in their order.
    """

    title: str
    ratios: Sequence[IntervalEstimate]


def ratios_picture(panels: Sequence[RatioPanel], variants: Sequence[str]) -> Picture:
    """A panel beside the other, a line for each variant from the top, the reference first."""

    def paint(figure: Figure) -> None:
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(row, panels, strict=True):
            _paint(axes, panel, variants)
        row[0].set_yticks(range(len(variants)), variants)
        row[0].invert_yaxis()

    size = (1.4 + 1.7 * len(panels), 0.9 + 0.26 * len(variants))
    return Picture("comparison", CAPTION, draw(paint, *size))


def _paint(axes: Axes, panel: RatioPanel, variants: Sequence[str]) -> None:
    look = styles(variants)
    axes.axvline(1, color="#555555", linewidth=1, linestyle="--")
    for line, (name, ratio) in enumerate(zip(variants, panel.ratios, strict=True)):
        low = ratio.value if ratio.low is None else ratio.low
        high = ratio.value if ratio.high is None else ratio.high
        axes.errorbar(
            ratio.value,
            line,
            xerr=[[ratio.value - low], [high - ratio.value]],
            color=look[name].colour,
            marker=look[name].marker,
            markersize=5,
            capsize=2,
            linewidth=1,
        )
    values = [ratio.value for ratio in panel.ratios]
    if max(values) > SPAN * min(values) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(panel.title)
