"""How close a variant's answers are to the reference's. Pure functions, computed in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

from serving.seams import TokenLogprob

NUM_NEIGHBOURS = 10
"""Nearest probes that are compared; there must be more probes than that."""

MASS_RESOLUTION = 1e-6
"""Float32 log-probabilities that should add up to 1 miss it by about so much."""

SUM_TOLERANCE = 1e-4
"""A float32 softmax adds up to 1 within some 1e-6."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One answer of a variant beside the reference's; what its task does not have is None.

    Attributes:
        agreement: 0 … 1; see ``SourceReport.measures``.
        cosine: Of the angle between two embeddings.
        probability_change: The largest of any label, absolute.
        divergence: Classification: Jensen-Shannon, 0 … ln 2; generation: Kullback-Leibler, mean
            of the tokens. In nats.
        log_perplexity_ratio: Log of the reference's perplexity on a generated text over the
            variant's own.
    """

    agreement: float
    cosine: float | None = None
    probability_change: float | None = None
    divergence: float | None = None
    log_perplexity_ratio: float | None = None


def compare_embeddings(
    row: NDArray[np.float32],
    reference_row: NDArray[np.float32],
    neighbours: NDArray[np.float32],
    reference_neighbours: NDArray[np.float32],
    leave_out: int | None = None,
) -> Comparison:
    """Compare two embeddings of one text: their cosine, and whether they find the same probes.

    Agreement is the share of the ``NUM_NEIGHBOURS`` probes nearest to the reference's row, among
    the reference's vectors, that are also nearest to the variant's row, among the variant's: what
    a search over an index that the same variant made would return.

    A row of the variant that is zero, NaN or infinite agrees in nothing.

    Args:
        row: The variant's vector, (width,).
        reference_row: The reference's, of the same shape.
        neighbours: The variant's vectors of the probes, (probes, width or more). Where they are
            longer, because the request cut the dimensions, their leading ones count.
        reference_neighbours: The reference's, of the same shape.
        leave_out: Index of the probe that the text is, so that it does not find itself.

    Raises:
        ValueError: The reference's row is zero, NaN or infinite.
    """
    unit, reference_unit = _unit(row), _unit(reference_row)
    if not reference_unit.any():
        raise ValueError("the reference's embedding is zero, NaN or infinite")
    if not unit.any():
        return Comparison(agreement=0.0, cosine=0.0)
    found = _nearest(unit, neighbours, leave_out)
    expected = _nearest(reference_unit, reference_neighbours, leave_out)
    return Comparison(
        agreement=len(found & expected) / NUM_NEIGHBOURS,
        cosine=float(np.clip(unit @ reference_unit, -1, 1)),
    )


def compare_classification(
    probabilities: NDArray[np.float32], reference: NDArray[np.float32]
) -> Comparison:
    """Compare the probabilities of the labels of one text, both (labels,).

    Whether the labels exclude each other shows in the reference's probabilities alone, so that a
    broken variant cannot change what is measured: they do if there is more than one and they add
    up to 1 within ``SUM_TOLERANCE``. Then the answers agree if the most probable label is the
    same, and the divergence is that of the two distributions. Else each label has a probability of
    its own: the answers agree if the same labels are above one half, and the divergence is the
    mean of the labels' own. Independent labels that add up to 1 by chance, about once in some
    thousand texts, are measured in the first way, which makes sense for them, too.

    A variant's row with NaN or infinity agrees in nothing.

    Raises:
        ValueError: The reference's row has NaN or infinity.
    """
    p, q = reference.astype(np.float64), probabilities.astype(np.float64)
    if not np.isfinite(p).all():
        raise ValueError("the reference's probabilities have NaN or infinity")
    if not np.isfinite(q).all():
        return Comparison(agreement=0.0, probability_change=1.0, divergence=math.log(2))
    if len(p) > 1 and abs(p.sum() - 1) < SUM_TOLERANCE:
        same = p.argmax() == q.argmax()
        divergence = _jensen_shannon(p, q)
    else:
        same = np.array_equal(p > 0.5, q > 0.5)
        divergence = _jensen_shannon(np.stack([p, 1 - p], -1), np.stack([q, 1 - q], -1)).mean()
    return Comparison(
        agreement=float(same),
        probability_change=float(np.abs(p - q).max()),
        divergence=float(divergence),
    )


def compare_tokens(tokens: Sequence[TokenLogprob], reference: Sequence[TokenLogprob]) -> Comparison:
    """Compare what a variant wrote with the reference's score of the very same tokens.

    Agreement is the share of places at which both hold the same token for the most probable. Of a
    greedy answer that is the share of its tokens that the reference would have chosen; of a
    sampled one it still compares the models, and not how the dice fell.

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
    return Comparison(
        agreement=float(np.mean([own.top[0][0] == theirs.top[0][0] for own, theirs in pairs])),
        divergence=float(np.mean([least_divergence(own, theirs) for own, theirs in pairs])),
        log_perplexity_ratio=float(np.mean(log_ratios)),
    )


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


def cosine_similarities(
    rows: NDArray[np.float32], reference: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Cosine of each row's angle to the reference's row, (texts,), computed in float64.

    Args:
        rows: The variant's vectors, (texts, width), none of them zero.
        reference: The reference's, of the same shape.
    """
    a, b = rows.astype(np.float64), reference.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    similarities: NDArray[np.float64] = np.einsum("ij,ij->i", a, b) / norms
    return similarities


def same_label_share(rows: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Share of texts whose most probable label is the reference's; rows are (texts, labels)."""
    return float((rows.argmax(axis=1) == reference.argmax(axis=1)).mean())


def _nearest(
    unit: NDArray[np.float64], neighbours: NDArray[np.float32], leave_out: int | None
) -> set[int]:
    """Indices of the probes nearest to a unit vector; of equally near ones the first."""
    cosines = _unit(neighbours[:, : len(unit)]) @ unit
    if leave_out is not None:
        cosines[leave_out] = -np.inf
    return set(np.argsort(-cosines, kind="stable")[:NUM_NEIGHBOURS].tolist())


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scale rows (…, width) to length 1; one that has no direction becomes zero."""
    wide = rows.astype(np.float64)
    norms = np.linalg.norm(wide, axis=-1, keepdims=True)
    has_direction = np.isfinite(norms) & (norms > 0)
    unit = np.zeros_like(wide)
    np.divide(wide, norms, out=unit, where=has_direction)
    return unit


def _jensen_shannon(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Jensen-Shannon divergence over the last axis, in nats, 0 … ln 2 (Lin, 1991)."""
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    middle = (p + q) / 2
    divergence: NDArray[np.float64] = (
        rel_entr(p, middle).sum(-1) + rel_entr(q, middle).sum(-1)
    ) / 2
    return divergence
