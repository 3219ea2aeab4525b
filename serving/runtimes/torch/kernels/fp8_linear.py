"""A linear layer that stores 8-bit floats and expands them at each pass, for CPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from serving.runtimes.torch.kernels.kernel_module import KernelModule, Setting
from serving.runtimes.torch.number_types import name_of, type_of

LARGEST = 448.0
"""Of float8 with 4 bits of exponent and 3 of mantissa (E4M3)."""

LEAST = 1e-30
"""Divides where an output is all zeros."""

_WIDENED = {
    torch.float32: (torch.int32, 20, ~0x78000000),
    torch.bfloat16: (torch.int16, 4, ~0x7800),
}
"""By type: whole numbers of its width, how far bits of E4M3 move up to its own, and which of them
are no copies of the sign."""

_EXPONENTS = 2.0**120
"""Both types count exponents from -127, E4M3 from -7."""


class Fp8Linear(KernelModule):
    """``y = x @ (W8 * scale)^T + b``, x and y of the module's type.

    Args:
        weight: float8_e4m3fn (out, in).
        scale: float32 (out,).
        bias: (out,), of the type ``dtype``.
        dtype: Name of the type of inputs, outputs and of the expanded weight.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(
        self, weight: Tensor, scale: Tensor, bias: Tensor | None = None, *, dtype: str
    ) -> None:
        super().__init__()
        self.dtype = type_of(dtype)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    @classmethod
    def of(cls, linear: nn.Linear, dtype: torch.dtype) -> Self:
        """Round the weight of a float32 layer: each output's largest number becomes 448."""
        weight = linear.weight.detach()
        scale = weight.abs().amax(1).div_(LARGEST).clamp_min_(LEAST)
        codes = (weight / scale.unsqueeze(1)).to(torch.float8_e4m3fn)
        bias = None if linear.bias is None else linear.bias.detach().to(dtype, copy=True)
        return cls(codes, scale, bias, dtype=name_of(dtype))

    def settings(self) -> dict[str, Setting]:
        return {"dtype": name_of(self.dtype)}

    @classmethod
    def restore(cls, settings: Mapping[str, Setting], tensors: Mapping[str, Tensor]) -> Self:
        return cls(**tensors, dtype=str(settings["dtype"]))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out), both of the module's type."""
        return functional.linear(x, self.expand(), self.bias)

    def expand(self) -> Tensor:
        """Return the weight in the module's type, (out, in).

        torch's own way from float8 takes several times as long without instructions for it
        (``benchmarks.expanding``).
        """
        whole, shift, mask = _WIDENED[self.dtype]
        bits = self.weight.view(torch.int8).to(whole)
        numbers = bits.bitwise_left_shift_(shift).bitwise_and_(mask).view(self.dtype)
        scale = self.scale.unsqueeze(1)
        return numbers.mul_(_EXPONENTS).mul_(scale.to(self.dtype))
