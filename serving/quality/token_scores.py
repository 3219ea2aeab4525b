"""What scores of the same tokens say of a generator: perplexity, and beside the reference's.

Each text is a sequence of scores, of the same tokens in both. Neighbouring tokens are hard
together, so the intervals come of blocks of consecutive ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serving.quality.statistics import mean_of_shares_by_moments, perplexity, perplexity_change
from serving.seams import Estimate, TokenLogprob

BLOCK_TOKENS = 32
"""Most tokens of a block; a text's last may be shorter."""

Texts = Sequence[Sequence[TokenLogprob]]


def perplexity_of(texts: Texts) -> Estimate:
    """``exp`` of the mean negative log-probability of all tokens.

    Raises:
        ValueError: No tokens.
    """
    return perplexity(*_blocks([[score.logprob for score in text] for text in texts]))


def perplexity_ratio(texts: Texts, reference: Texts) -> Estimate:
    """Perplexity over the reference's on the same tokens; above 1 is worse.

    Raises:
        ValueError: No tokens, or not as many on each side.
    """
    sums, counts = _blocks([[score.logprob for score in text] for text in texts])
    expected, _ = _blocks([[score.logprob for score in text] for text in reference])
    change = perplexity_change(sums, expected, counts)
    return Estimate(1 + change.value, 1 + change.low, 1 + change.high, change.count)


def same_top_token(texts: Texts, reference: Texts) -> Estimate:
    """Share of places at which both hold the same token for the most probable.

    Its interval is that of a share in clustered surveys, the blocks being the clusters: Wilson's
    for the effective number of blocks, see ``mean_of_shares``.

    Raises:
        ValueError: No tokens, or not as many on each side.
    """
    same = [
        [float(a.top[0][0] == b.top[0][0]) for a, b in zip(text, expected, strict=True)]
        for text, expected in zip(texts, reference, strict=True)
    ]
    sums, counts = _blocks(same)
    value = float(sums.sum() / counts.sum())
    variance = float((counts * (sums / counts - value) ** 2).sum() / counts.sum())
    return mean_of_shares_by_moments(value, variance, len(sums))


def _blocks(texts: Sequence[Sequence[float]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum of each block's values, and how many there are."""
    blocks = [
        text[start : start + BLOCK_TOKENS]
        for text in texts
        for start in range(0, len(text), BLOCK_TOKENS)
    ]
    if not blocks:
        raise ValueError("no tokens")
    sums = np.array([sum(block) for block in blocks], np.float64)
    return sums, np.array([len(block) for block in blocks], np.float64)
