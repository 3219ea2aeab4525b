"""Layers that store numbers of 16 bits and compute in float32, for CPUs that cannot multiply them.

On such CPUs torch's bf16 matrix product is 1.3 (AVX-512) to 4 (AVX2) times slower than fp32, while
widening the weights at each call costs a few percent at 32 tokens or more.
"""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from serving.runtimes.torch.kernels.kernel_module import KernelModule


class Bf16StoredLinear(KernelModule):
    """``y = x @ float32(W)^T + b``, x and y float32 (..., in or out).

    Args:
        weight: bfloat16 (out, in).
        bias: float32 (out,).
    """

    stored_type: ClassVar[torch.dtype] = torch.bfloat16

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    @classmethod
    def of(cls, linear: nn.Linear) -> Self:
        """Round the weight of a float32 layer."""
        # A copy: as loaded it is a view of the mapped file, all of which it would keep resident.
        bias = None if linear.bias is None else linear.bias.detach().clone()
        return cls(linear.weight.detach().to(cls.stored_type), bias)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight.float(), self.bias)


class Bf16StoredEmbedding(KernelModule):
    """Looks up bfloat16 (rows, width) and returns float32 (*ids.shape, width)."""

    stored_type: ClassVar[torch.dtype] = torch.bfloat16

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    @classmethod
    def of(cls, embedding: nn.Embedding) -> Self:
        """Round a float table."""
        return cls(embedding.weight.detach().to(cls.stored_type))

    def forward(self, ids: Tensor) -> Tensor:
        return functional.embedding(ids, self.weight).float()


class F16StoredLinear(Bf16StoredLinear):
    """Likewise of float16, which holds more digits and no numbers beyond 65,504."""

    stored_type = torch.float16


class F16StoredEmbedding(Bf16StoredEmbedding):
    """Likewise."""

    stored_type = torch.float16
