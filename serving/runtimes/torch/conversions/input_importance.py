"""How strongly each input of each linear layer is driven."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from serving.runtimes.torch.model_inputs import as_tensors
from serving.seams import Arrays

ROWS, TOKENS = 16, 32
DAMPING = 0.01


def measure_input_importance(model: nn.Module, inputs: Arrays) -> dict[nn.Module, Tensor]:
    """Run ``model`` and return each linear layer's mean square inputs.

    Which inputs are large is a property of the trained model (of its layer norms above all), so
    that a few texts, or even random tokens, show it well enough to weight rounding errors with.
    A hundredth of the mean is added, so that an input that stayed silent here still counts.

    Args:
        model: A float32 transformers model on the CPU.
        inputs: A batch for it.

    Returns:
        float32 (in,) for every ``nn.Linear`` that ran.
    """
    importance: dict[nn.Module, Tensor] = {}

    def record(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        square = inputs[0].detach().flatten(0, -2).square().mean(0)
        importance[module] = square + DAMPING * square.mean() + 1e-30

    linears = [module for module in model.modules() if type(module) is nn.Linear]
    hooks = [module.register_forward_pre_hook(record) for module in linears]
    with torch.no_grad():
        model(**as_tensors(inputs, "cpu"))
    for hook in hooks:
        hook.remove()
    return importance


def random_tokens(model: nn.Module) -> Arrays:
    """A batch of random token ids, where there are no texts to measure with."""
    vocabulary: int = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    ids = np.random.default_rng(0).integers(vocabulary, size=(ROWS, TOKENS))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
