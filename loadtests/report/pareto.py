"""Which variants are dominated, and which the samples cannot tell apart.

A variant is a row of estimates, one per axis, of which less is better; ``negated`` turns round
those of which more is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from loadtests.results import Estimate

Row = Sequence[Estimate]


def negated(estimate: Estimate) -> Estimate:
    """The estimate of the opposite number."""
    low, high = estimate.low, estimate.high
    return Estimate(
        value=-estimate.value,
        low=None if high is None else -high,
        high=None if low is None else -low,
    )


def exactly(value: float) -> Estimate:
    """Of a number that is known without sampling."""
    return Estimate(value=value, low=value, high=value)


def overlap(one: Estimate, other: Estimate) -> bool:
    """Whether the two intervals have a point in common; an unknown end is infinitely far away.

    A careful rule: two means that are equally sure overlap up to a difference of twice their half
    width, where a test finds a difference from 1.4 times on.
    """
    return _low(one) <= _high(other) and _low(other) <= _high(one)


def are_alike(one: Row, other: Row) -> bool:
    """Whether the samples cannot tell two variants apart: their intervals overlap on each axis."""
    return all(overlap(a, b) for a, b in zip(one, other, strict=True))


def dominates(one: Row, other: Row) -> bool:
    """Whether one is no worse on any axis, and on at least one better beyond the intervals.

    Without the second half a variant would be dismissed for noise.
    """
    pairs = list(zip(one, other, strict=True))
    return all(a.value <= b.value for a, b in pairs) and not are_alike(one, other)


def dominated(rows: Mapping[str, Row]) -> set[str]:
    """Names of the variants that some other one dominates."""
    return {name for name, row in rows.items() if any(dominates(o, row) for o in rows.values())}


def alike(rows: Mapping[str, Row]) -> list[tuple[str, str]]:
    """Pairs of variants that the samples cannot tell apart."""
    return [(a, b) for a, b in combinations(rows, 2) if are_alike(rows[a], rows[b])]


def _low(estimate: Estimate) -> float:
    return float("-inf") if estimate.low is None else estimate.low


def _high(estimate: Estimate) -> float:
    return float("inf") if estimate.high is None else estimate.high
