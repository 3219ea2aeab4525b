"""Which inputs go into one forward pass: a pure function over what they cost."""

from __future__ import annotations

from collections.abc import Sequence

FORWARD_OVERHEAD_TOKENS = 64
"""Padding that costs about as much as starting another forward pass.

One pass over 1×32 tokens of MiniLM takes as long as about 64 tokens of a large batch do, on the
machine of ``benchmarks/RESULTS.md``; the exact value matters little.
"""

ROUNDED_TO = 8
"""Tasks pad rows to multiples of so many tokens (decision 17)."""


def split_by_cost(costs: Sequence[int], max_batch_cost: int) -> list[list[int]]:
    """Split inputs into batches of similar cost, so that padding stays small.

    Inputs are taken from the longest to the shortest. A batch is closed when one more would take it
    past ``max_batch_cost`` (rows × longest row), or when its padding would cost more than a forward
    pass of its own.

    Args:
        costs: Tokens of each input, all at least 1.
        max_batch_cost: Most tokens of a batch, padding included; a longer input goes alone.

    Returns:
        Indices into ``costs``, each exactly once.
    """
    batches: list[list[int]] = []
    longest = padding = 0
    for index in sorted(range(len(costs)), key=lambda i: -costs[i]):
        length = costs[index]
        gap = longest - length
        if (
            not batches
            or (len(batches[-1]) + 1) * _round_up(longest) > max_batch_cost
            or padding + gap > FORWARD_OVERHEAD_TOKENS
        ):
            batches.append([])
            longest, padding, gap = length, 0, 0
        batches[-1].append(index)
        padding += gap
    return batches


def _round_up(tokens: int) -> int:
    return -(-tokens // ROUNDED_TO) * ROUNDED_TO
