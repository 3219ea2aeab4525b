"""A linear layer whose weight lies in oneDNN's own layout, for CPUs."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from serving.runtimes.torch.kernels.kernel_module import KernelModule

EXPECTED_ROWS = 32
"""Rows for which oneDNN is asked to choose its layout; other numbers work, some a little slower."""


multiply = torch.ops.mkldnn._linear_pointwise.default


class PrepackedLinear(KernelModule):
    """``y = x @ W^T + b``, all in the dtype of the layer, float32 or bfloat16.

    A weight in rows is brought into oneDNN's layout at every call, which for one row of input
    takes several times longer than the product itself.

    Args:
        weight: (out, in); only read here, its packed form is a copy.
        bias: (out,).
    """

    copied_tensors = frozenset({"weight"})

    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self._bytes = weight.numel() * weight.element_size()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, EXPECTED_ROWS)
        self.register_buffer("bias", bias)

    @classmethod
    def of(cls, linear: nn.Linear) -> Self:
        """Take over a layer's numbers as they are."""
        bias = None if linear.bias is None else linear.bias.detach().clone()
        return cls(linear.weight.detach(), bias)

    def stored_tensors(self) -> dict[str, Tensor]:
        return {"weight": self.packed.to_dense(), **super().stored_tensors()}

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, in) to (rows, out)."""
        y: Tensor = multiply(x, self.packed, self.bias, "none", [], "")
        return y

    def packed_bytes(self) -> int:
        return self._bytes
