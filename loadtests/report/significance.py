"""Whether two figures with intervals differ: Welch's test, and Holm's correction for many tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import ttest_ind_from_stats

from loadtests.intervals import t_quantile
from loadtests.report.measures import Found
from loadtests.results import Estimate


def holm(values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order of the given ones (Holm, 1979)."""
    order = np.argsort(values)
    factors = len(values) - np.arange(len(values))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * np.asarray(values)[order]))
    return [float(p) for p in adjusted]


def p_value(before: Found, after: Found, count_before: int, count_after: int) -> float | None:
    """Welch's t-test from means and intervals; None if there is none.

    Args:
        before: With Student's interval over ``count_before`` values.
        after: The same of the other run.
        count_before: At least 2, else there is no interval.
        count_after: The same.
    """
    if not isinstance(before, Estimate) or not isinstance(after, Estimate):
        return None
    if None in (before.low, before.high, after.low, after.high):
        return None
    a, b = _deviation(before, count_before), _deviation(after, count_after)
    if a == 0 and b == 0:
        return float(before.value == after.value)
    test = ttest_ind_from_stats(
        before.value, a, count_before, after.value, b, count_after, equal_var=False
    )
    return float(test.pvalue)


def _deviation(estimate: Estimate, count: int) -> float:
    """Standard deviation of the values that an interval was made of; a share's may be cut."""
    low = estimate.value if estimate.low is None else estimate.low
    high = estimate.value if estimate.high is None else estimate.high
    half = max(estimate.value - low, high - estimate.value)
    return half / t_quantile(count - 1) * float(count**0.5) if count > 1 else 0.0
