"""Which variants are dominated, and which the samples cannot tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from loadtests.report.axes import Axis
from loadtests.results import VariantResult


def are_alike(axes: Sequence[Axis], one: VariantResult, other: VariantResult) -> bool:
    """Whether no axis can tell the two apart, and each knows."""
    return all(axis.can_tell(one, other) is False for axis in axes)


def dominates(axes: Sequence[Axis], one: VariantResult, other: VariantResult) -> bool:
    """Whether one is no worse on any axis, and on at least one beyond doubt better.

    Without the second half a variant would be dismissed for noise. None dominates where an axis
    does not know how sure a difference is.
    """
    told = [axis.can_tell(one, other) for axis in axes]
    return None not in told and any(told) and all(a.is_no_worse(one, other) for a in axes)


def dominated(axes: Sequence[Axis], variants: Sequence[VariantResult]) -> set[str]:
    """Names of the variants that some other one dominates."""
    return {v.variant for v in variants if any(dominates(axes, other, v) for other in variants)}


def alike(axes: Sequence[Axis], variants: Sequence[VariantResult]) -> list[tuple[str, str]]:
    """Pairs of variants that the samples cannot tell apart."""
    pairs = combinations(variants, 2)
    return [(a.variant, b.variant) for a, b in pairs if are_alike(axes, a, b)]
