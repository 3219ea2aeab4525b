"""A linear layer of 8-bit weights that quantizes its input at run time, token by token (CPU)."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from serving.runtimes.torch.kernels.fbgemm_weights import (
    linear_with_fixed_scale,
    pack,
    quantize_per_output,
    unpack,
    weight_steps,
)
from serving.runtimes.torch.kernels.kernel_module import KernelModule
from serving.runtimes.torch.packed_sizes import int8_linear_bytes

INPUT_SCALE, INPUT_ZERO = 1 / 127, 128
"""An input in [-1, 1] becomes one of the codes 1 … 255."""

LEAST_LARGEST = 1e-30
"""Taken for the largest input of a token that has none but zeros, which cannot be divided by."""


class Int8Linear(KernelModule):
    """``y = r * (q(x / r) @ W8) + b`` with ``r = max|x|`` of each token, W8 int8 per output.

    With shares, x is multiplied by them first.

    Dividing by ``r`` brings every token into [-1, 1], so that one constant scale is a per-token
    scale, and no token's answer depends on the others in the batch. Errors: about half of
    ``max|x| / 127`` per input and half of ``max|w| / 127`` of the output's row per weight.

    Args:
        weight: int8 (out, in); only read here, its packed form is a copy.
        scale: float32 (out,).
        bias: float32 (out,).
        shares: float32 (in,), what each input is multiplied by first; None multiplies none.

    Raises:
        ConfigError: This build of torch has no fbgemm, i.e. the CPU is no x86, or the weight was
            rounded on a CPU of another kind.
    """

    copied_tensors = frozenset({"weight", "scale"})

    bias: Tensor
    shares: Tensor | None

    def __init__(
        self, weight: Tensor, scale: Tensor, bias: Tensor, shares: Tensor | None = None
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.packed = pack(weight, scale)
        self.register_buffer("bias", bias)
        self.register_buffer("shares", shares)

    @classmethod
    def of(
        cls, linear: nn.Linear, exact: bool | None = None, factors: Tensor | None = None
    ) -> Self:
        """Round the weight of a float layer (out, in).

        Args:
            linear: The layer.
            exact: See ``weight_steps``.
            factors: float32 (in,), by which inputs are divided and their weights multiplied.
        """
        weight = linear.weight.detach().float()
        weight = weight if factors is None else weight * factors
        weight, scale = quantize_per_output(weight, weight_steps(exact))
        bias = torch.zeros(len(scale)) if linear.bias is None else linear.bias.detach().float()
        return cls(weight, scale, bias.clone(), None if factors is None else 1 / factors)

    def stored_tensors(self) -> dict[str, Tensor]:
        weight, scale, _ = unpack(self.packed)
        return {"weight": weight, "scale": scale, **super().stored_tensors()}

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (..., in) to float32 (..., out)."""
        if self.shares is not None:
            x = x * self.shares
        scratch = x.abs()
        largest = scratch.amax(dim=-1, keepdim=True).clamp_min_(LEAST_LARGEST)
        torch.div(x, largest, out=scratch)
        y = linear_with_fixed_scale(scratch, INPUT_SCALE, INPUT_ZERO, self.packed)
        return torch.addcmul(self.bias, y, largest, out=y)

    def packed_bytes(self) -> int:
        return int8_linear_bytes((self.out_features, self.in_features))
