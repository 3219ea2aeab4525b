"""What changed between two runs beyond noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from loadtests.report.measures import TO_MIB, Found, Measure, figure_of, value_of
from loadtests.report.significance import holm, p_value
from loadtests.results import Estimate, Results, VariantResult

Finding = Literal["better", "worse", "within noise", "no interval"]

LEVEL = 0.05
LEAST_RATIO = 0.05
LEAST_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Compared:
    """A measure that two runs are compared by.

    Attributes:
        more_is_better: Which way is up.
        is_share: Whether the least change that counts is ``LEAST_SHARE``, not ``LEAST_RATIO``.
    """

    measure: Measure
    more_is_better: bool = False
    is_share: bool = False


COMPARED = (
    Compared(Measure("latency p50, ms", lambda v: figure_of(v.latency, "p50"), 1e3)),
    Compared(Measure("latency p95, ms", lambda v: figure_of(v.latency, "p95"), 1e3)),
    Compared(Measure("latency p99, ms", lambda v: figure_of(v.latency, "p99"), 1e3)),
    Compared(Measure("TTFT p95, ms", lambda v: figure_of(v.ttft, "p95"), 1e3)),
    Compared(Measure("TPOT p50, ms", lambda v: figure_of(v.tpot, "p50"), 1e3)),
    Compared(Measure("goodput, requests/s", lambda v: v.goodput), more_is_better=True),
    Compared(Measure("SLO met, %", lambda v: v.slo_attainment, 100, 2), True, is_share=True),
    Compared(Measure("replica's CPU, ms per request", lambda v: v.server.replica_cpu, 1e3)),
    Compared(
        Measure("agreement", lambda v: v.agreement.estimate if v.agreement else None, 1, 4),
        more_is_better=True,
        is_share=True,
    ),
    Compared(Measure("weights, MiB", lambda v: v.server.weights_bytes, TO_MIB)),
    Compared(Measure("resident, MiB", lambda v: v.server.resident_bytes, TO_MIB)),
)


@dataclass(frozen=True, slots=True)
class Change:
    """One measure of one variant in both runs.

    Attributes:
        p: Adjusted by Holm over all comparisons of the two runs; None of sizes, which are not
            sampled, and without intervals.
    """

    scenario: str
    variant: str
    compared: Compared
    before: Found
    after: Found
    p: float | None
    finding: Finding


def changes(before: Results, after: Results) -> list[Change]:
    """Compare what both runs have: same scenario, same variant, figures on both sides.

    A sampled measure changed if Welch's t-test over the rounds' figures (for agreement over the
    pairs) finds it at 5 % after Holm's correction (1979), and by at least 5 % of its value, shares
    by 0.01. A size, which is not sampled, changed if by at least 5 %.
    """
    found = list(_compare(before, after))
    known = [change for change in found if change.p is not None]
    adjusted = iter(holm([change.p for change in known if change.p is not None]))
    return [_judged(c, None if c.p is None else next(adjusted)) for c in found]


def _compare(before: Results, after: Results) -> Iterator[Change]:
    """With p-values that are not adjusted, and no finding yet."""
    old = {(s.name, v.variant): v for s in before.scenarios for v in s.variants}
    for scenario in after.scenarios:
        for variant in scenario.variants:
            earlier = old.get((scenario.name, variant.variant))
            if earlier is None:
                continue
            for compared in COMPARED:
                a, b = compared.measure.of(earlier), compared.measure.of(variant)
                if a is not None and b is not None:
                    p = p_value(a, b, _counts(earlier, compared), _counts(variant, compared))
                    yield Change(scenario.name, variant.variant, compared, a, b, p, "no interval")


def _counts(variant: VariantResult, compared: Compared) -> int:
    """Values that an interval is made of: pairs, or rounds."""
    if compared.measure.name == "agreement" and variant.agreement:
        return variant.agreement.pairs
    return len(np.unique(variant.samples.round))


def _judged(change: Change, p: float | None) -> Change:
    before, after = value_of(change.before), value_of(change.after)
    is_sampled = isinstance(change.after, Estimate)
    if is_sampled and p is None:
        return change
    least = LEAST_SHARE if change.compared.is_share else LEAST_RATIO * abs(before)
    finding: Finding = "within noise"
    if abs(after - before) >= least and after != before and (p is None or p < LEVEL):
        finding = "better" if (after > before) == change.compared.more_is_better else "worse"
    return replace(change, p=p, finding=finding)
