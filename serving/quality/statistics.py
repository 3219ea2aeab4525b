"""Shares, means and perplexities with their 95 % intervals, and what samples could have shown.

Each interval holds for one look at it. Intervals that are looked at again and again as samples
come miss the truth at some time more often than once in twenty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import stdtrit

from serving.seams import Estimate

NUM_RESAMPLES = 1_000
MAX_RESAMPLED = 100_000
"""Values that are drawn at once: 0.8 MB of each column. More is no faster."""

Z_95 = NormalDist().inv_cdf(0.975)
"""1.96, the quantile of the normal distribution for two sides at 5 %."""

NO_SPREAD = 1e-12
"""A standard deviation below it is that of equal values, which rounding may put off 0."""

DETECTABLE_ERRORS = 2.8
"""Standard errors of a difference that is found in 4 of 5 cases: 1.96 for two sides at 5 %, and
0.84 for a power of 80 %."""


def share(successes: int, count: int) -> Estimate:
    """Share of successes with its Wilson interval (Wilson, 1927).

    Raises:
        ValueError: ``count`` is below 1.
    """
    if count < 1:
        raise ValueError("no values to estimate from")
    return _wilson(successes / count, count, count)


def mean(values: ArrayLike) -> Estimate:
    """Mean with the interval of the percentile bootstrap (Efron, 1979).

    Fewer than some 30 values make the interval too narrow. Of a single value it is infinite. Where
    all values are the same it is a point, which says nothing of what others may come;
    ``mean_of_shares`` knows more.

    Raises:
        ValueError: No values.
    """
    return _bootstrap([_column(values)], _mean, (-math.inf, math.inf))


def mean_of_shares(values: ArrayLike) -> Estimate:
    """Mean of values that are shares themselves, as of ten neighbours or of an answer's tokens.

    Its interval is Wilson's for as many independent yeses and noes as would have a mean of the
    same variance: the effective sample size, as for shares in clustered surveys (Dean and Pagano,
    2015). Of values that are all 0 or 1 that is their number. So it is of values that are all the
    same: they show no variance, and a point would be a lie, but nothing between 0 and 1 with mean
    p has a variance above p(1 - p), that of a yes or no. Near 1, where good variants are, the
    bootstrap's lower end is too high about twice as often as it may be.

    Raises:
        ValueError: No values.
    """
    column = _column(values)
    return mean_of_shares_by_moments(float(column.mean()), float(column.var()), len(column))


def mean_of_shares_by_moments(value: float, variance: float, count: int) -> Estimate:
    """``mean_of_shares`` of values of which only their mean and variance are known.

    Args:
        value: Their mean.
        variance: The mean square of their distances from it.
        count: How many there are, at least 1.
    """
    has_spread = variance > NO_SPREAD**2
    effective = count * value * (1 - value) / variance if has_spread else count
    return _wilson(value, effective, count)


def paired_difference(values: ArrayLike, reference_values: ArrayLike) -> Estimate:
    """Mean of the differences to the reference, item by item.

    Of values that are all 0 or 1 the interval is the adjusted Wald interval for paired shares
    (Bonett and Price, 2012), because two good variants differ in so few items that resampling them
    would find a difference in one comparison of sixteen where there is none. Of others it is the
    bootstrap's over the pairs.

    Raises:
        ValueError: No values, or not as many on each side.
    """
    column, reference = _column(values), _column(reference_values)
    _check_same_length(column, reference)
    differences = column - reference
    if np.isin(np.concatenate([column, reference]), (0, 1)).all():
        return _difference_of_shares(differences)
    return _bootstrap([differences], _mean, (-math.inf, math.inf))


def perplexity(log_probabilities: ArrayLike, token_counts: ArrayLike) -> Estimate:
    """Perplexity of all tokens together, with the bootstrap's interval over the items.

    Args:
        log_probabilities: Of each item the sum over its tokens, natural logarithm.
        token_counts: Tokens of each item, at least 1.

    Raises:
        ValueError: No items, or not as many on each side.
    """
    sums, counts = _column(log_probabilities), _column(token_counts)
    _check_same_length(sums, counts)
    return _bootstrap([sums, counts], _perplexity, (1, math.inf))


def perplexity_change(
    log_probabilities: ArrayLike,
    reference_log_probabilities: ArrayLike,
    token_counts: ArrayLike,
) -> Estimate:
    """Perplexity over the reference's, minus 1, over the same items; above 0 is worse.

    The items are resampled together with the reference's, so that what makes an item hard for both
    cancels.

    Raises:
        ValueError: No items, or not as many on each side.
    """
    sums, reference = _column(log_probabilities), _column(reference_log_probabilities)
    counts = _column(token_counts)
    _check_same_length(sums, counts)
    _check_same_length(reference, counts)
    change = _bootstrap([sums - reference, counts], _perplexity, (0, math.inf))
    return Estimate(change.value - 1, change.low - 1, change.high - 1, change.count)


def ratio_of_rounds(values: ArrayLike, reference_values: ArrayLike) -> Estimate:
    """How many times the reference's a figure is, from rounds in which both were measured.

    The geometric mean of the ratios inside each round, so that what slows a round slows both, with
    Student's interval over their logs; of a single round all that is possible.

    Args:
        values: Above 0, one of each round.
        reference_values: The reference's in the same rounds.

    Raises:
        ValueError: No rounds, not as many on each side, or a value is not above 0.
    """
    column, reference = _column(values), _column(reference_values)
    _check_same_length(column, reference)
    if not (column.min() > 0 and reference.min() > 0):
        raise ValueError("a ratio is of values above 0")
    logs = np.log(column / reference)
    count, centre = len(logs), float(logs.mean())
    if count == 1:
        return Estimate(math.exp(centre), 0, math.inf, 1)
    error = float(logs.std(ddof=1)) / math.sqrt(count)
    margin = float(stdtrit(count - 1, 0.975)) * error
    low, high = math.exp(centre - margin), math.exp(centre + margin)
    return Estimate(math.exp(centre), low, high, count)


def smallest_difference(disagreement: float, count: int) -> float:
    """Return the smallest difference of two paired shares that so many samples could have shown.

    ``2.8 * sqrt(disagreement / count)`` (two-sided 5 %, power 80 %; the difference of a pair has
    at most the variance ``disagreement``), at most 1. Where no disagreement was seen, the upper
    end of its Wilson interval takes its place: the formula would say that any difference had been
    seen.

    Args:
        disagreement: Share of samples on which the two differ.
        count: Samples; 1 is the answer for none.
    """
    if count < 1:
        return 1.0
    likely = disagreement if disagreement > 0 else share(0, count).high
    return min(1.0, DETECTABLE_ERRORS * math.sqrt(likely / count))


def smallest_perplexity_change(change: Estimate) -> float:
    """Return the smallest change of the perplexity that the items could have shown.

    ``exp(2.8 * s) - 1`` with the standard error ``s`` of the log of the ratio, which follows from
    its interval; infinite for a single item.
    """
    if change.count < 2:
        return math.inf
    error = (math.log1p(change.high) - math.log1p(change.low)) / (2 * Z_95)
    return math.expm1(DETECTABLE_ERRORS * error)


def _mean(values: Any, *, axis: int) -> Any:
    return values.mean(axis=axis)


def _perplexity(sums: Any, counts: Any, *, axis: int) -> Any:
    return np.exp(-sums.sum(axis=axis) / counts.sum(axis=axis))


def _bootstrap(
    columns: Sequence[NDArray[np.float64]],
    statistic: Callable[..., Any],
    bounds: tuple[float, float],
) -> Estimate:
    """Percentile bootstrap; of a single item the interval is all that is possible, ``bounds``."""
    count = len(columns[0])
    value = float(statistic(*columns, axis=-1))
    if count == 1:
        return Estimate(value, *bounds, 1)
    interval = stats.bootstrap(
        columns,
        statistic,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=NUM_RESAMPLES,
        batch=max(1, MAX_RESAMPLED // count),
        rng=np.random.default_rng(0),  # the same samples give the same interval
    ).confidence_interval
    return Estimate(value, float(interval.low), float(interval.high), count)


def _wilson(value: float, effective: float, count: int) -> Estimate:
    scale = 1 + Z_95**2 / effective
    centre = (value + Z_95**2 / (2 * effective)) / scale
    variance = value * (1 - value) / effective + Z_95**2 / (4 * effective**2)
    margin = Z_95 * math.sqrt(variance) / scale
    # At 0 and 1 an end is the value itself, but for rounding.
    low, high = min(max(0.0, centre - margin), value), max(min(1.0, centre + margin), value)
    return Estimate(value, low, high, count)


def _difference_of_shares(differences: NDArray[np.float64]) -> Estimate:
    count = len(differences)
    gained = (int(np.count_nonzero(differences > 0)) + 1) / (count + 2)
    lost = (int(np.count_nonzero(differences < 0)) + 1) / (count + 2)
    centre = gained - lost
    margin = Z_95 * math.sqrt((gained + lost - centre**2) / (count + 2))
    low, high = max(-1.0, centre - margin), min(1.0, centre + margin)
    return Estimate(float(differences.mean()), low, high, count)


def _column(values: ArrayLike) -> NDArray[np.float64]:
    column = np.asarray(values, np.float64)
    if len(column) == 0:
        raise ValueError("no values to estimate from")
    return column


def _check_same_length(first: NDArray[np.float64], second: NDArray[np.float64]) -> None:
    if len(first) != len(second):
        raise ValueError(f"{len(first)} values beside {len(second)}")
