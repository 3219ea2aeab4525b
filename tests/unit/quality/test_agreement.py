"""Each measure against values computed by hand.

The tolerance is that of float64 (1e-12), or of rows given in float32 and of sums by hand (1e-6).
"""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.quality.agreement import (
    NUM_NEIGHBOURS,
    compare_classification,
    compare_embeddings,
    compare_tokens,
    least_divergence,
)
from serving.seams import TokenLogprob


def at(*degrees: float) -> NDArray[np.float32]:
    """Unit vectors in the plane."""
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], -1).astype(np.float32)


def scored(token: int, probability: float, top: dict[int, float]) -> TokenLogprob:
    ordered = sorted(top.items(), key=lambda entry: -entry[1])
    return TokenLogprob(
        token, math.log(probability), tuple((other, math.log(p)) for other, p in ordered)
    )


PROBES = at(*range(0, 60, 3))  # twenty: 0, 3, … 57 degrees


def test_equal_embeddings_agree_wholly() -> None:
    same = compare_embeddings(at(1)[0], at(1)[0], PROBES, PROBES)
    assert same.agreement == 1.0
    assert same.cosine == pytest.approx(1.0, abs=1e-6)


def test_an_embedding_turned_by_two_probes_loses_two_of_its_neighbours() -> None:
    # The ten nearest to 0° are the probes at 0 … 27°. The probes nearest to 19° are those at
    # 6 … 33° (distances 13, 10, 7, 4, 1, 2, 5, 8, 11, 14): eight in common.
    turned = compare_embeddings(at(19)[0], at(0)[0], PROBES, PROBES)
    assert turned.agreement == 0.8
    assert turned.cosine == pytest.approx(math.cos(math.radians(19)), abs=1e-6)


def test_a_variant_that_turns_every_vector_finds_the_same_neighbours() -> None:
    # An index made by the variant itself is asked, so that a common rotation costs nothing.
    turned = compare_embeddings(at(91)[0], at(1)[0], at(*range(90, 150, 3)), PROBES)
    assert turned.agreement == 1.0
    assert turned.cosine == pytest.approx(0, abs=1e-6)


def test_a_probe_does_not_find_itself() -> None:
    # The probe at 0° left out, the ten nearest to it are 3 … 30°; to 19° still 6 … 33°: nine.
    turned = compare_embeddings(at(19)[0], at(0)[0], PROBES, PROBES, leave_out=0)
    assert turned.agreement == 0.9


def test_probes_are_cut_to_the_dimensions_of_the_request() -> None:
    # A third dimension that would turn the order round, were it not cut.
    third = np.linspace(0, 100, len(PROBES), dtype=np.float32)[:, None]
    cut = compare_embeddings(at(1)[0], at(1)[0], np.hstack([PROBES, third]), PROBES)
    assert cut.agreement == 1.0


@pytest.mark.parametrize("broken", [0.0, math.nan, math.inf])
def test_a_broken_embedding_agrees_in_nothing(broken: float) -> None:
    row = np.array([broken, 0], np.float32)
    compared = compare_embeddings(row, at(0)[0], PROBES, PROBES)
    assert (compared.agreement, compared.cosine) == (0, 0)
    with pytest.raises(ValueError, match="reference's embedding"):
        compare_embeddings(at(0)[0], row, PROBES, PROBES)


def test_a_zero_probe_is_no_neighbour() -> None:
    probes = np.vstack([at(*range(NUM_NEIGHBOURS)), np.zeros((1, 2), np.float32)])
    assert compare_embeddings(at(0)[0], at(0)[0], probes, probes).agreement == 1.0


def test_the_same_label_with_another_probability() -> None:
    # Middle (.8, .2); JS = ½(.9 ln(.9/.8) + .1 ln(.1/.2)) + ½(.7 ln(.7/.8) + .3 ln(.3/.2))
    # = ½(.106005 - .069315) + ½(-.093472 + .121640) = .032429
    compared = compare_classification(
        np.array([0.7, 0.3], np.float32), np.array([0.9, 0.1], np.float32)
    )
    assert compared.agreement == 1.0
    assert compared.probability_change == pytest.approx(0.2, abs=1e-6)
    assert compared.divergence == pytest.approx(0.032429, abs=1e-6)


def test_the_opposite_label_is_ln_2_away() -> None:
    compared = compare_classification(np.array([0, 1], np.float32), np.array([1, 0], np.float32))
    assert (compared.agreement, compared.probability_change) == (0.0, 1.0)
    assert compared.divergence == pytest.approx(math.log(2), abs=1e-12)


