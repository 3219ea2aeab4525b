"""Layers that store bfloat16 and compute in float32, for CPUs that cannot multiply bfloat16.

On such CPUs torch's bf16 matrix product is 1.3 (AVX-512) to 4 (AVX2) times slower than fp32, while
widening the weights at each call costs a few percent at 32 tokens or more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from serving.runtimes.torch.conversions.module_swap import cast_parameters, swap_modules


class Bf16StoredLinear(nn.Module):
    """``y = x @ float32(W)^T + b``, W bfloat16 (out, in), x and y float32 (..., in or out)."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", linear.weight.detach().bfloat16())
        # A copy: as loaded it is a view of the mapped file, all of which it would keep resident.
        bias = None if linear.bias is None else linear.bias.detach().clone()
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight.float(), self.bias)


class Bf16StoredEmbedding(nn.Module):
    """Looks up bfloat16 (rows, width) and returns float32 (*ids.shape, width)."""

    weight: Tensor

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.register_buffer("weight", embedding.weight.detach().bfloat16())

    def forward(self, ids: Tensor) -> Tensor:
        return functional.embedding(ids, self.weight).float()


def store_in_bf16(model: nn.Module) -> None:
    """Convert the linear layers and embedding tables of a float32 model in place."""
    swap_modules(model, _convert)
    cast_parameters(model, torch.float32)


def _convert(module: nn.Module) -> nn.Module | None:
    # Subclasses add behaviour of their own (scaled embeddings, say): leave them as they are.
    if type(module) is nn.Linear:
        return Bf16StoredLinear(module)
    if type(module) is nn.Embedding and module.weight.dtype == torch.float32:
        return Bf16StoredEmbedding(module)
    return None
