"""What changed between two runs beyond noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from loadtests.report.axes import agreement_difference, slo_difference
from loadtests.report.difference import LEVEL, Difference, ratio
from loadtests.report.measures import TO_MIB, Found, Measure, figure_of, value_of
from loadtests.results import IntervalEstimate, Results, ScenarioResult, VariantResult

Finding = Literal["better", "worse", "within noise", "no interval", "not judged"]

LEAST_RATIO = 0.05
LEAST_SHARE = 0.01

SAME_PLAN = ("seed", "duration_s", "warmup_s")
SAME_SCENARIO = ("model", "operation", "inputs", "arrivals", "body")
"""What two runs have in common whose rounds had the same requests at the same times."""

Take = Callable[[VariantResult], IntervalEstimate | None]
Compare = Callable[[VariantResult, VariantResult, bool], Difference | None]


@dataclass(frozen=True, slots=True)
class Compared:
    """A measure that two runs are compared by.

    Attributes:
        measure: How it is shown.
        between: How far the second run is from the first, whose requests are the same or not; None
            of a size, which is not sampled.
        is_judged: Whether it is among the few that are tested; of the others the change is shown.
        more_is_better: Which way is up.
    """

    measure: Measure
    between: Compare | None
    is_judged: bool = True
    more_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One measure of one variant in both runs.

    Attributes:
        is_paired: Whether rounds of the same number had the same requests at the same times.
        difference: None of sizes, and without intervals.
        p: Adjusted by Holm over the judged measures of the variant; None of what is not tested.
        smallest: The least change that the test would have found in 4 of 5 cases, were it the only
            one: a ratio less 1, or a difference of shares.
    """

    scenario: str
    variant: str
    compared: Compared
    before: Found
    after: Found
    is_paired: bool
    difference: Difference | None
    p: float | None = None
    smallest: float | None = None
    finding: Finding = "not judged"


def changes(before: Results, after: Results) -> list[Change]:
    """Compare what both runs have: same scenario, same variant, figures on both sides.

    A few measures of each variant are judged: one changed if the t-test of its ``Difference`` finds
    it at 5 % after Holm's correction (1979) for these few, and by at least 5 % of its value, shares
    by 0.01. A size, which is not sampled, changed if by at least 5 %.
    """
    found: list[Change] = []
    old = {scenario.name: scenario for scenario in before.scenarios}
    for scenario in after.scenarios:
        if earlier := old.get(scenario.name):
            is_paired = _have_same_requests(before, after, scenario.name)
            for one, other in _variants(earlier, scenario):
                measures = _measures(earlier, scenario, other)
                found += _judge(list(_compare(scenario.name, one, other, measures, is_paired)))
    return found


def holm(values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order of the given ones (Holm, 1979)."""
    order = np.argsort(values)
    factors = len(values) - np.arange(len(values))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * np.asarray(values)[order]))
    return [float(p) for p in adjusted]


def _have_same_requests(before: Results, after: Results, scenario: str) -> bool:
    def requests(results: Results) -> tuple[list[Any], list[Any]]:
        planned = next(s for s in results.plan["scenarios"] if s["name"] == scenario)
        whole = [results.plan[key] for key in SAME_PLAN]
        return whole, [planned.get(key) for key in SAME_SCENARIO]

    return requests(before) == requests(after)


def _variants(
    before: ScenarioResult, after: ScenarioResult
) -> Iterator[tuple[VariantResult, VariantResult]]:
    old = {variant.variant: variant for variant in before.variants}
    return ((old[v.variant], v) for v in after.variants if v.variant in old)


def _measures(
    before: ScenarioResult, after: ScenarioResult, variant: VariantResult
) -> list[Compared]:
    """Few are judged: of streams what their tokens take, else the latency; of all the quality."""
    is_stream = variant.ttft is not None
    measures = [
        _ratio("latency p50, ms", lambda v: figure_of(v.latency, "p50"), not is_stream),
        _ratio("latency p95, ms", lambda v: figure_of(v.latency, "p95"), not is_stream),
        _ratio("latency p99, ms", lambda v: figure_of(v.latency, "p99"), False),
        _ratio("TTFT p95, ms", lambda v: figure_of(v.ttft, "p95")),
        _ratio("TPOT p50, ms", lambda v: figure_of(v.tpot, "p50")),
        Compared(
            Measure("agreement", lambda v: v.agreement.estimate if v.agreement else None, 1, 4),
            lambda one, other, paired: agreement_difference(one, other, paired=paired),
            more_is_better=True,
        ),
        _ratio("replica's CPU, ms per request", lambda v: v.server.replica_cpu, False),
        Compared(Measure("weights, MiB", lambda v: v.server.weights_bytes, TO_MIB), None),
        Compared(Measure("resident, MiB", lambda v: v.server.resident_bytes, TO_MIB), None),
    ]
    if before.slo == after.slo:
        met = Compared(
            Measure("SLO met, %", lambda v: v.slo_attainment, 100, 2),
            lambda one, other, paired: slo_difference(one, other, after.slo, paired=paired),
            more_is_better=True,
        )
        measures.insert(5, met)
    return measures


def _ratio(name: str, take: Take, is_judged: bool = True) -> Compared:
    def between(one: VariantResult, other: VariantResult, paired: bool) -> Difference | None:
        return ratio(take(one), take(other), paired=paired)

    return Compared(Measure(name, take, 1e3), between, is_judged)


def _compare(
    scenario: str,
    one: VariantResult,
    other: VariantResult,
    measures: Sequence[Compared],
    is_paired: bool,
) -> Iterator[Change]:
    for compared in measures:
        before, after = compared.measure.of(one), compared.measure.of(other)
        if before is not None and after is not None:
            found = compared.between(one, other, is_paired) if compared.between else None
            yield Change(scenario, other.variant, compared, before, after, is_paired, found)


def _judge(family: Sequence[Change]) -> list[Change]:
    """The changes of one variant with what is found of them."""
    tested = [c.difference for c in family if c.compared.is_judged and c.difference]
    adjusted = iter(holm([difference.p_value for difference in tested]))
    return [_judged(change, adjusted, len(tested)) for change in family]


def _judged(change: Change, adjusted: Iterator[float], num_tested: int) -> Change:
    if not change.compared.is_judged:
        return change
    if change.compared.between is None:
        before, after = value_of(change.before), value_of(change.after)
        is_sure = abs(after - before) >= LEAST_RATIO * abs(before) and after != before
        return replace(change, finding=_finding(change, after - before, is_sure=is_sure))
    found = change.difference
    if found is None:
        return replace(change, finding="no interval")
    p = next(adjusted)
    size = abs(found.estimate.value - 1) if found.is_ratio else abs(found.value)
    least = LEAST_RATIO if found.is_ratio else LEAST_SHARE
    return replace(
        change,
        p=p,
        smallest=max(found.smallest(LEVEL / num_tested), least),
        finding=_finding(change, found.value, is_sure=p < LEVEL and size >= least),
    )


def _finding(change: Change, difference: float, *, is_sure: bool) -> Finding:
    if not is_sure:
        return "within noise"
    return "better" if (difference > 0) == change.compared.more_is_better else "worse"
