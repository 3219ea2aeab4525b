"""The Pareto picture: speed, quality and memory of every variant at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from loadtests.report.axes import Axis
from loadtests.report.measures import TO_MIB
from loadtests.report.pareto_points import ParetoPoint, judge, place, speeds, why_no_place
from loadtests.report.picture import Picture, draw
from loadtests.report.styles import GREY, Style, styles
from loadtests.report.tables import figure as shown
from loadtests.results import IntervalEstimate, ScenarioResult

SMALLEST, LARGEST = 60, 700
"""Areas of the points, in square points; the largest is the heaviest variant."""

RULES = (
    "Speed against agreement with the reference; the greater the point, the heavier the weights. "
    "Bars are each variant's own 95 % interval. Grey: dominated, that is, another variant is no "
    "worse in speed, agreement and weights, and beyond doubt better in at least one. Joined by a "
    "line: the samples cannot tell the two apart in speed or in agreement. Both go by the "
    "difference of the two round by round, which is surer than the bars: two whose bars overlap "
    "may still differ. With a single round, or where a round has too few samples, nothing is "
    "joined or grey."
)
BRACKET = (
    "By the highest rate nothing is joined or grey: its brackets reach from the rate met to the "
    "lowest rate missed, where the search ended, and are no intervals."
)

Panel = tuple[Axis, dict[str, ParetoPoint]]


def pareto_picture(scenario: ScenarioResult) -> Picture | None:
    """Times and throughput, each against agreement; None if fewer than two can be placed."""
    placed = [(speed, place(scenario, speed)) for speed in speeds(scenario)]
    panels = [(speed, points) for speed, points in placed if len(points) > 1]
    if not panels:
        return None
    look = styles([variant.variant for variant in scenario.variants])

    def paint(figure: Figure) -> None:
        for number, (speed, points) in enumerate(panels, 1):
            _paint(figure.add_subplot(1, len(panels), number), speed, points, look)

    return Picture(
        "pareto",
        " ".join([RULES, *_found(panels), *_left_out(scenario, panels)]),
        draw(paint, 4.6 * len(panels) + 0.4, 4.2),
    )


def _found(panels: Sequence[Panel]) -> Iterator[str]:
    """Who is grey and who is joined, in words."""
    for speed, points in panels:
        if speed.between is None:
            yield BRACKET
            continue
        grey, pairs = judge(speed, points)
        names = ", ".join(name for name in points if name in grey) or "none"
        joined = ", ".join(f"{one} and {other}" for one, other in pairs) or "none"
        yield f"By {_short(speed)}: dominated {names}; joined {joined}."


def _left_out(scenario: ScenarioResult, panels: Sequence[Panel]) -> Iterator[str]:
    for speed, points in panels:
        missing = [
            f"{variant.variant} ({why_no_place(variant, speed)})"
            for variant in scenario.variants
            if variant.variant not in points
        ]
        if missing:
            yield f"Not placed by {_short(speed)}: {', '.join(missing)}."


def _short(speed: Axis) -> str:
    return speed.title.partition(",")[0]


def _paint(axes: Axes, speed: Axis, points: dict[str, ParetoPoint], look: dict[str, Style]) -> None:
    grey, pairs = judge(speed, points)
    heaviest = max(point.weights or 0 for point in points.values())
    for one, other in pairs:
        ends = [points[one], points[other]]
        axes.plot(
            [end.speed.value * speed.scale for end in ends],
            [end.quality.value for end in ends],
            color="#555555",
            linewidth=1.5,
            zorder=4,
        )
    for name, point in points.items():
        colour = GREY if name in grey else look[name].colour
        x, y = point.speed.value * speed.scale, point.quality.value
        axes.errorbar(
            x,
            y,
            xerr=_bars(point.speed, speed.scale) if speed.between else None,
            yerr=_bars(point.quality, 1),
            color=colour,
            linewidth=1,
            capsize=2,
            zorder=2,
        )
        if speed.between is None:
            _paint_bracket(axes, point, speed.scale, colour)
        axes.scatter(
            x,
            y,
            s=max(SMALLEST, LARGEST * (point.weights or 0) / heaviest) if heaviest else SMALLEST,
            facecolors=to_rgba(colour, 0.3),
            edgecolors=colour,
            linewidths=1.5,
            marker=look[name].marker,
            label=name
            if point.weights is None
            else f"{name}, {shown(point.weights, TO_MIB, 0)} MiB",
            zorder=3,
        )
    axes.set(xlabel=speed.title, ylabel="agreement with the reference")
    axes.margins(0.2)
    axes.ticklabel_format(useOffset=False)
    legend = axes.legend(loc="best")
    for handle in legend.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([40])


def _paint_bracket(axes: Axes, point: ParetoPoint, scale: float, colour: str) -> None:
    """From the rate met to the one missed, if one was; not to be taken for an interval."""
    if point.speed.high is not None:
        ends = [point.speed.value * scale, point.speed.high * scale]
        heights = [point.quality.value] * 2
        axes.plot(ends, heights, color=colour, linestyle=":", marker="$]$", markevery=[1], zorder=2)


def _bars(estimate: IntervalEstimate, scale: float) -> list[list[float]]:
    """Lengths below and above, as matplotlib takes them."""
    low = estimate.value if estimate.low is None else estimate.low
    high = estimate.value if estimate.high is None else estimate.high
    return [[(estimate.value - low) * scale], [(high - estimate.value) * scale]]
