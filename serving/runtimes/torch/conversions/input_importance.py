"""How strongly each input of each linear layer is driven."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from serving.runtimes.torch.conversions.watching import watch_linears
from serving.seams import Arrays

ROWS, TOKENS = 16, 32
DAMPING = 0.01


def measure_input_importance(model: nn.Module, inputs: Arrays) -> dict[nn.Module, Tensor]:
    """Run ``model`` and return each linear layer's mean square inputs.

    Which inputs are large is a property of the trained model (of its layer norms above all), so
    that a few texts, or even random tokens, show it well enough to weight rounding errors with.
    Padding is left out: no answer depends on it. A hundredth of the mean is added, so that an input
    that stayed silent here still counts.

    Args:
        model: A float32 transformers model on the CPU.
        inputs: A batch for it, with an ``attention_mask``.

    Returns:
        float32 (in,) for every ``nn.Linear`` that ran.
    """
    importance: dict[nn.Module, Tensor] = {}

    def see(module: nn.Module, x: Tensor) -> None:
        square = x.square().mean(0)
        importance[module] = square + DAMPING * square.mean() + 1e-30

    watch_linears(model, [inputs], see)
    return importance


def random_tokens(model: nn.Module) -> Arrays:
    """A batch of random token ids, where there are no texts to measure with."""
    vocabulary: int = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    ids = np.random.default_rng(0).integers(vocabulary, size=(ROWS, TOKENS))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
