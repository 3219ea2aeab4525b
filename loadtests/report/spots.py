"""Where variants stand in the Pareto picture: speed, quality and memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loadtests.report.advice import p95, quality
from loadtests.report.pareto import Row, alike, dominated, exactly, negated
from loadtests.report.slo import timings
from loadtests.results import Estimate, Peak, ScenarioResult, VariantResult

TITLES = {
    "latency": "p95 latency from the planned time, ms",
    "ttft": "p95 TTFT from the planned time, ms",
    "tpot": "p95 TPOT, ms per token",
}


@dataclass(frozen=True, slots=True)
class Speed:
    """A horizontal axis; ``scale`` from the result's unit to the shown one."""

    title: str
    of: Callable[[VariantResult], Estimate | None]
    scale: float
    more_is_better: bool


@dataclass(frozen=True, slots=True)
class Spot:
    """A variant in the picture; ``weights`` in bytes, None if any variant's is not known."""

    speed: Estimate
    quality: Estimate
    weights: int | None


def place(scenario: ScenarioResult, speed: Speed) -> dict[str, Spot]:
    """Where the variants stand, those left out that lack an axis."""
    weights = {variant.variant: variant.server.weights_bytes for variant in scenario.variants}
    are_known = None not in weights.values()
    return {
        variant.variant: Spot(at, agreed, weights[variant.variant] if are_known else None)
        for variant in scenario.variants
        if (at := speed.of(variant)) and (agreed := quality(variant))
    }


def judge(speed: Speed, spots: dict[str, Spot]) -> tuple[set[str], list[tuple[str, str]]]:
    """Which variants are dominated, and which pairs the samples cannot tell apart.

    Weights are not sampled, so they count for dominance only. None of either where the speed has
    no interval.
    """
    if any(spot.speed.low is None for spot in spots.values()):
        return set(), []
    sampled: dict[str, Row] = {
        name: (negated(spot.speed) if speed.more_is_better else spot.speed, negated(spot.quality))
        for name, spot in spots.items()
    }
    whole = {name: (*row, exactly(spots[name].weights or 0)) for name, row in sampled.items()}
    return dominated(whole), alike(sampled)


def speeds(scenario: ScenarioResult) -> list[Speed]:
    """What the SLO times, and the peak where it was searched, else goodput beside a single time."""
    peaks = {peak.variant: peak for peak in scenario.peaks}
    times = [
        Speed(TITLES[timing], p95(timing), 1e3, more_is_better=False)
        for timing in timings(scenario.slo)
    ]
    if peaks:
        peak = Speed(
            "highest rate that meets the SLO, requests/s",
            lambda variant: _peak(peaks.get(variant.variant)),
            1,
            more_is_better=True,
        )
        return [*times, peak]
    goodput = Speed("goodput, requests/s", lambda v: v.goodput, 1, more_is_better=True)
    return times if len(times) > 1 else [*times, goodput]


def _peak(peak: Peak | None) -> Estimate | None:
    """It lies between the rate met and the one missed, if one was."""
    if peak is None or peak.rate is None:
        return None
    return Estimate(value=peak.rate, low=peak.rate, high=peak.missed_at)
