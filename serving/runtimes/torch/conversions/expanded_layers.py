"""Models whose linear layers expand their weights at each pass, and whose tables are int8 (CPU)."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

from serving.machine.isa import multiplies_bf16
from serving.runtimes.torch.packed_sizes import (
    KEPT_IN_FLOAT,
    MIN_OUTPUTS,
    int8_embedding_bytes,
    is_kept,
)
from serving.seams import PrepareRequest, WeightShape

if TYPE_CHECKING:
    import torch
    from torch import nn

    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.kernel_module import KernelModule

Convert = Callable[["nn.Linear", "torch.dtype"], "KernelModule | None"]
"""Makes the layer that expands, for inputs of a type; None if there is none of its sizes."""


def compute_dtype() -> torch.dtype:
    """What weights are expanded to: bfloat16 where the CPU multiplies it, else float32."""
    import torch

    return torch.bfloat16 if multiplies_bf16() else torch.float32


def weight_bytes(tensor: WeightShape, packed_bytes: Callable[[tuple[int, ...]], int | None]) -> int:
    """Size of one tensor on the CPU.

    Args:
        tensor: Of a checkpoint.
        packed_bytes: Size of a linear layer's weight of a shape; None if it stays float.
    """
    if tensor.is_embedding:
        return int8_embedding_bytes(tensor.shape)
    packed = None
    if len(tensor.shape) == 2 and tensor.shape[0] >= MIN_OUTPUTS and not is_kept(tensor.name):
        packed = packed_bytes(tensor.shape)
    return (2 if multiplies_bf16() else 4) * prod(tensor.shape) if packed is None else packed


def convert_encoder(model: nn.Module, request: PrepareRequest, convert: Convert) -> tuple[str, ...]:
    """Replace linear layers and tables; a pooler, and what has few outputs, stays float."""
    from torch import nn

    from serving.runtimes.torch.conversions.direct_reads import kept_note, modules_read_directly
    from serving.runtimes.torch.conversions.module_swap import cast_parameters, swap_modules
    from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding

    dtype = compute_dtype()
    kept = modules_read_directly(model, request.example)
    notes = kept_note(model, kept)

    def replace(module: nn.Module) -> nn.Module | None:
        if module in kept:
            return None
        if type(module) is nn.Embedding:
            return Int8Embedding.of(module, dtype)
        # Subclasses add behaviour of their own: leave them as they are.
        if type(module) is not nn.Linear or module.out_features < MIN_OUTPUTS:
            return None
        return convert(module, dtype)

    swap_modules(model, replace, keep=KEPT_IN_FLOAT)
    cast_parameters(model, dtype)
    return notes


def generator_numerics(convert: Callable[[nn.Linear, torch.dtype], KernelModule]) -> Numerics:
    """How such a recipe makes the parts of a generator."""
    import torch

    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
    from serving.runtimes.torch.kernels.tied_head import Int8WeightTiedHead

    dtype = compute_dtype()
    return Numerics(
        dtype=dtype,
        cache_dtype=torch.bfloat16,
        linear=lambda linear, _: convert(linear, dtype),
        table=lambda table: Int8Embedding.of(table, dtype),
        tied_head=Int8WeightTiedHead,
    )
