"""Dominance and what cannot be told apart."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from loadtests.report.axes import Axis
from loadtests.report.difference import Difference
from loadtests.report.pareto import alike, are_alike, dominated, dominates
from loadtests.results import IntervalEstimate, VariantResult

VALUES = st.integers(-5, 5).map(float)


class Row(VariantResult):
    """A variant that is nothing but its figures."""

    figures: tuple[float, ...] = ()


def figures(variant: VariantResult) -> tuple[float, ...]:
    assert isinstance(variant, Row)
    return variant.figures


def axis(place: int, error: float, *, more_is_better: bool = False) -> Axis:
    return Axis(
        f"axis {place}",
        lambda row: IntervalEstimate(value=figures(row)[place]),
        lambda one, other: Difference(figures(other)[place] - figures(one)[place], error, math.inf),
        more_is_better=more_is_better,
    )


EXACT = [axis(0, 0), axis(1, 0, more_is_better=True), axis(2, 0)]
NOISY = [axis(0, 1), axis(1, 0.7, more_is_better=True), axis(2, 0)]
POINTS = st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=6)


def rows(points: list[tuple[float, ...]]) -> list[Row]:
    # What else a variant has, no axis here looks at.
    return [Row.model_construct(variant=str(n), figures=point) for n, point in enumerate(points)]


@given(POINTS)
def test_no_two_dominate_each_other_and_somebody_is_never_dominated(points) -> None:
    made = rows(points)
    for one in made:
        assert not any(dominates(NOISY, a, one) and dominates(NOISY, one, a) for a in made)
    assert dominated(NOISY, made) < {row.variant for row in made}


@given(POINTS)
def test_whoever_dominates_can_be_told_apart(points) -> None:
    made = rows(points)
    for one, other in alike(NOISY, made):
        a, b = made[int(one)], made[int(other)]
        assert not dominates(NOISY, a, b)
        assert not dominates(NOISY, b, a)


@given(POINTS)
def test_without_noise_it_is_the_usual_dominance(points) -> None:
    for one in rows(points):
        for other in rows(points):
            a, b = one.figures, other.figures
            usual = a[0] <= b[0] and a[1] >= b[1] and a[2] <= b[2] and a != b
            assert dominates(EXACT, one, other) == usual
            assert are_alike(EXACT, one, other) == (a == b)


def test_noise_alone_does_not_dominate() -> None:
    better, worse, much_worse = rows([(2, 6, 0), (3, 5, 0), (6, 5, 0)])
    assert not dominates(NOISY, better, worse)
    assert are_alike(NOISY, better, worse)
    assert dominates(NOISY, better, much_worse)


def test_an_axis_that_knows_no_difference_judges_nobody() -> None:
    unknown = Axis("rate", lambda row: IntervalEstimate(value=figures(row)[0]), None)
    one, other = rows([(1, 1, 1), (9, 0, 9)])
    assert not dominates([unknown, *EXACT[1:]], one, other)
    assert not are_alike([unknown], one, other)
