"""8-bit weights in the layout of fbgemm, torch's int8 kernels for x86 CPUs."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from serving.errors import ConfigError

linear_with_fixed_scale = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
"""Quantizes a float input with a given scale, multiplies, and returns float32."""


def quantize_per_output(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round float32 (out, in) to int8 with one symmetric scale per output, float32 (out,)."""
    scale = weight.abs().amax(dim=1).div_(127)
    scale.masked_fill_(scale == 0, 1.0)
    return torch.round(weight / scale[:, None]).to(torch.int8), scale


def pack(weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Any:
    """Bring int8 (out, in) into fbgemm's layout; returns torch's opaque object.

    Args:
        weight: int8 (out, in).
        scale: float32 (out,).
        bias: float32 (out,), which the kernel then adds.

    Raises:
        ConfigError: This torch has no fbgemm.
    """
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        raise ConfigError("8-bit activations need an x86 CPU: this torch has no fbgemm")
    torch.backends.quantized.engine = "fbgemm"
    with warnings.catch_warnings():
        # torch deprecates its quantized tensors; the kernel takes its weight in no other form.
        warnings.simplefilter("ignore")
        zero = torch.zeros(len(scale), dtype=torch.int64)
        tensor = torch._make_per_channel_quantized_tensor(weight, scale.double(), zero, 0)
        return torch.ops.quantized.linear_prepack(tensor, bias)


def unpack(packed: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Undo ``pack``: int8 (out, in), float32 (out,) and the bias, if it has one."""
    weight, bias = torch.ops.quantized.linear_unpack(packed)
    return weight.int_repr(), weight.q_per_channel_scales().float(), bias