def test_independent_labels_agree_where_the_same_ones_are_above_one_half() -> None:
    # The most probable label changes, the set {0, 1} does not. Only the first label's probability
    # changes, .9 → .7: of three labels the mean is the .032429 of above / 3.
    reference = np.array([0.9, 0.8, 0.2], np.float32)
    compared = compare_classification(np.array([0.7, 0.8, 0.2], np.float32), reference)
    assert compared.agreement == 1.0
    assert compared.divergence == pytest.approx(0.032429 / 3, abs=1e-6)
    lost = compare_classification(np.array([0.9, 0.4, 0.2], np.float32), reference)
    assert lost.agreement == 0.0


def test_a_single_label_is_independent_even_at_probability_1() -> None:
    compared = compare_classification(np.array([0], np.float32), np.array([1], np.float32))
    assert compared.agreement == 0.0
    assert compared.divergence == pytest.approx(math.log(2), abs=1e-12)


def test_broken_probabilities_agree_in_nothing() -> None:
    broken, fine = np.array([np.nan, np.nan], np.float32), np.array([0.5, 0.5], np.float32)
    compared = compare_classification(broken, fine)
    assert compared.agreement == 0.0
    assert (compared.probability_change, compared.divergence) == (1.0, math.log(2))
    with pytest.raises(ValueError, match="reference's probabilities"):
        compare_classification(fine, broken)


def test_tokens_are_compared_by_first_choice_whatever_was_written() -> None:
    # First place: same first choice (1), though token 2 was drawn. Second: 1 against 3.
    tokens = [scored(2, 0.2, {1: 0.7, 2: 0.2}), scored(1, 0.6, {1: 0.6, 3: 0.3})]
    reference = [scored(2, 0.1, {1: 0.8, 2: 0.1}), scored(1, 0.3, {3: 0.5, 1: 0.3})]
    compared = compare_tokens(tokens, reference)
    assert compared.agreement == 0.5
    # mean(ln .2/.1, ln .6/.3) = ln 2: the reference is twice as perplexed as the writer.
    assert compared.log_perplexity_ratio == pytest.approx(math.log(2), abs=1e-12)
    # KL, first:  .8 ln(.8/.7) + .1 ln(.1/.2) + .1 ln(.1/.1) = .106825 - .069315 = .037510
    #     second: .5 ln(.5/.3) + .3 ln(.3/.6) + .2 ln(.2/.1)
    #     = .255413 - .207944 + .138629 = .186098
    assert compared.divergence == pytest.approx((0.037510 + 0.186098) / 2, abs=1e-6)


def test_tokens_must_be_the_same_and_at_least_one() -> None:
    one = scored(1, 0.5, {1: 0.5})
    with pytest.raises(ValueError, match="no tokens"):
        compare_tokens([], [])
    for other in ([], [scored(2, 0.5, {2: 0.5})], [one, one]):
        with pytest.raises(ValueError, match="other tokens"):
            compare_tokens([one], other)
    with pytest.raises(ValueError, match="finite"):
        compare_tokens([TokenLogprob(1, -math.inf, one.top)], [one])


def test_models_that_share_no_likely_token_diverge() -> None:
    # The reference's cell {1, 2} has .9; the variant, whose second token has .1, gives each of them
    # at most .1, so at most .2 together: .9 ln(.9/.2) + .1 ln(.1/.8) = 1.353670 - .207944.
    variant = scored(3, 0.6, {3: 0.6, 4: 0.1})
    reference = scored(3, 0.05, {1: 0.6, 2: 0.3})
    assert least_divergence(variant, reference) == pytest.approx(1.145726, abs=1e-6)


def test_the_bound_is_never_above_the_true_divergence_and_0_for_itself() -> None:
    rng = np.random.default_rng(3)
    for sharpness in (0.5, 2, 6):
        for noise in (0.1, 1, 4):
            logits = sharpness * rng.normal(size=200)
            p, q = (_softmax(logits), _softmax(logits + noise * rng.normal(size=200)))
            bound = least_divergence(_top(q), _top(p))
            true = float(np.sum(p * np.log(p / q)))
            # MASS_RESOLUTION may add some 1e-6 times a log.
            assert 0 <= bound <= true + 1e-4
            assert least_divergence(_top(p), _top(p)) == pytest.approx(0, abs=1e-12)
    assert bound > 1  # the last pair, sharp and far apart


def test_a_certain_token_whose_rest_is_lost_in_rounding_does_not_diverge() -> None:
    # 1 - p is 0 or below here; the masses of the rest are held at 1e-6.
    certain = TokenLogprob(1, 0.0, ((1, 0.0), (2, -40.0)))
    nearly = TokenLogprob(1, 1e-7, ((1, 1e-7), (2, -60.0)))
    assert least_divergence(certain, nearly) == pytest.approx(0, abs=1e-6)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.exp(logits - logits.max())
    return weights / weights.sum()


def _top(p: NDArray[np.float64], count: int = 20) -> TokenLogprob:
    order = np.argsort(-p)[:count].tolist()
    return TokenLogprob(order[0], math.log(p[order[0]]), tuple((t, math.log(p[t])) for t in order))
