"""How close a generator's choices are to the reference's. Pure functions, computed in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import rel_entr

from serving.seams import Comparison, TokenLogprob

MASS_RESOLUTION = 1e-6
"""Float32 log-probabilities that should add up to 1 miss it by about so much."""


def compare_tokens(tokens: Sequence[TokenLogprob], reference: Sequence[TokenLogprob]) -> Comparison:
    """Compare what a variant wrote with the reference's score of the very same tokens.

    Agreement is the share of places at which both hold the same token for the most probable. Of a
    greedy answer that is the share of its tokens that the reference would have chosen; of a
    sampled one it still compares the models, and not how the dice fell. Measures are
    ``divergence`` (Kullback-Leibler, mean of the tokens, in nats) and ``log_perplexity_ratio``
    (the reference's perplexity on the text over the variant's own); where the two part,
    ``first_gap`` says by how much the reference preferred its own token at the first place (in
    nats, see ``gap``): next to nothing is a tie, which any other order of sums would break.

    Args:
        tokens: The variant's, each with its most probable ones, at least one.
        reference: The reference's score of each.

    Raises:
        ValueError: No tokens, not the same ones, or one without a finite log-probability.
    """
    if not tokens:
        raise ValueError("no tokens to compare")
    if [token.token for token in tokens] != [token.token for token in reference]:
        raise ValueError("the reference scored other tokens than the variant wrote")
    pairs = list(zip(tokens, reference, strict=True))
    log_ratios = [own.logprob - theirs.logprob for own, theirs in pairs]
    if not np.isfinite(log_ratios).all():
        raise ValueError("a token has no finite log-probability")
    measures = {
        "divergence": float(np.mean([least_divergence(own, theirs) for own, theirs in pairs])),
        "log_perplexity_ratio": float(np.mean(log_ratios)),
    }
    parted = [(own, theirs) for own, theirs in pairs if own.top[0][0] != theirs.top[0][0]]
    if parted:
        measures["first_gap"] = gap(*parted[0])
    agreement = float(np.mean([own.top[0][0] == theirs.top[0][0] for own, theirs in pairs]))
    return Comparison(agreement=agreement, measures=measures)


def gap(variant: TokenLogprob, reference: TokenLogprob) -> float:
    """How much more probable the reference holds its own choice than the variant's, in nats.

    A choice that is none of the reference's most probable tokens counts as the last of them: at
    least so much.
    """
    (_, best), *_ = reference.top
    known = dict(reference.top)
    return best - known.get(variant.top[0][0], min(known.values()))


def least_divergence(variant: TokenLogprob, reference: TokenLogprob) -> float:
    """Bound KL(reference ‖ variant) of the next token from below, in nats.

    Only the most probable tokens of each are known. Merging tokens into cells cannot enlarge a
    divergence (data-processing inequality: Cover and Thomas, Elements of Information Theory, 2nd
    ed., theorem 2.7.1), so that of any partition is a lower bound. The cells are: each token that
    both have among their most probable; the ones that only the reference has there; all others.
    What the variant gives to the second cell is not known, but each token in it has at most the
    probability of the least of the variant's most probable ones; within that limit it is taken as
    what makes the divergence least. Without that cell, two models that share none of their most
    probable tokens would seem to be the same.
    """
    p, q = dict(reference.top), dict(variant.top)
    both = p.keys() & q.keys()
    alone = p.keys() - q.keys()
    shared = sum(math.exp(p[token]) * (p[token] - q[token]) for token in both)
    p_rest = max(1 - sum(math.exp(p[token]) for token in both), MASS_RESOLUTION)
    q_rest = max(1 - sum(math.exp(q[token]) for token in both), MASS_RESOLUTION)
    p_alone = min(sum(math.exp(p[token]) for token in alone), p_rest)
    q_alone = min(q_rest * p_alone / p_rest, len(alone) * math.exp(min(q.values())))
    rest = rel_entr(p_alone, max(q_alone, np.finfo(np.float64).tiny)) + rel_entr(
        p_rest - p_alone, q_rest - q_alone
    )
    return max(0.0, float(shared + rest))
