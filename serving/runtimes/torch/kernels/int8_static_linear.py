"""A linear layer of 8-bit weights that quantizes its input at one scale, measured before (CPU)."""

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
from serving.runtimes.torch.kernels.kernel_module import KernelModule, Setting
from serving.runtimes.torch.packed_sizes import int8_linear_bytes

STEPS = 255
"""Into how many the range of inputs is divided."""


class Int8StaticLinear(KernelModule):
    """``y = q(x * shares) @ W8 + b`` with codes spread evenly from ``low`` to ``high``.

    One kernel does all of it but the multiplication, which most layers do without. What lies beyond
    the range is cut, and a token's answer does not depend on the others in the batch. Errors: half
    of ``(high - low) / 255`` per input, cut ones apart, and half of ``max|w| / 127`` of the
    output's row per weight.

    Args:
        weight: int8 (out, in); only read here, its packed form is a copy.
        scale: float32 (out,).
        bias: float32 (out,); the packed form keeps it.
        shares: float32 (in,), what each input is multiplied by first; None multiplies none.
        low: Least input that is told apart from less, at most 0.
        high: Largest likewise, at least 0.

    Raises:
        ConfigError: This build of torch has no fbgemm, i.e. the CPU is no x86, or the weight was
            rounded on a CPU of another kind.
    """

    copied_tensors = frozenset({"weight", "scale"})

    shares: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        scale: Tensor,
        bias: Tensor,
        shares: Tensor | None = None,
        *,
        low: float,
        high: float,
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._low, self._high = low, high
        # A layer whose inputs were always 0 has no range.
        self._input_scale = (high - low) / STEPS or 1.0
        self._input_zero = round(-low / self._input_scale)
        self._packed = pack(weight, scale, bias)
        self.register_buffer("shares", shares)

    @classmethod
    def of(
        cls,
        linear: nn.Linear,
        low: Tensor,
        high: Tensor,
        factors: Tensor | None = None,
        exact: bool | None = None,
    ) -> Self:
        """Round the weight of a float32 layer (out, in).

        Args:
            linear: The layer.
            low: float32 (in,), the least number of each input.
            high: float32 (in,), the largest.
            factors: float32 (in,), by which inputs are divided and their weights multiplied.
            exact: See ``weight_steps``.
        """
        weight, shares = linear.weight.detach(), None
        if factors is not None:
            weight, shares = weight * factors, 1 / factors
            low, high = low * shares, high * shares
        rounded, scale = quantize_per_output(weight, weight_steps(exact))
        bias = torch.zeros(len(scale)) if linear.bias is None else linear.bias.detach().clone()
        ends = {"low": min(float(low.min()), 0.0), "high": max(float(high.max()), 0.0)}
        return cls(rounded, scale, bias, shares, **ends)

    def settings(self) -> dict[str, Setting]:
        return {"low": self._low, "high": self._high}

    def stored_tensors(self) -> dict[str, Tensor]:
        weight, scale, bias = unpack(self._packed)
        assert bias is not None
        return {"weight": weight, "scale": scale, "bias": bias, **super().stored_tensors()}

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (..., in) to float32 (..., out)."""
        if self.shares is not None:
            x = x * self.shares
        y: Tensor = linear_with_fixed_scale(x, self._input_scale, self._input_zero, self._packed)
        return y

    def packed_bytes(self) -> int:
        return int8_linear_bytes((self.out_features, self.in_features)) + 4 * self.out_features
