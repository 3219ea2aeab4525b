"""A linear layer of NF4 weights that expands them at each pass, for CPUs."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from serving.runtimes.torch.kernels.kernel_module import KernelModule, Setting
from serving.runtimes.torch.kernels.nf4_codes import look_up, nearest_codes, pack_pairs
from serving.runtimes.torch.number_types import name_of, type_of

PIECE = 2**19
"""Numbers that are expanded at a time: caches hold them, and the process keeps no copy of a whole
layer."""


class Nf4Linear(KernelModule):
    """``y = x @ W^T + b``, ``W = LEVELS[code] * magnitude``, a magnitude for each block of inputs.

    Args:
        packed: Codes as of ``pack_pairs``, uint8 (out, in / 2).
        magnitudes: float32 (out, blocks).
        bias: (out,), of the type ``dtype``.
        dtype: Name of the type of inputs, outputs and of the expanded weight.
    """

    packed: Tensor
    magnitudes: Tensor
    bias: Tensor | None

    def __init__(
        self, packed: Tensor, magnitudes: Tensor, bias: Tensor | None = None, *, dtype: str
    ) -> None:
        super().__init__()
        self.dtype = type_of(dtype)
        self.register_buffer("packed", packed)
        self.register_buffer("magnitudes", magnitudes)
        self.register_buffer("bias", bias)

    @classmethod
    def of(cls, linear: nn.Linear, group_size: int, dtype: torch.dtype) -> Self:
        """Round the weight of a float32 layer (out, in).

        Args:
            linear: The layer.
            group_size: Inputs of a block; divides ``in``, and is even.
            dtype: Type of inputs and outputs.
        """
        codes, magnitudes = nearest_codes(linear.weight.detach(), group_size)
        bias = None if linear.bias is None else linear.bias.detach().to(dtype, copy=True)
        return cls(pack_pairs(codes), magnitudes, bias, dtype=name_of(dtype))

    def settings(self) -> dict[str, Setting]:
        return {"dtype": name_of(self.dtype)}

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out), both of the module's type."""
        outputs = max(PIECE // x.shape[-1], 1)
        starts = range(0, len(self.packed), outputs)
        pieces = (self._expanded(slice(start, start + outputs)) for start in starts)
        y = torch.cat([functional.linear(x, piece) for piece in pieces], dim=-1)
        return y if self.bias is None else y.add_(self.bias)

    def expand(self) -> Tensor:
        """Return the weight in the module's type, (out, in)."""
        return self._expanded(slice(None))

    def _expanded(self, outputs: slice) -> Tensor:
        packed, magnitudes = self.packed[outputs], self.magnitudes[outputs]
        blocks = look_up(packed, self.dtype).view(*magnitudes.shape, -1)
        return blocks.mul_(magnitudes.to(self.dtype).unsqueeze(2)).view(len(packed), -1)
