"""How far two variants are apart, or two runs of one, and how sure that is.

Turns of one round have the same requests at the same times, and so have rounds of one number in
two runs of one plan: what such a pair shares cancels in its difference. So differences are taken
pair by pair, and Student's t is over the pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr, stdtrit

from loadtests.intervals import exp, t_quantile
from loadtests.results import IntervalEstimate
from loadtests.samples import Floats, RequestSamples

LEVEL = 0.05
POWER = 0.8


@dataclass(frozen=True, slots=True)
class Difference:
    """Of the second from the first.

    Attributes:
        value: Mean difference, of the logs of figures or of shares.
        error: Its standard error.
        freedom: Degrees of Student's t.
        is_ratio: Whether it is of logs.
    """

    value: float
    error: float
    freedom: float
    is_ratio: bool = False

    @property
    def half_width(self) -> float:
        """Of the 95 % interval."""
        return t_quantile(self.freedom) * self.error

    @property
    def is_sure(self) -> bool:
        """Whether the 95 % interval leaves out that there is no difference."""
        return abs(self.value) > self.half_width

    @property
    def estimate(self) -> IntervalEstimate:
        """The ratio, or the difference of shares, with its 95 % interval."""
        low, high = self.value - self.half_width, self.value + self.half_width
        if self.is_ratio:
            return IntervalEstimate(value=exp(self.value), low=exp(low), high=exp(high))
        return IntervalEstimate(value=self.value, low=low, high=high)

    @property
    def p_value(self) -> float:
        """Of the t-test that there is no difference."""
        if self.error == 0:
            return float(self.value == 0)
        return float(2 * stdtr(self.freedom, -abs(self.value) / self.error))

    def smallest(self, level: float) -> float:
        """The least difference that a test at this level finds in 4 of 5 cases.

        ``(t(1 - level / 2) + t(0.8)) * error``; of a ratio, by how much it is above 1.
        """
        found = float(stdtrit(self.freedom, 1 - level / 2) + stdtrit(self.freedom, POWER))
        return exp(found * self.error) - 1 if self.is_ratio else found * self.error


def exact(one: float, other: float) -> Difference:
    """Of numbers that are not sampled."""
    return Difference(other - one, 0, math.inf)


def ratio(
    one: IntervalEstimate | None, other: IntervalEstimate | None, *, paired: bool = True
) -> Difference | None:
    """Of two figures above 0, by the logs of their rounds.

    Args:
        one: A figure made of rounds' figures.
        other: The same of the other.
        paired: Whether rounds of the same number had the same requests at the same times.

    Returns:
        None without two rounds to go by, or where a figure of them is not above 0.
    """
    if one is None or other is None:
        return None
    if paired:
        both = zip(one.by_round, other.by_round, strict=False)
        rows = [(a, b) for a, b in both if a is not None and b is not None]
        if any(min(row) <= 0 for row in rows):
            return None
        return _student(np.array([math.log(b / a) for a, b in rows]), is_ratio=True)
    sides = [[x for x in side.by_round if x is not None] for side in (one, other)]
    if any(min(side, default=0) <= 0 for side in sides):
        return None
    return _welch(np.log(sides[0]), np.log(sides[1]), is_ratio=True)


@dataclass(frozen=True, slots=True)
class Shares:
    """What requests add to a share, each (requests,).

    Attributes:
        round: From 0.
        index: Of the request within its round.
        value: 0 to 1.
    """

    round: Floats
    index: Floats
    value: Floats


def shares(samples: RequestSamples, value: Floats) -> Shares:
    """Of the requests whose value is not NaN."""
    known = ~np.isnan(value)
    return Shares(samples.round[known], samples.index[known], value[known])


def over_requests(one: Shares, other: Shares, *, paired: bool = True) -> Difference | None:
    """Of shares of requests that do not depend on one another; None without two.

    The standard error of values that are 0 or 1 is that of the adjusted Wald intervals, for pairs
    (Bonett and Price, 2012) and two samples (Agresti and Caffo, 2000): two made-up requests more.
    Without them three rounds in which nothing failed would prove that nothing ever does.
    """
    if paired:
        _, a, b = _matched(one, other)
        found = _student(np.append(b - a, [1.0, -1.0] if _is_binary(a, b) else []))
    else:
        a, b = one.value, other.value
        made_up = [0.0, 1.0] if _is_binary(a, b) else []
        found = _welch(np.append(a, made_up), np.append(b, made_up))
    if found is None or not len(a) or not len(b):
        return None
    return replace(found, value=float(b.mean() - a.mean()))


def over_rounds(one: Shares, other: Shares, *, paired: bool = True) -> Difference | None:
    """Of the rounds' shares; None without two rounds."""
    if paired:
        round_, a, b = _matched(one, other)
        return _student(_means(round_, b - a))
    return _welch(_means(one.round, one.value), _means(other.round, other.value))


def wider(found: Sequence[Difference | None]) -> Difference | None:
    """That with the wider interval; None if there is none."""
    known = [difference for difference in found if difference is not None]
    return max(known, key=lambda difference: difference.half_width, default=None)


def _matched(one: Shares, other: Shares) -> tuple[Floats, Floats, Floats]:
    """Round and both values of the requests that both have."""
    keys, other_keys = (side.round * 2**32 + side.index for side in (one, other))
    _, mine, theirs = np.intersect1d(keys, other_keys, assume_unique=True, return_indices=True)
    return one.round[mine], one.value[mine], other.value[theirs]


def _means(rounds: Floats, values: Floats) -> Floats:
    return np.array([values[rounds == number].mean() for number in np.unique(rounds)])


def _is_binary(*columns: Floats) -> bool:
    return bool(np.isin(np.concatenate(columns), (0, 1)).all())


def _student(values: Floats, *, is_ratio: bool = False) -> Difference | None:
    if len(values) < 2:
        return None
    return Difference(float(values.mean()), _error(values), len(values) - 1, is_ratio)


def _welch(one: Floats, other: Floats, *, is_ratio: bool = False) -> Difference | None:
    """For means of unpaired values, with the degrees of freedom of Welch (1947)."""
    if min(len(one), len(other)) < 2:
        return None
    errors = _error(one), _error(other)
    error = math.hypot(*errors)
    parts = [e**4 / (len(side) - 1) for e, side in zip(errors, (one, other), strict=True)]
    freedom = error**4 / sum(parts) if sum(parts) else math.inf
    return Difference(float(other.mean() - one.mean()), error, freedom, is_ratio)


def _error(values: Floats) -> float:
    """Standard error of the mean; equal values have none, not even by rounding."""
    return float(values.std(ddof=1)) / len(values) ** 0.5 if np.ptp(values) > 1e-12 else 0.0
