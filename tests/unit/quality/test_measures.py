"""Measures by name, of one comparison and of many."""

import math

import pytest

from serving.quality.measures import plain, summarise
from serving.seams import Comparison


def test_logarithms_are_reported_as_what_they_are_of() -> None:
    measures = {"log_perplexity_ratio": math.log(2), "divergence": 0.5}
    assert plain(measures) == pytest.approx({"perplexity_ratio": 2.0, "divergence": 0.5})


def test_what_is_beyond_all_floats_is_infinite() -> None:
    assert plain({"log_ratio": 1e6}) == {"ratio": math.inf}


def test_ratios_have_a_geometric_mean_and_others_an_arithmetic_one() -> None:
    comparisons = [Comparison(1.0, {"log_ratio": math.log(v), "other": v}) for v in (1.0, 4.0)]
    found = summarise(comparisons)
    assert found["ratio"].value == pytest.approx(2.0)
    assert found["other"].value == 2.5
    # Resamples of two are either, or both.
    assert (found["ratio"].low, found["ratio"].high) == pytest.approx((1.0, 4.0))


def test_nothing_compared_has_no_measures() -> None:
    assert summarise([]) == {}
    assert summarise([Comparison(0.0)]) == {}
