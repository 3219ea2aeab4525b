"""A linear layer whose weight lies in oneDNN's own layout, for CPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from serving.runtimes.torch.kernels.packed_module import PackedModule

EXPECTED_ROWS = 32
"""Rows for which oneDNN is asked to choose its layout; other numbers work, some a little slower."""


multiply = torch.ops.mkldnn._linear_pointwise.default


class PrepackedLinear(PackedModule):
    """``y = x @ W^T + b``, all in the dtype of the layer, float32 or bfloat16.

    A weight in rows is brought into oneDNN's layout at every call, which for one row of input
    takes several times longer than the product itself.

    Args:
        linear: The layer to convert, (out, in).
    """

    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self._bytes = weight.numel() * weight.element_size()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, EXPECTED_ROWS)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, in) to (rows, out)."""
        y: Tensor = multiply(x, self.packed, self.bias, "none", [], "")
        return y

    def packed_bytes(self) -> int:
        return self._bytes

    def saved_bytes(self) -> int:
        return self._bytes

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.packed.to_dense()
