"""A linear layer of 8-bit weights that quantizes its input at run time, token by token (CPU)."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from serving.machine.isa import multiplies_int8_exactly
from serving.runtimes.torch.kernels.fbgemm_weights import (
    linear_with_fixed_scale,
    pack,
    quantize_per_output,
    unpack,
)
from serving.runtimes.torch.kernels.kernel_module import KernelModule
from serving.runtimes.torch.packed_sizes import int8_linear_bytes


class Int8Linear(KernelModule):
    """``y = r * (q(x / r) @ W8) + b`` with ``r = max|x|`` of each token, W8 int8 per output.

    Dividing by ``r`` brings every token into [-1, 1], so that one constant scale is a per-token
    scale, and no token's answer depends on the others in the batch. Errors: about half of
    ``max|x| / 127`` per input and half of ``max|w| / 127`` of the output's row per weight.

    Args:
        weight: int8 (out, in); only read here, its packed form is a copy.
        scale: float32 (out,).
        bias: float32 (out,).
        exact: Whether the CPU sums 8-bit products without saturating; by default, as this CPU.
            Where it does not, inputs keep 7 bits.

    Raises:
        ConfigError: This build of torch has no fbgemm, i.e. the CPU is no x86.
    """

    copied_tensors = frozenset({"weight", "scale"})

    bias: Tensor

    def __init__(
        self, weight: Tensor, scale: Tensor, bias: Tensor, exact: bool | None = None
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.packed = pack(weight, scale)
        self.register_buffer("bias", bias)
        is_exact = multiplies_int8_exactly() if exact is None else exact
        steps = 127 if is_exact else 63
        self.input_scale, self.input_zero = 1 / steps, steps + 1

    @classmethod
    def of(cls, linear: nn.Linear, exact: bool | None = None) -> Self:
        """Round the weight of a float layer (out, in)."""
        weight, scale = quantize_per_output(linear.weight.detach().float())
        bias = torch.zeros(len(scale)) if linear.bias is None else linear.bias.detach().float()
        return cls(weight, scale, bias.clone(), exact)

    def stored_tensors(self) -> dict[str, Tensor]:
        weight, scale, _ = unpack(self.packed)
        return {"weight": weight, "scale": scale, "bias": self.bias}

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (..., in) to float32 (..., out)."""
        scratch = x.abs()
        largest = scratch.amax(dim=-1, keepdim=True).clamp_min_(1e-30)
        torch.div(x, largest, out=scratch)
        y = linear_with_fixed_scale(scratch, self.input_scale, self.input_zero, self.packed)
        return torch.addcmul(self.bias, y, largest, out=y)

    def packed_bytes(self) -> int:
        return int8_linear_bytes((self.out_features, self.in_features))
