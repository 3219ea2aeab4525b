"""Perplexities and shares of tokens, with intervals that know of neighbours."""

import math

import numpy as np
import pytest

from serving.quality.token_scores import (
    BLOCK_TOKENS,
    perplexity_of,
    perplexity_ratio,
    same_top_token,
)
from serving.seams import TokenLogprob


def text(logprobs: list[float], tops: list[int] | None = None) -> list[TokenLogprob]:
    tops = tops or [0] * len(logprobs)
    return [TokenLogprob(1, x, ((top, -0.1),)) for x, top in zip(logprobs, tops, strict=True)]


def test_every_token_counts_the_same() -> None:
    texts = [text([-1.0] * 40), text([]), text([-4.0] * 2)]
    assert perplexity_of(texts).value == pytest.approx(math.exp(48 / 42))
    reference = [text([-1.5] * 40), text([]), text([-1.0] * 2)]
    assert perplexity_ratio(texts, reference).value == pytest.approx(math.exp((48 - 62) / 42))


def test_the_interval_of_a_ratio_is_that_of_whole_blocks() -> None:
    """Against the normal interval over the blocks' mean differences.

    100 blocks, so the two agree to a tenth of their width; with the tokens for independent they
    would be 5.6 times too narrow.
    """
    chance = np.random.default_rng(1)
    shifts = chance.normal(0.1, 0.2, 100)
    reference = text([-2.0] * 100 * BLOCK_TOKENS)
    own = text((-2.0 - np.repeat(shifts, BLOCK_TOKENS)).tolist())
    found = perplexity_ratio([own], [reference])
    centre, error = shifts.mean(), shifts.std(ddof=1) / 10
    ends = [math.exp(centre - 1.96 * error), math.exp(centre + 1.96 * error)]
    assert (found.low, found.high) == pytest.approx(ends, abs=0.1 * (ends[1] - ends[0]))
    assert found.count == 100


def test_the_interval_of_a_share_knows_that_neighbours_go_together() -> None:
    """Blocks that are all the same or all other are so many yeses and noes: Wilson's interval."""
    blocks = [0] * 30 + [7] * 10
    tops = [top for top in blocks for _ in range(BLOCK_TOKENS)]
    logprobs = [-1.0] * len(tops)
    found = same_top_token([text(logprobs, tops)], [text(logprobs)])
    z, n, p = 1.959964, 40, 0.75
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert found.value == p
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_no_tokens_say_nothing() -> None:
    with pytest.raises(ValueError, match="no tokens"):
        perplexity_of([[], []])
