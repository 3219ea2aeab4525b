"""What a scenario's figures recommend for its SLO, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loadtests.report.measures import TO_MIB, figure_of
from loadtests.report.pareto import exactly, negated, overlap
from loadtests.report.slo import (
    Verdict,
    slo_text,
    sure_attainment,
    timing_name,
    timings,
    verdict,
)
from loadtests.report.tables import figure, plain
from loadtests.results import Estimate, Peak, ScenarioResult, VariantResult


def advice(scenario: ScenarioResult, target: float) -> list[str]:
    """Sentences of recommendation in Markdown, with their uncertainty.

    Args:
        scenario: What was found.
        target: Share of the requests that have to meet the SLO.
    """
    if not scenario.slo:
        return ["The plan has no SLO here, so nothing is recommended."]
    if any(variant.problems for variant in scenario.variants):
        return ["The figures are not valid, so nothing is recommended."]
    by_verdict: dict[Verdict, list[VariantResult]] = {"meets": [], "unclear": [], "misses": []}
    for variant in scenario.variants:
        by_verdict[verdict(variant, scenario.slo, target)].append(variant)
    asked = f"Asked for: {slo_text(scenario.slo)} for {100 * target:.4g} % of the requests."
    chosen = _choose(by_verdict["meets"], timings(scenario.slo))
    sentences = [asked, *(chosen or [_nearest(scenario)])]
    for words, variants in (
        ("May meet it or not", by_verdict["unclear"]),
        ("Miss it", by_verdict["misses"]),
    ):
        if variants:
            named = [_reached(variant, scenario.slo) for variant in variants]
            sentences.append(f"{words}: {'; '.join(named)}.")
    return [*sentences, *_peaks(scenario)]


def _nearest(scenario: ScenarioResult) -> str:
    """Of variants that all do not surely meet the SLO."""
    slo = scenario.slo
    reached = {v.variant: found for v in scenario.variants if (found := sure_attainment(v, slo))}
    text = "**No variant surely meets it at these samples.**"
    if not reached:
        return text
    nearest = max(reached, key=lambda name: reached[name].value)
    return f"{text} {plain(nearest)} comes closest: {figure(reached[nearest], 100, 2)} %."


def _choose(candidates: Sequence[VariantResult], timed: Sequence[str]) -> list[str]:
    """The fastest of those that surely meet the SLO, then what else speaks for another one.

    Args:
        candidates: Those that do.
        timed: The fields that say how fast they are; the first one decides.
    """
    if not candidates:
        return []
    speed, measure = p95(timed[0]), f"p95 {timing_name(timed[0])}"
    fastest = _best(candidates, speed)
    others = [v for v in candidates if v is not fastest and _alike(v, fastest, speed)]
    name = plain(fastest.variant)
    sentences = [f"**{name}** meets it with the lowest {measure}: {_described(fastest, timed)}."]
    if others:
        names = _listed([plain(variant.variant) for variant in others])
        sentences.append(f"{names} cannot be told from it in {measure} at these samples.")
    smallest, closest = _best(candidates, _weights), _best(candidates, _distance)
    if smallest is not fastest and _weights(smallest) is not None:
        sentences.append(
            f"The smallest that meets it is **{plain(smallest.variant)}**: "
            f"{_described(smallest, timed)}."
        )
    if not any(_alike(closest, named, _distance) for named in (fastest, smallest)):
        sentences.append(
            f"The closest to the reference that meets it is **{plain(closest.variant)}**: "
            f"{_described(closest, timed)}."
        )
    return sentences


Take = Callable[[VariantResult], Estimate | None]


def p95(timing: str) -> Take:
    """Of a variant's ``latency``, ``ttft`` or ``tpot``, in seconds."""
    return lambda variant: figure_of(getattr(variant, timing), "p95")


def quality(variant: VariantResult) -> Estimate | None:
    """Agreement; the reference agrees with itself."""
    if variant.is_reference:
        return exactly(1)
    return variant.agreement.estimate if variant.agreement else None


def _distance(variant: VariantResult) -> Estimate | None:
    found = quality(variant)
    return negated(found) if found else None


def _weights(variant: VariantResult) -> Estimate | None:
    found = variant.server.weights_bytes
    return None if found is None else exactly(found)


def _best(candidates: Sequence[VariantResult], take: Take) -> VariantResult:
    def key(variant: VariantResult) -> float:
        found = take(variant)
        return float("inf") if found is None else found.value

    return min(candidates, key=key)


def _alike(one: VariantResult, other: VariantResult, take: Take) -> bool:
    a, b = take(one), take(other)
    return a is None or b is None or overlap(a, b)


def _described(variant: VariantResult, timed: Sequence[str]) -> str:
    parts = [
        f"p95 {timing_name(timing)} {figure(p95(timing)(variant), 1e3)} ms" for timing in timed
    ]
    if variant.server.weights_bytes is not None:
        parts.append(f"{figure(variant.server.weights_bytes, TO_MIB)} MiB of weights")
    if variant.is_reference:
        parts.append("the reference itself")
    elif variant.agreement:
        found = variant.agreement
        parts.append(f"agreement {figure(found.estimate, 1, 4)}, n = {found.pairs}")
    return ", ".join(parts)


def _reached(variant: VariantResult, slo: dict[str, float]) -> str:
    if variant.stopped:
        return f"{plain(variant.variant)} was stopped ({plain(variant.stopped[0])})"
    found = sure_attainment(variant, slo)
    cut_off = f" ({variant.cut_off} cut off, not counted)" if variant.cut_off else ""
    return f"{plain(variant.variant)} with {figure(found, 100, 2)} %{cut_off}"


def _peaks(scenario: ScenarioResult) -> list[str]:
    if not scenario.peaks:
        return []
    rates = [f"{plain(peak.variant)} {_peak(peak)}" for peak in scenario.peaks]
    return [f"Highest rate that met it, one turn each: {', '.join(rates)}."]


def _peak(peak: Peak) -> str:
    if peak.problem:
        return plain(peak.problem)
    rate = "none" if peak.rate is None else f"{peak.rate:.4g}/s"
    return rate if peak.missed_at is None else f"{rate} (missed at {peak.missed_at:.4g}/s)"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
