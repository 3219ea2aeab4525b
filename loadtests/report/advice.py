"""What a scenario's figures recommend for its SLO, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.report.axes import AGREEMENT, WEIGHTS, Axis, timing
from loadtests.report.measures import TO_MIB
from loadtests.report.slo import Verdict, slo_text, timing_name, timings, verdict
from loadtests.report.tables import figure, plain
from loadtests.results import Peak, ScenarioResult, VariantResult


def advice(scenario: ScenarioResult, target: float) -> list[str]:
    """Sentences of recommendation in Markdown, with their uncertainty.

    Args:
        scenario: What was found, in a valid run.
        target: Share of the requests that have to meet the SLO.
    """
    if not scenario.slo:
        return ["The plan has no SLO here, so nothing is recommended."]
    by_verdict: dict[Verdict, list[VariantResult]] = {"meets": [], "unclear": [], "misses": []}
    for variant in scenario.variants:
        by_verdict[verdict(variant, target)].append(variant)
    asked = f"Asked for: {slo_text(scenario.slo)} for {100 * target:.4g} % of the requests."
    chosen = _choose(by_verdict["meets"], timings(scenario.slo))
    sentences = [asked, *(chosen or [_nearest(scenario)])]
    for words, variants in (
        ("May meet it or not", by_verdict["unclear"]),
        ("Miss it", by_verdict["misses"]),
    ):
        if variants:
            sentences.append(f"{words}: {'; '.join(map(_reached, variants))}.")
    return sentences


def _nearest(scenario: ScenarioResult) -> str:
    """Of variants that all do not surely meet the SLO."""
    reached = {v.variant: found for v in scenario.variants if (found := v.slo_attainment)}
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
    speed, measure = timing(timed[0]), f"p95 {timing_name(timed[0])}"
    fastest = _best(candidates, speed)
    # Of those that are alike in the rest the fastest is named again, not another one.
    ranked = [fastest, *candidates] if fastest else candidates
    smallest, closest = _best(ranked, WEIGHTS), _best(ranked, AGREEMENT)
    named = [variant for variant in (fastest, smallest) if variant]
    sentences = []
    if fastest:
        others = [v for v in candidates if v is not fastest and not speed.can_tell(fastest, v)]
        sentences.append(
            f"**{plain(fastest.variant)}** meets it with the lowest {measure}: "
            f"{_described(fastest, timed)}."
        )
        if others:
            names = _listed([plain(variant.variant) for variant in others])
            sentences.append(f"{names} cannot be told from it in {measure} at these samples.")
    else:
        names = _listed([f"**{plain(variant.variant)}**" for variant in candidates])
        sentences.append(f"{names}: meet it; too few samples for their {measure}.")
    if smallest and smallest is not fastest:
        sentences.append(
            f"The smallest that meets it is **{plain(smallest.variant)}**: "
            f"{_described(smallest, timed)}."
        )
    if closest and all(AGREEMENT.can_tell(variant, closest) for variant in named):
        sentences.append(
            f"The closest to the reference that meets it is **{plain(closest.variant)}**: "
            f"{_described(closest, timed)}."
        )
    return sentences


def _best(candidates: Sequence[VariantResult], axis: Axis) -> VariantResult | None:
    """The first of those that no other is better than; None if the axis knows of none."""
    known = [variant for variant in candidates if axis.of(variant)]
    best = (v for v in known if all(axis.is_no_worse(v, other) for other in known))
    return next(best, None)


def _described(variant: VariantResult, timed: Sequence[str]) -> str:
    parts = [
        f"p95 {timing_name(name)} {figure(timing(name).of(variant), 1e3)} ms" for name in timed
    ]
    if variant.server.weights_bytes is not None:
        parts.append(f"{figure(variant.server.weights_bytes, TO_MIB)} MiB of weights")
    if variant.is_reference:
        parts.append("the reference itself")
    elif variant.agreement:
        found = variant.agreement
        parts.append(f"agreement {figure(found.estimate, 1, 4)}, n = {found.pairs}")
    return ", ".join(parts)


def _reached(variant: VariantResult) -> str:
    if variant.stopped:
        return f"{plain(variant.variant)} was stopped ({plain(variant.stopped[0])})"
    undecided = variant.num_undecided
    left_out = f" ({undecided} cut off before a limit, not counted)" if undecided else ""
    return f"{plain(variant.variant)} with {figure(variant.slo_attainment, 100, 2)} %{left_out}"


def highest_rates(peaks: Sequence[Peak]) -> str:
    """What the search for the peaks found, in a sentence."""
    rates = [f"{plain(peak.variant)} {_peak(peak)}" for peak in peaks]
    return f"Highest rate that surely met it, best of three turns each: {'; '.join(rates)}."


def _peak(peak: Peak) -> str:
    rate = "none" if peak.rate is None else f"{peak.rate:.4g}/s"
    told = [] if peak.missed_at is None else [f"missed at {peak.missed_at:.4g}/s"]
    told += [plain(peak.note)] if peak.note else []
    return f"{rate} ({'; '.join(told)})" if told else rate


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
