"""Pictures of the samples: how latencies are distributed, and how they go over time."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtests.report.picture import Picture, draw, logarithmic_ms
from loadtests.report.styles import Style, styles
from loadtests.results import ScenarioResult, VariantResult
from loadtests.samples import Floats, RequestSamples

CURVE_POINTS = 300
MIN_PER_BIN = 20
"""A p95 has one sample beyond it."""

MAX_BINS = 60
COLUMNS = 3


def latency_cdf(scenario: ScenarioResult) -> Picture | None:
    """Share of requests that were answered within a latency, a curve per variant.

    None if no request was answered with success.
    """
    if not any(variant.ok for variant in scenario.variants):
        return None
    look = styles([variant.variant for variant in scenario.variants])

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for variant in scenario.variants:
            times, shares = cumulative(variant.samples)
            style = look[variant.variant]
            axes.step(
                times * 1e3,
                shares * 100,
                where="post",
                label=variant.variant,
                color=style.colour,
                linestyle=style.dashes,
                marker=style.marker,
                markevery=max(1, len(times) // 8),
                markersize=5,
            )
        logarithmic_ms(axes, horizontal=True)
        if "latency_ms" in scenario.slo:
            axes.axvline(scenario.slo["latency_ms"], color="#555555", linewidth=1)
            axes.text(scenario.slo["latency_ms"], 2, " SLO", color="#555555")
        axes.set(xlabel="latency from the planned time, ms", ylabel="requests answered, %")
        axes.set_ylim(0, 102)
        axes.legend()

    return Picture(
        "latency-cdf",
        "Share of requests answered within a latency. Errors count as never answered, and requests "
        "that were cut off as not answered yet, so with either a curve ends below 100 %.",
        draw(paint, 7, 4),
    )


def cumulative(samples: RequestSamples) -> tuple[Floats, Floats]:
    """Rising latencies in seconds, and the share of requests answered by each.

    Both (points,), at most ``CURVE_POINTS``; evenly spaced by rank, the last always among them.
    """
    times = np.sort(samples.latency[samples.is_ok])
    if not len(times):
        return np.empty(0), np.empty(0)
    ranks = np.unique(np.linspace(0, len(times) - 1, CURVE_POINTS).astype(np.int64))
    shares: Floats = (ranks + 1) / len(samples)
    return times[ranks], shares


def percentiles_over_time(scenario: ScenarioResult) -> Picture | None:
    """p50 and p95 over the measured time, an axes per variant.

    None if no variant has enough successes in a round for a single point.
    """
    if not any(len(over_time(variant.samples)[0]) for variant in scenario.variants):
        return None
    look = styles([variant.variant for variant in scenario.variants])
    rows = -(-len(scenario.variants) // COLUMNS)
    columns = min(COLUMNS, len(scenario.variants))

    def paint(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place < len(scenario.variants):
                variant = scenario.variants[place]
                _paint_over_time(axes, variant, look[variant.variant])
            else:
                axes.set_visible(False)
        logarithmic_ms(grid.flat[0], horizontal=False)
        figure.supxlabel("measured time, s (rounds one after the other)", size=9)
        figure.supylabel("latency from the planned time, ms", size=9)

    return Picture(
        "latency-over-time",
        "Latency by the time at which requests were planned, the rounds one after the other with a "
        f"thin line between them. Each point stands for at least {MIN_PER_BIN} successes: the "
        "filled one is their p50, the empty one their p95.",
        draw(paint, 7, 0.6 + 2.2 * rows),
    )


def _paint_over_time(axes: Axes, variant: VariantResult, style: Style) -> None:
    axes.set_title(variant.variant)
    seconds, p50, p95, ends = over_time(variant.samples)
    for values, fill, name in ((p50, style.colour, "p50"), (p95, "white", "p95")):
        axes.plot(
            seconds,
            values * 1e3,
            color=style.colour,
            linestyle="-" if name == "p50" else ":",
            marker=style.marker,
            markersize=4,
            markerfacecolor=fill,
            label=name,
        )
    for end in ends[:-1]:
        axes.axvline(end, color="#bbbbbb", linewidth=0.8)
    axes.legend()


def over_time(samples: RequestSamples) -> tuple[Floats, Floats, Floats, Floats]:
    """Percentiles of stretches of time, none of which reaches over two rounds.

    Returns:
        Middles of the stretches in seconds of measured time, p50 and p95 in seconds, each
        (stretches,); and the ends of the rounds, (rounds,).
    """
    rounds = np.unique(samples.round)
    points: list[tuple[float, float, float]] = []
    ends: list[float] = []
    start = 0.0
    for number in rounds:
        of_round = samples.where(samples.round == number)
        good = of_round.where(of_round.is_ok)
        num_bins = min(len(good) // MIN_PER_BIN, max(1, MAX_BINS // len(rounds)))
        for rows in np.array_split(np.argsort(good.planned), num_bins) if num_bins else ():
            middle = float(np.mean(good.planned[rows]))
            p50, p95 = np.quantile(good.latency[rows], (0.5, 0.95))
            points.append((start + middle, float(p50), float(p95)))
        start += float(of_round.planned.max())
        ends.append(start)
    columns = np.array(points, np.float64).reshape(-1, 3).T
    return columns[0], columns[1], columns[2], np.array(ends)
