"""Rate against latency, the hockey stick: where several rates were tried."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from loadtests.figures import endless, percentile
from loadtests.report.picture import Picture, draw, logarithmic_ms
from loadtests.report.styles import styles
from loadtests.results import Results, ScenarioResult, VariantResult
from loadtests.samples import RequestSamples

Point = tuple[float, float, float]
"""Offered requests per second, p50 and p99 in seconds; NaN of too few samples for a p99."""

SAME = ("model", "operation", "inputs", "body")
"""What scenarios have in common that differ in nothing but their rate."""


def rate_against_latency(results: Results, place: int) -> Picture | None:
    """A picture of the scenario at this place; None if it saw a single rate."""
    scenario = results.scenarios[place]
    points = {
        variant.variant: sorted(rate_points(results, place, variant.variant))
        for variant in scenario.variants
    }
    if all(len({rate for rate, *_ in found}) < 2 for found in points.values()):
        return None
    look = styles(list(points))

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for variant, found in points.items():
            rates, *percentiles = np.array(found).reshape(-1, 3).T
            style = look[variant]
            looks = (("p50", "-", style.colour), ("p99", ":", "white"))
            for values, (name, dashes, fill) in zip(percentiles, looks, strict=True):
                axes.plot(
                    rates,
                    values * 1e3,
                    color=style.colour,
                    linestyle=dashes,
                    marker=style.marker,
                    markerfacecolor=fill,
                    markersize=5,
                    label=f"{variant} {name}",
                )
        logarithmic_ms(axes, horizontal=False)
        axes.set(xlabel="offered, requests/s", ylabel="latency from the planned time, ms")
        axes.set_xlim(left=0)
        axes.legend(ncols=2)

    return Picture(
        "rate-latency",
        "Latency at the rates that were tried: the turns of the search for the peak, the "
        "scenario's own rate or the steps of its arrivals, and scenarios that differ in nothing "
        "but the rate. Filled points are p50, empty ones p99, which takes 100 requests. A step "
        "also bears the queue that the step before it left behind.",
        draw(paint, 7, 4),
    )


def rate_points(results: Results, place: int, variant: str) -> list[Point]:
    """Every rate at which the variant was seen on this scenario's inputs."""
    planned: list[dict[str, Any]] = results.plan["scenarios"]
    points: list[Point] = []
    for number, scenario in enumerate(results.scenarios):
        if any(planned[number].get(key) != planned[place].get(key) for key in SAME):
            continue
        arrivals = planned[number]["arrivals"]
        for found in scenario.variants:
            if found.variant == variant and arrivals["kind"] != "closed":
                points += _own(found, arrivals)
        points += _probed(scenario, variant)
    return points


def _own(variant: VariantResult, arrivals: dict[str, Any]) -> list[Point]:
    """Of the rounds: one point, or one per step."""
    if arrivals["kind"] != "steps":
        return _point(variant.offered_rate.value, variant.samples)
    points: list[Point] = []
    start = 0.0
    for step in arrivals["steps"]:
        end = start + step["duration_s"]
        within = (variant.samples.planned >= start) & (variant.samples.planned < end)
        points += _point(step["rate"], variant.samples.where(within))
        start = end
    return points


def _probed(scenario: ScenarioResult, variant: str) -> list[Point]:
    return [
        (probe.rate, _or_nan(probe.p50), _or_nan(probe.p99))
        for peak in scenario.peaks
        if peak.variant == variant
        for probe in peak.probes
        if probe.p50 is not None
    ]


def _point(rate: float, samples: RequestSamples) -> list[Point]:
    """Of all rounds together; none without a p50."""
    times = endless(samples, samples.latency)
    p50, p99 = (percentile([times[~np.isnan(times)]], level) for level in (0.5, 0.99))
    return [(rate, p50.value, p99.value if p99 else np.nan)] if p50 else []


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value
