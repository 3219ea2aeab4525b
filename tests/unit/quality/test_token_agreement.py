"""Tokens against values computed by hand; tolerances as of rows (``test_agreement.py``)."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.quality.token_agreement import compare_tokens, least_divergence
from serving.seams import TokenLogprob


def scored(token: int, probability: float, top: dict[int, float]) -> TokenLogprob:
    ordered = sorted(top.items(), key=lambda entry: -entry[1])
    return TokenLogprob(
        token, math.log(probability), tuple((other, math.log(p)) for other, p in ordered)
    )


def test_tokens_are_compared_by_first_choice_whatever_was_written() -> None:
    # First place: same first choice (1), though token 2 was drawn. Second: 1 against 3.
    tokens = [scored(2, 0.2, {1: 0.7, 2: 0.2}), scored(1, 0.6, {1: 0.6, 3: 0.3})]
    reference = [scored(2, 0.1, {1: 0.8, 2: 0.1}), scored(1, 0.3, {3: 0.5, 1: 0.3})]
    compared = compare_tokens(tokens, reference)
    assert compared.agreement == 0.5
    # mean(ln .2/.1, ln .6/.3) = ln 2: the reference is twice as perplexed as the writer.
    assert compared.measures["log_perplexity_ratio"] == pytest.approx(math.log(2), abs=1e-12)
    # KL, first:  .8 ln(.8/.7) + .1 ln(.1/.2) + .1 ln(.1/.1) = .106825 - .069315 = .037510
    #     second: .5 ln(.5/.3) + .3 ln(.3/.6) + .2 ln(.2/.1)
    #     = .255413 - .207944 + .138629 = .186098
    assert compared.measures["divergence"] == pytest.approx((0.037510 + 0.186098) / 2, abs=1e-6)


def test_a_tie_is_told_from_a_choice_where_two_part_for_the_first_time() -> None:
    same = scored(1, 0.6, {1: 0.6, 2: 0.3})
    # The reference holds 3 for .41 and 4, which the variant prefers, for .40; then 5 and 6.
    tokens = [same, scored(4, 0.41, {4: 0.41, 3: 0.4}), scored(6, 0.9, {6: 0.9})]
    reference = [same, scored(4, 0.4, {3: 0.41, 4: 0.4}), scored(6, 0.1, {5: 0.8, 6: 0.1})]
    compared = compare_tokens(tokens, reference)
    assert compared.measures["first_gap"] == pytest.approx(math.log(0.41 / 0.4), abs=1e-12)
    assert "first_gap" not in compare_tokens([same], [same]).measures


def test_a_choice_that_the_reference_does_not_list_counts_as_its_last() -> None:
    tokens, reference = [scored(9, 0.5, {9: 0.5})], [scored(9, 0.01, {1: 0.5, 2: 0.2})]
    compared = compare_tokens(tokens, reference)
    assert compared.measures["first_gap"] == pytest.approx(math.log(0.5 / 0.2), abs=1e-12)


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
