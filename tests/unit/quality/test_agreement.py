"""Each measure of rows against values computed by hand.

The tolerance is that of float64 (1e-12), or of rows given in float32 and of sums by hand (1e-6).
"""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.quality.agreement import (
    NUM_NEIGHBOURS,
    classification_judging,
    compare_rows,
    embeddings_judging,
)
from serving.seams import Comparison, ProbeRows


def at(*degrees: float) -> NDArray[np.float32]:
    """Unit vectors in the plane."""
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], -1).astype(np.float32)


PROBES = at(*range(0, 60, 3))  # twenty: 0, 3, … 57 degrees


def compare_embeddings(
    row: NDArray[np.float32],
    reference: NDArray[np.float32],
    neighbours: NDArray[np.float32] = PROBES,
    leave_out: int | None = None,
) -> Comparison:
    probes = ProbeRows(neighbours, PROBES, leave_out)
    return compare_rows(embeddings_judging(), row, reference, probes)


def compare_classification(row: list[float], reference: list[float]) -> Comparison:
    rows = np.array([row, reference], np.float32)
    return compare_rows(classification_judging(), rows[0], rows[1], None)


def test_equal_embeddings_agree_wholly() -> None:
    same = compare_embeddings(at(1)[0], at(1)[0])
    assert same.agreement == 1.0
    assert same.measures["cosine"] == pytest.approx(1.0, abs=1e-6)


def test_an_embedding_turned_by_two_probes_loses_two_of_its_neighbours() -> None:
    # The ten nearest to 0° are the probes at 0 … 27°. The probes nearest to 19° are those at
    # 6 … 33° (distances 13, 10, 7, 4, 1, 2, 5, 8, 11, 14): eight in common.
    turned = compare_embeddings(at(19)[0], at(0)[0])
    assert turned.agreement == 0.8
    assert turned.measures["cosine"] == pytest.approx(math.cos(math.radians(19)), abs=1e-6)


def test_a_variant_that_turns_every_vector_finds_the_same_neighbours() -> None:
    # An index made by the variant itself is asked, so that a common rotation costs nothing.
    turned = compare_embeddings(at(91)[0], at(1)[0], at(*range(90, 150, 3)))
    assert turned.agreement == 1.0
    assert turned.measures["cosine"] == pytest.approx(0, abs=1e-6)


def test_a_probe_does_not_find_itself() -> None:
    # The probe at 0° left out, the ten nearest to it are 3 … 30°; to 19° still 6 … 33°: nine.
    turned = compare_embeddings(at(19)[0], at(0)[0], leave_out=0)
    assert turned.agreement == 0.9


def test_probes_are_cut_to_the_dimensions_of_the_request() -> None:
    # A third dimension that would turn the order round, were it not cut.
    third = np.linspace(0, 100, len(PROBES), dtype=np.float32)[:, None]
    cut = compare_embeddings(at(1)[0], at(1)[0], np.hstack([PROBES, third]))
    assert cut.agreement == 1.0


@pytest.mark.parametrize("broken", [0.0, math.nan, math.inf])
def test_a_broken_embedding_agrees_in_nothing(broken: float) -> None:
    row = np.array([broken, 0], np.float32)
    compared = compare_embeddings(row, at(0)[0])
    assert compared == Comparison(0.0, {"cosine": 0.0})
    with pytest.raises(ValueError, match="reference's embedding"):
        compare_embeddings(at(0)[0], row)


def test_a_zero_probe_is_no_neighbour() -> None:
    probes = np.vstack([at(*range(NUM_NEIGHBOURS)), np.zeros((1, 2), np.float32)])
    among = ProbeRows(probes, probes)
    same = compare_rows(embeddings_judging(), at(0)[0], at(0)[0], among)
    assert same.agreement == 1.0


def test_the_same_label_with_another_probability() -> None:
    # Middle (.8, .2); JS = ½(.9 ln(.9/.8) + .1 ln(.1/.2)) + ½(.7 ln(.7/.8) + .3 ln(.3/.2))
    # = ½(.106005 - .069315) + ½(-.093472 + .121640) = .032429
    compared = compare_classification([0.7, 0.3], [0.9, 0.1])
    assert compared.agreement == 1.0
    assert compared.measures["probability_change"] == pytest.approx(0.2, abs=1e-6)
    assert compared.measures["divergence"] == pytest.approx(0.032429, abs=1e-6)


def test_the_opposite_label_is_ln_2_away() -> None:
    compared = compare_classification([0, 1], [1, 0])
    assert (compared.agreement, compared.measures["probability_change"]) == (0.0, 1.0)
    assert compared.measures["divergence"] == pytest.approx(math.log(2), abs=1e-12)


def test_independent_labels_agree_where_the_same_ones_are_above_one_half() -> None:
    # The most probable label changes, the set {0, 1} does not. Only the first label's probability
    # changes, .9 → .7: of three labels the mean is the .032429 of above / 3.
    reference = [0.9, 0.8, 0.2]
    compared = compare_classification([0.7, 0.8, 0.2], reference)
    assert compared.agreement == 1.0
    assert compared.measures["divergence"] == pytest.approx(0.032429 / 3, abs=1e-6)
    lost = compare_classification([0.9, 0.4, 0.2], reference)
    assert lost.agreement == 0.0


def test_a_single_label_is_independent_even_at_probability_1() -> None:
    compared = compare_classification([0], [1])
    assert compared.agreement == 0.0
    assert compared.measures["divergence"] == pytest.approx(math.log(2), abs=1e-12)


def test_broken_probabilities_agree_in_nothing() -> None:
    broken, fine = [np.nan, np.nan], [0.5, 0.5]
    compared = compare_classification(broken, fine)
    assert compared.agreement == 0.0
    assert compared.measures == {"probability_change": 1.0, "divergence": math.log(2)}
    with pytest.raises(ValueError, match="reference's probabilities"):
        compare_classification(fine, broken)


def test_values_of_a_regression_agree_the_less_the_further_they_are_off() -> None:
    equal = compare_classification([2.5, -3], [2.5, -3])
    assert (equal.agreement, equal.measures) == (1, {"score_change": 0})
    off = compare_classification([2.5, -4], [2.5, -3.2])
    assert off.agreement == pytest.approx(0.75)  # 0.8 of 3.2
    assert off.measures == {"score_change": pytest.approx(0.8)}
    assert compare_classification([9.0], [-2.0]).agreement == 0
    broken = compare_classification([float("nan")], [-2.0])
    assert (broken.agreement, broken.measures) == (0, {})


def test_a_value_beyond_the_probabilities_of_the_reference_has_a_divergence() -> None:
    measures = compare_classification([1.25], [1.0]).measures
    assert measures == {"probability_change": 0.25, "divergence": 0}
