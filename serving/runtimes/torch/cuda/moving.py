"""A model's way to a GPU, in the numbers of a recipe."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from serving.runtimes.torch.conversions.module_swap import cast_parameters, swap_modules
from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
from serving.runtimes.torch.packed_sizes import KEPT_IN_FLOAT, fits_cuda


def move_in(model: nn.Module, dtype: torch.dtype, device: str) -> nn.Module:
    """Cast the parameters of a model on the CPU, and move it."""
    cast_parameters(model, dtype)
    return model.to(device)


def move_quantized(
    model: nn.Module, quantize: Callable[[nn.Linear], nn.Module | None], device: str
) -> nn.Module:
    """Move a float32 model with linear layers quantized, tables in int8 and the rest in bfloat16.

    Args:
        model: On the CPU; its layers are let go of one by one.
        quantize: Makes a layer on the device of a float32 one; None leaves it in bfloat16. It is
            asked only for layers whose sizes the kernels take.
        device: ``cuda``, or what stands in for it.
    """

    def convert(module: nn.Module) -> nn.Module | None:
        if type(module) is nn.Embedding:
            return Int8Embedding.of(module, torch.bfloat16).to(device)
        # Subclasses add behaviour of their own: leave them as they are.
        if type(module) is not nn.Linear or not fits_cuda(*module.weight.shape):
            return None
        return quantize(module)

    swap_modules(model, convert, keep=KEPT_IN_FLOAT)
    return move_in(model, torch.bfloat16, device)
