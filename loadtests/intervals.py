"""95 % confidence intervals of means over rounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from loadtests.results import Estimate


def t_quantile(freedom: int) -> float:
    """Student's t with so many degrees of freedom lies within ± this in 95 % of cases."""
    return float(stdtrit(freedom, 0.975))


def mean_of(values: Sequence[float], *, is_share: bool = False) -> Estimate:
    """Mean with Student's interval, if there are at least two values.

    Args:
        values: At least one, each of a round.
        is_share: Cut the interval to 0 … 1.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(value=mean)
    half = t_quantile(len(values) - 1) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    low, high = mean - half, mean + half
    if is_share:
        low, high = max(low, 0.0), min(high, 1.0)
    return Estimate(value=mean, low=low, high=high)
