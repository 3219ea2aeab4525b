"""Int8 weights without padding, activations quantized per token, on oneDNN's kernel (CPU)."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from serving.runtimes.torch.kernels.fbgemm_weights import (
    check_weights,
    quantize_per_output,
    weight_steps,
)
from serving.runtimes.torch.kernels.int8_linear import INPUT_SCALE, INPUT_ZERO
from serving.runtimes.torch.kernels.kernel_module import KernelModule
from serving.runtimes.torch.packed_sizes import int8_compact_linear_bytes

multiply = torch.ops.onednn.qlinear_pointwise.default


class Int8CompactLinear(KernelModule):
    """``y = r * (q(x / r) @ W8) + b``, the numbers of ``Int8Linear`` without its padding.

    fbgemm pads inputs to multiples of 512, and keeps 1,024 of 576; oneDNN's layout fits every
    multiple of 64. fbgemm's kernel is the faster one on large batches.

    Args:
        weight: int8 (out, in); only read here, its packed form is a copy.
        scale: float32 (out,).
        bias: float32 (out,).
        shares: float32 (in,), what each input is multiplied by first; None multiplies none.
    """

    copied_tensors = frozenset({"weight"})

    bias: Tensor | None
    shares: Tensor | None
    scale: Tensor
    zero: Tensor
    steps: Tensor
    rounding: Tensor

    def __init__(
        self,
        weight: Tensor,
        scale: Tensor,
        bias: Tensor | None = None,
        shares: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_weights(weight)
        self._shape = tuple(weight.shape)
        self.packed = torch.ops.onednn.qlinear_prepack(weight, None)
        self.register_buffer("bias", bias)
        self.register_buffer("shares", shares)
        self.register_buffer("scale", scale)
        # Tensors, because torch turns a number into one at every call. Truncating after the
        # addition of the zero point and a half rounds to the nearest.
        for name, value in {
            "zero": torch.zeros(len(scale), dtype=torch.int32),
            "steps": torch.tensor(1 / INPUT_SCALE),
            "rounding": torch.tensor(INPUT_ZERO + 0.5),
        }.items():
            self.register_buffer(name, value, persistent=False)

    @classmethod
    def of(
        cls, linear: nn.Linear, exact: bool | None = None, factors: Tensor | None = None
    ) -> Self:
        """Round the weight of a float layer (out, in); arguments as of ``Int8Linear.of``."""
        weight = linear.weight.detach().float()
        weight = weight if factors is None else weight * factors
        weight, scale = quantize_per_output(weight, weight_steps(exact))
        bias = None if linear.bias is None else linear.bias.detach().float().clone()
        return cls(weight, scale, bias, None if factors is None else 1 / factors)

    def stored_tensors(self) -> dict[str, Tensor]:
        weight = self.packed.to_dense().t().contiguous()
        kept = {"bias": self.bias, "shares": self.shares}
        others = {name: tensor for name, tensor in kept.items() if tensor is not None}
        return {"weight": weight, "scale": self.scale, **others}

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (rows, in) to float32 (rows, out)."""
        if self.shares is not None:
            x = x * self.shares
        # A row of zeros gives any codes, and zeros in the last line.
        largest = x.abs().amax(-1, True)
        codes = torch.addcmul(self.rounding, x, self.steps / largest).to(torch.uint8)
        y: Tensor = multiply(
            codes,
            INPUT_SCALE,
            INPUT_ZERO,
            self.packed,
            self.scale,
            self.zero,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        ).mul_(largest)
        return y if self.bias is None else y.add_(self.bias)

    def packed_bytes(self) -> int:
        visible = self.scale.nbytes + self.zero.nbytes
        return int8_compact_linear_bytes(self._shape) - visible
