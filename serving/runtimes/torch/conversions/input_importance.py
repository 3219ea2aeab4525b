"""How strongly each input of each linear layer is driven, measured without any data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

ROWS, TOKENS = 16, 32
DAMPING = 0.01


def measure_input_importance(model: nn.Module) -> dict[nn.Module, Tensor]:
    """Run ``model`` on random token ids and return each linear layer's mean square inputs.

    Which inputs are large is a property of the trained model (of its layer norms above all), so
    that random tokens show it well enough to weight rounding errors with. A hundredth of the mean
    is added, so that an input that stayed silent here still counts.

    Args:
        model: A float32 transformers encoder on the CPU.

    Returns:
        float32 (in,) for every ``nn.Linear`` that ran.
    """
    importance: dict[nn.Module, Tensor] = {}

    def record(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        square = inputs[0].detach().flatten(0, -2).square().mean(0)
        importance[module] = square + DAMPING * square.mean() + 1e-30

    linears = [module for module in model.modules() if type(module) is nn.Linear]
    hooks = [module.register_forward_pre_hook(record) for module in linears]
    vocabulary: int = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    ids = torch.randint(vocabulary, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    for hook in hooks:
        hook.remove()
    return importance
