"""A linear layer of 8-bit weights that quantizes its input at run time, token by token (CPU)."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from serving.errors import ConfigError
from serving.machine.isa import multiplies_int8_exactly
from serving.runtimes.torch.kernels.packed_module import PackedModule
from serving.runtimes.torch.packed_sizes import int8_linear_bytes

linear_with_fixed_scale = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
"""Quantizes a float input with a given scale, multiplies, and returns float32."""


class Int8Linear(PackedModule):
    """``y = r * (q(x / r) @ W8) + b`` with ``r = max|x|`` of each token, W8 int8 per output.

    Dividing by ``r`` brings every token into [-1, 1], so that one constant scale is a per-token
    scale, and no token's answer depends on the others in the batch. Errors: about half of
    ``max|x| / 127`` per input and half of ``max|w| / 127`` of the output's row per weight.

    Args:
        linear: The layer to convert, float (out, in).
        exact: Whether the CPU sums 8-bit products without saturating; by default, as this CPU.
            Where it does not, inputs keep 7 bits.

    Raises:
        ConfigError: This build of torch has no fbgemm, i.e. the CPU is no x86.
    """

    def __init__(self, linear: nn.Linear, exact: bool | None = None) -> None:
        super().__init__()
        weight, scale = quantize_per_output(linear.weight.detach().float())
        self.out_features, self.in_features = weight.shape
        self.packed = pack(weight, scale)
        bias = torch.zeros(self.out_features) if linear.bias is None else linear.bias.detach()
        self.bias = nn.Parameter(bias.float().clone(), requires_grad=False)
        is_exact = multiplies_int8_exactly() if exact is None else exact
        steps = 127 if is_exact else 63
        self.input_scale, self.input_zero = 1 / steps, steps + 1

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (..., in) to float32 (..., out)."""
        scratch = x.abs()
        largest = scratch.amax(dim=-1, keepdim=True).clamp_min_(1e-30)
        torch.div(x, largest, out=scratch)
        y = linear_with_fixed_scale(scratch, self.input_scale, self.input_zero, self.packed)
        return torch.addcmul(self.bias, y, largest, out=y)

    def packed_bytes(self) -> int:
        return int8_linear_bytes((self.out_features, self.in_features))

    def saved_bytes(self) -> int:
        return self.out_features * (self.in_features + 4)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        weight, _ = torch.ops.quantized.linear_unpack(self.packed)
        destination[f"{prefix}weight"] = weight.int_repr()
        destination[f"{prefix}weight_scale"] = weight.q_per_channel_scales().float()


def quantize_per_output(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round float32 (out, in) to int8 with one symmetric scale per output, float32 (out,)."""
    scale = weight.abs().amax(dim=1).div_(127)
    scale.masked_fill_(scale == 0, 1.0)
    return torch.round(weight / scale[:, None]).to(torch.int8), scale


def pack(weight: Tensor, scale: Tensor) -> Any:
    """Bring int8 (out, in) into fbgemm's layout; returns torch's opaque object."""
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        raise ConfigError("variant int8-dynamic needs an x86 CPU: this torch has no fbgemm")
    torch.backends.quantized.engine = "fbgemm"
    with warnings.catch_warnings():
        # torch deprecates its quantized tensors; the kernel takes its weight in no other form.
        warnings.simplefilter("ignore")
        zero = torch.zeros(len(scale), dtype=torch.int64)
        tensor = torch._make_per_channel_quantized_tensor(weight, scale.double(), zero, 0)
        return torch.ops.quantized.linear_prepack(tensor, None)
