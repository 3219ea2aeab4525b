"""Which texts go into one forward pass. Pure functions over token counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serving.seams import TokenBatch

FORWARD_OVERHEAD_TOKENS = 64
"""Padding that costs about as much as starting another forward pass.

One pass over 1×32 tokens of MiniLM takes as long as about 64 tokens of a large batch do, on the
machine of ``benchmarks/RESULTS.md``; the exact value matters little.
"""

LENGTH_MULTIPLE = 8
"""Rows are padded to a multiple of this many tokens.

oneDNN prepares, and keeps, kernels for every number of tokens in a batch that it meets, and
malloc's heap frays with them: without this the memory of a replica grows by hundreds of MB under
traffic of every length (``benchmarks/batch_shapes.py``).
"""


def split_by_length(lengths: Sequence[int], max_batch_tokens: int) -> list[list[int]]:
    """Split texts into batches of similar length, so that padding stays small.

    Texts are taken from the longest to the shortest. A batch is closed when one more text would
    take it past ``max_batch_tokens`` (rows × longest row), or when its padding would cost more
    than a forward pass of its own.

    Args:
        lengths: Tokens of each text, all at least 1.
        max_batch_tokens: Most tokens of a batch, padding included; a longer text goes alone.

    Returns:
        Indices into ``lengths``, each exactly once.
    """
    batches: list[list[int]] = []
    longest = padding = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        gap = longest - length
        if (
            not batches
            or (len(batches[-1]) + 1) * _round_up(longest) > max_batch_tokens
            or padding + gap > FORWARD_OVERHEAD_TOKENS
        ):
            batches.append([])
            longest, padding, gap = length, 0, 0
        batches[-1].append(index)
        padding += gap
    return batches


def pad(token_ids: Sequence[Sequence[int]], max_tokens: int) -> TokenBatch:
    """Stack token ids into arrays (rows, tokens), padded on the right with 0.

    The padding's value does not matter, since the attention mask leaves it out.

    Args:
        token_ids: Texts, none longer than ``max_tokens``.
        max_tokens: Most tokens that the model takes; no row is padded past it.
    """
    longest = max(len(ids) for ids in token_ids)
    width = min(_round_up(longest), max_tokens)
    input_ids = np.zeros((len(token_ids), width), dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    for row, ids in enumerate(token_ids):
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
    return TokenBatch(input_ids, attention_mask)


def _round_up(tokens: int) -> int:
    return -(-tokens // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
