"""8-bit weights in the layout of fbgemm, torch's int8 kernels for x86 CPUs."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from serving.errors import ConfigError
from serving.machine.isa import instruction_set, multiplies_int8_exactly

linear_with_fixed_scale = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
"""Quantizes a float input with a given scale, multiplies, and returns float32."""


def weight_steps(exact: bool | None = None) -> int:
    """Return the largest 8-bit weight that may be multiplied with 8-bit activations of any size.

    A CPU that saturates adds two products in 16 bits, where 255 * (64 + 64) just fits. The missing
    bit is taken from the weights: from the activations, whose largest ones lie far above the
    others, it costs more. SmolLM2's perplexity on 1,536 tokens is 96.0 so, 103.5 the other way
    round, 96.6 where nothing saturates and 92.7 in fp32; MiniLM's mean cosine on 200 sentences
    0.9952, 0.9928 and 0.9967.

    Args:
        exact: Whether the CPU sums 8-bit products without saturating; by default, as this CPU.
    """
    is_exact = multiplies_int8_exactly() if exact is None else exact
    return 127 if is_exact else 64


def quantize_per_output(weight: Tensor, steps: int = 127) -> tuple[Tensor, Tensor]:
    """Round float32 (out, in) to int8 with one symmetric scale per output, float32 (out,).

    Args:
        weight: To round.
        steps: The largest number of each output, as ``weight_steps`` says.
    """
    scale = weight.abs().amax(dim=1).div_(steps)
    scale.masked_fill_(scale == 0, 1.0)
    return torch.round(weight / scale[:, None]).to(torch.int8), scale


def check_weights(weight: Tensor) -> None:
    """Refuse int8 weights whose products this CPU would saturate over.

    Raises:
        ConfigError: They were rounded on a CPU that sums 8-bit products exactly.
    """
    if int(weight.abs().amax()) > weight_steps():
        raise ConfigError(
            f"its int8 weights have 8 bits, this CPU ({instruction_set()}) sums products of 7 bits "
            f"without error: prepare it on a machine of this kind"
        )


def pack(weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Any:
    """Bring int8 (out, in) into fbgemm's layout; returns torch's opaque object.

    Args:
        weight: int8 (out, in).
        scale: float32 (out,).
        bias: float32 (out,), which the kernel then adds.

    Raises:
        ConfigError: This torch has no fbgemm, or ``check_weights`` refuses the weight.
    """
    check_weights(weight)
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
