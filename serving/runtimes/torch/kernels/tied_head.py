"""Output layers that read the embedding table itself, so that it is kept once (CPU)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
from serving.runtimes.torch.kernels.prepacked_linear import multiply


class TiedHead(nn.Module):
    """Logits ``x @ table^T`` over a table of float32 or bfloat16.

    Args:
        table: The embedding, whose ``weight`` is (vocabulary, width).
    """

    weight: Tensor

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        weight = table.weight
        assert isinstance(weight, Tensor)
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, width) to float32 (rows, vocabulary)."""
        if self.weight.dtype == torch.float32:
            # For few rows torch's own float32 product takes three times as long as oneDNN's.
            logits: Tensor = multiply(x, self.weight, None, "none", [], "")
            return logits
        return functional.linear(x.to(self.weight.dtype), self.weight).float()


class Int8TiedHead(nn.Module):
    """Logits over an int8 table, the input quantized per token.

    Only for CPUs that sum 8-bit products exactly: on others the kernel, which moves signed inputs
    up by 128, saturates however small they are.

    Args:
        table: The embedding, with one scale per row.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        assert isinstance(table, Int8Embedding)
        self.register_buffer("weight", table.weight)
        self.register_buffer("scale", table.scale)

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, width) to float32 (rows, vocabulary)."""
        x = x.float()
        unit = x.abs().amax(dim=-1, keepdim=True).clamp_min_(1e-30) / 127
        codes = (x / unit).round_().to(torch.int8)
        logits = torch._int_mm(codes, self.weight.t()) * self.scale.t()
        return logits.mul_(unit)


class Int8WeightTiedHead(nn.Module):
    """Logits over an int8 table, the input in bfloat16; on any CPU.

    Args:
        table: The embedding, with one scale per row.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        assert isinstance(table, Int8Embedding)
        self.register_buffer("weight", table.weight)
        self.register_buffer("scale", table.scale.flatten().bfloat16(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, width) to float32 (rows, vocabulary)."""
        return torch._weight_int8pack_mm(x.bfloat16(), self.weight, self.scale).float()
