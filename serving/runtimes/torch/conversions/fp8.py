"""``fp8`` on torch: weights and activations in float8, on GPUs that multiply it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from serving.machine.device import cuda_capability
from serving.runtimes.torch.conversions.conversion import Conversion
from serving.runtimes.torch.packed_sizes import cuda_eight_bit_bytes
from serving.seams import DeviceName, WeightShape

if TYPE_CHECKING:
    from torch import nn

LEAST_CAPABILITY = (9, 0)
"""Hopper, the first with products of float8 whose rows have scales of their own."""


def weight_bytes(tensor: WeightShape, options: BaseModel, device: DeviceName) -> int:
    """Return a byte per weight of a linear layer or table, and a float32 scale per row."""
    return cuda_eight_bit_bytes(tensor)


def move_to_gpu(model: nn.Module, options: BaseModel, device: str) -> nn.Module:
    """Move it in bfloat16, linear layers in float8 and tables in int8."""
    from serving.runtimes.torch.cuda.linear_layers import CudaFp8Linear
    from serving.runtimes.torch.cuda.moving import move_quantized

    return move_quantized(model, lambda linear: CudaFp8Linear.of(linear, device), device)


def why_not(device: DeviceName) -> str | None:
    """Say that this GPU does not multiply float8; of another node's nothing is known here."""
    capability = cuda_capability()
    if device != "cuda" or capability is None or capability >= LEAST_CAPABILITY:
        return None
    major, minor = capability
    return f"float8 needs a GPU of compute capability 9.0 (Hopper); this one has {major}.{minor}"


CONVERSION = Conversion(
    weight_bytes=weight_bytes, kernels=tuple, move_to_gpu=move_to_gpu, why_not=why_not
)
