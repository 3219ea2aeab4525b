"""Heads in numpy: the one implementation for every runtime that has none in its own graph.

An engine gives what ``pool`` returns; a task's ``decode`` calls ``finish``. The two are apart since
a request may ask for other than the checkpoint's own: raw scores, fewer dimensions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serving.seams.head import Activation, Head, Logits, PerToken, Pooled


def pool(
    head: Head, output: NDArray[np.float32], attention_mask: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Reduce a model's output to what an ``EncoderEngine`` returns, computed in float32.

    Args:
        head: Which part of the output answers.
        output: Last hidden states (rows, tokens, width) for ``Pooled`` and ``PerToken``, logits
            (rows, labels) for ``Logits``.
        attention_mask: (rows, tokens), 1 for a token and 0 for padding on the right.

    Returns:
        (rows, width) or (rows, labels); of ``PerToken`` (rows, tokens, width), padding zero.
    """
    output = output.astype(np.float32, copy=False)
    match head:
        case Logits():
            return output
        case PerToken():
            kept: NDArray[np.float32] = output * attention_mask[:, :, None].astype(np.float32)
            return kept
        case Pooled(pooling="cls"):
            first: NDArray[np.float32] = output[:, 0]
            return first
        case Pooled(pooling="last"):
            last = attention_mask.shape[1] - 1 - attention_mask[:, ::-1].argmax(axis=1)
            final: NDArray[np.float32] = output[np.arange(len(output)), last]
            return final
        case Pooled(pooling="max"):
            hidden = np.where(attention_mask[:, :, None] == 1, output, -np.inf)
            largest: NDArray[np.float32] = hidden.max(axis=1)
            return largest
    weights = attention_mask.astype(np.float32)[:, :, None]
    mean: NDArray[np.float32] = (output * weights).sum(axis=1) / weights.sum(axis=1)
    return mean


def normalize(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale vectors over the last axis to length 1; zero stays zero."""
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    scaled: NDArray[np.float32] = rows / np.maximum(norms, np.finfo(np.float32).tiny)
    return scaled


def activate(logits: NDArray[np.float32], activation: Activation) -> NDArray[np.float32]:
    """Turn logits (rows, labels) into scores, computed in float64."""
    wide = logits.astype(np.float64)
    match activation:
        case "sigmoid":
            wide = np.exp(-np.logaddexp(0, -wide))
        case "softmax":
            exponentials = np.exp(wide - wide.max(axis=1, keepdims=True))
            wide = exponentials / exponentials.sum(axis=1, keepdims=True)
    return wide.astype(np.float32)
