"""``int8-dynamic`` on torch: 8-bit weights, activations rounded to 8 bits token by token."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from pydantic import BaseModel

from serving.machine.isa import multiplies_int8_exactly
from serving.runtimes.torch.conversions.conversion import Conversion
from serving.runtimes.torch.conversions.int8_layers import (
    encoder_weight_bytes,
    is_quantized,
    move_to_cuda,
    why_not,
)
from serving.runtimes.torch.packed_sizes import int8_compact_linear_bytes, int8_embedding_bytes
from serving.seams import DeviceName, PrepareRequest, WeightShape

if TYPE_CHECKING:
    from torch import nn

    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.kernel_module import KernelModule


def generator_weight_bytes(tensor: WeightShape, options: BaseModel, device: DeviceName) -> int:
    """Return the packed size on a CPU: int8 plus scales, with hardly any padding."""
    if tensor.is_embedding:
        return int8_embedding_bytes(tensor.shape)
    if len(tensor.shape) == 2:
        return int8_compact_linear_bytes(tensor.shape)
    return 4 * prod(tensor.shape)


def kernels() -> tuple[type[KernelModule], ...]:
    """Return what stands in encoders and generators."""
    from serving.runtimes.torch.kernels.int8_compact_linear import Int8CompactLinear
    from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
    from serving.runtimes.torch.kernels.int8_linear import Int8Linear

    return (Int8Embedding, Int8Linear, Int8CompactLinear)


def convert_encoder(model: nn.Module, request: PrepareRequest) -> tuple[str, ...]:
    """Replace linear layers and tables; a pooler stays float."""
    import torch
    from torch import nn

    from serving.runtimes.torch.conversions.direct_reads import kept_note, modules_read_directly
    from serving.runtimes.torch.conversions.int8_layers import KEPT_IN_FLOAT
    from serving.runtimes.torch.conversions.module_swap import swap_modules
    from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
    from serving.runtimes.torch.kernels.int8_linear import Int8Linear

    kept = modules_read_directly(model, request.example)
    notes = kept_note(model, kept)

    def quantize(module: nn.Module) -> nn.Module | None:
        if module in kept:
            return None
        if type(module) is nn.Embedding:
            return Int8Embedding.of(module, torch.float32)
        return Int8Linear.of(module) if is_quantized(module) else None

    swap_modules(model, quantize, keep=KEPT_IN_FLOAT)
    return notes


def generator_numerics(options: BaseModel) -> Numerics:
    """How this recipe makes the parts of a generator on the CPU."""
    import torch

    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.int8_compact_linear import Int8CompactLinear
    from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
    from serving.runtimes.torch.kernels.tied_head import Int8TiedHead, Int8WeightTiedHead

    return Numerics(
        dtype=torch.float32,
        cache_dtype=torch.bfloat16,
        linear=lambda linear, _: Int8CompactLinear.of(linear),
        table=lambda table: Int8Embedding.of(table, torch.float32),
        tied_head=Int8TiedHead if multiplies_int8_exactly() else Int8WeightTiedHead,
    )


CONVERSION = Conversion(
    weight_bytes=encoder_weight_bytes,
    kernels=kernels,
    convert_encoder=convert_encoder,
    move_to_cuda=move_to_cuda,
    why_not=why_not,
    generator_numerics=generator_numerics,
    generator_weight_bytes=generator_weight_bytes,
)
