"""Run a model over data and look at what its linear layers get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from serving.runtimes.torch.model_inputs import as_tensors
from serving.seams import Arrays


def watch_linears(
    model: nn.Module, batches: Sequence[Arrays], see: Callable[[nn.Module, Tensor], None]
) -> None:
    """Run ``model`` and show the inputs of every ``nn.Linear``, each time it runs.

    Args:
        model: A float32 transformers model on the CPU.
        batches: Inputs for it, each with an ``attention_mask``.
        see: Gets the layer and float32 (rows, in): its inputs without those of padding.
    """
    is_token: Tensor

    def watch(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x: Tensor = inputs[0].detach()
        # Poolers and classifiers see one row for each input, and no padding.
        see(module, x[is_token] if x.shape[:-1] == is_token.shape else x.flatten(0, -2))

    linears = [module for module in model.modules() if type(module) is nn.Linear]
    hooks = [module.register_forward_pre_hook(watch) for module in linears]
    with torch.no_grad():
        for batch in batches:
            tensors = as_tensors(batch, "cpu")
            is_token = tensors["attention_mask"].bool()
            model(**tensors)
    for hook in hooks:
        hook.remove()
