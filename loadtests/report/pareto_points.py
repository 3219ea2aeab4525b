"""Where variants stand in the Pareto picture: speed, quality and memory."""

from __future__ import annotations

from dataclasses import dataclass

from loadtests.figures import too_many_undecided
from loadtests.report.axes import AGREEMENT, WEIGHTS, Axis, highest_rate, slo_met, timing
from loadtests.report.pareto import alike, dominated
from loadtests.report.slo import timings
from loadtests.results import IntervalEstimate, ScenarioResult, VariantResult

LEVEL = 0.95
"""Of the percentile that ranks."""


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """A variant in the picture; ``weights`` in bytes, None if any variant's is not known."""

    variant: VariantResult
    speed: IntervalEstimate
    quality: IntervalEstimate
    weights: int | None


def place(scenario: ScenarioResult, speed: Axis) -> dict[str, ParetoPoint]:
    """Where the variants stand, those without that have no place."""
    weights = {variant.variant: variant.server.weights_bytes for variant in scenario.variants}
    are_known = None not in weights.values()
    return {
        variant.variant: ParetoPoint(
            variant, found, agreed, weights[variant.variant] if are_known else None
        )
        for variant in scenario.variants
        if not why_no_place(variant, speed)
        and (found := speed.of(variant))
        and (agreed := AGREEMENT.of(variant))
    }


def why_no_place(variant: VariantResult, speed: Axis) -> str:
    """Why a variant cannot be ranked by an axis; empty if it can."""
    if variant.stopped:
        return "stopped early"
    if variant.problems:
        return "not valid"
    if too_many_undecided(variant.cut_off, variant.planned, LEVEL):
        return "too many cut off"
    if speed.of(variant) is None:
        return "too many errors or too few requests" if speed.between else "no rate surely met"
    return "" if AGREEMENT.of(variant) else "no answers to compare"


def judge(speed: Axis, points: dict[str, ParetoPoint]) -> tuple[set[str], list[tuple[str, str]]]:
    """Which variants are dominated, and which pairs the samples cannot tell apart.

    Weights are not sampled, so they count for dominance only.
    """
    variants = [point.variant for point in points.values()]
    are_known = all(point.weights is not None for point in points.values())
    sampled = [speed, AGREEMENT]
    whole = [*sampled, WEIGHTS] if are_known else sampled
    return dominated(whole, variants), alike(sampled, variants)


def speeds(scenario: ScenarioResult) -> list[Axis]:
    """What the SLO times, and the peak where it was searched, else SLO met beside a single time."""
    times = [timing(name) for name in timings(scenario.slo)]
    if scenario.peaks:
        return [*times, highest_rate(scenario.peaks)]
    if len(times) > 1 or not scenario.slo:
        return times
    return [*times, slo_met(scenario.slo)]
