"""``fp8`` on torch: weights in float8; activations, too, on GPUs that multiply it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from serving.machine.device import cuda_capability
from serving.runtimes.torch.conversions import expanded_layers
from serving.runtimes.torch.conversions.conversion import Conversion
from serving.runtimes.torch.packed_sizes import cuda_eight_bit_bytes, fp8_linear_bytes
from serving.seams import DeviceName, PrepareRequest, WeightShape

if TYPE_CHECKING:
    from torch import nn

    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.kernel_module import KernelModule

LEAST_CAPABILITY = (9, 0)
"""Hopper, the first with products of float8 whose rows have scales of their own."""


def weight_bytes(tensor: WeightShape, options: BaseModel, device: DeviceName) -> int:
    """Return a byte per weight of a linear layer or table, and a float32 scale per row."""
    if device == "cuda":
        return cuda_eight_bit_bytes(tensor)
    return expanded_layers.weight_bytes(tensor, fp8_linear_bytes)


def kernels() -> tuple[type[KernelModule], ...]:
    """Return what stands in encoders and generators on the CPU."""
    from serving.runtimes.torch.kernels.fp8_linear import Fp8Linear
    from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding

    return (Fp8Linear, Int8Embedding)


def convert_encoder(model: nn.Module, request: PrepareRequest) -> tuple[str, ...]:
    """Replace linear layers and tables, for the CPU."""
    from serving.runtimes.torch.kernels.fp8_linear import Fp8Linear

    return expanded_layers.convert_encoder(model, request, Fp8Linear.of)


def generator_numerics(options: BaseModel) -> Numerics:
    """How this recipe makes the parts of a generator on the CPU."""
    from serving.runtimes.torch.kernels.fp8_linear import Fp8Linear

    return expanded_layers.generator_numerics(Fp8Linear.of)


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
    weight_bytes=weight_bytes,
    kernels=kernels,
    convert_encoder=convert_encoder,
    move_to_gpu=move_to_gpu,
    why_not=why_not,
    generator_numerics=generator_numerics,
)
