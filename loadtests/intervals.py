"""Means over rounds with their 95 % confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from loadtests.results import IntervalEstimate

MAX_EXPONENT = 700.0
"""Of two rounds that lie far apart an interval may end beyond what a number can hold."""


def t_quantile(freedom: float) -> float:
    """Student's t with so many degrees of freedom lies within ± this in 95 % of cases."""
    return float(stdtrit(freedom, 0.975))


def mean_of(by_round: Sequence[float | None], *, is_share: bool = False) -> IntervalEstimate:
    """Mean with Student's interval, if at least two rounds have a value.

    Of figures above 0 it is the geometric mean, and the interval is Student's over their logs:
    latencies and rates differ by factors, and no interval of theirs may reach below 0. Shares, and
    figures that are 0 in some round, have the arithmetic mean.

    Args:
        by_round: Of each round; None where it has no value, at least one other.
        is_share: Cut the interval to 0 … 1.
    """
    values = np.array([value for value in by_round if value is not None])
    is_log = not is_share and bool((values > 0).all())
    column = np.log(values) if is_log else values
    value = float(column.mean())
    ends: tuple[float | None, float | None] = (None, None)
    if len(column) > 1:
        half = t_quantile(len(column) - 1) * float(column.std(ddof=1)) / len(column) ** 0.5
        ends = (value - half, value + half)
        if is_log:
            ends = exp(value - half), exp(value + half)
        elif is_share:
            ends = max(value - half, 0.0), min(value + half, 1.0)
    low, high = ends
    return IntervalEstimate(
        value=exp(value) if is_log else value, low=low, high=high, by_round=tuple(by_round)
    )


def exp(value: float) -> float:
    """e to the power of a value, always finite."""
    return math.exp(min(value, MAX_EXPONENT))
