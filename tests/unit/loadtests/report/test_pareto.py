"""Dominance and what cannot be told apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loadtests.report.pareto import alike, are_alike, dominated, dominates, exactly, negated
from loadtests.results import Estimate

VALUES = st.integers(-5, 5).map(float)


@st.composite
def estimates(draw: st.DrawFn) -> Estimate:
    value, below, above = draw(VALUES), draw(st.integers(0, 3)), draw(st.integers(0, 3))
    return Estimate(value=value, low=value - below, high=value + above)


ROWS = st.lists(st.tuples(estimates(), estimates(), estimates()), min_size=1, max_size=6)


def between(low: float, high: float) -> Estimate:
    return Estimate(value=(low + high) / 2, low=low, high=high)


@given(ROWS)
def test_nobody_dominates_itself_and_no_two_dominate_each_other(rows) -> None:
    for one in rows:
        assert not dominates(one, one)
        assert not any(dominates(one, other) and dominates(other, one) for other in rows)


@given(ROWS)
def test_somebody_is_never_dominated(rows) -> None:
    named = {str(number): row for number, row in enumerate(rows)}
    assert dominated(named) < named.keys()


@given(ROWS)
def test_whoever_dominates_can_be_told_apart(rows) -> None:
    named = {str(number): row for number, row in enumerate(rows)}
    for one, other in alike(named):
        assert not dominates(named[one], named[other])
        assert not dominates(named[other], named[one])


@given(st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=6))
def test_without_intervals_it_is_the_usual_dominance(points) -> None:
    rows = [tuple(exactly(value) for value in point) for point in points]
    for one, row in zip(points, rows, strict=True):
        for other, other_row in zip(points, rows, strict=True):
            usual = all(a <= b for a, b in zip(one, other, strict=True)) and one != other
            assert dominates(row, other_row) == usual
            assert are_alike(row, other_row) == (one == other)


def test_noise_alone_does_not_dominate() -> None:
    better, worse = (between(1, 3), between(5, 7)), (between(2, 4), between(6, 8))
    assert not dominates(better, worse)
    assert are_alike(better, worse)
    assert dominates((between(1, 1.5), between(5, 7)), worse)


def test_a_worse_value_on_one_axis_saves_from_dominance() -> None:
    assert not dominates((exactly(1), exactly(3)), (exactly(2), exactly(2)))


def test_an_unknown_end_is_infinitely_far() -> None:
    assert are_alike((Estimate(value=1),), (exactly(100),))


def test_negated_turns_the_interval_round() -> None:
    assert negated(Estimate(value=2, low=1, high=5)) == Estimate(value=-2, low=-5, high=-1)
    assert negated(Estimate(value=2)) == Estimate(value=-2)
