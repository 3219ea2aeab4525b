"""``int8-dynamic`` on torch: 8-bit weights, activations rounded to 8 bits token by token."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from pydantic import BaseModel

from serving.machine.isa import multiplies_int8_exactly
from serving.recipes.smoothing import SmoothingOptions
from serving.runtimes.torch.conversions.conversion import Conversion
from serving.runtimes.torch.conversions.int8_layers import (
    convert_layers,
    encoder_weight_bytes,
    move_to_gpu,
    why_not,
)
from serving.runtimes.torch.packed_sizes import (
    cuda_eight_bit_bytes,
    int8_compact_linear_bytes,
    int8_embedding_bytes,
)
from serving.seams import DeviceName, PrepareRequest, WeightShape

if TYPE_CHECKING:
    from torch import nn

    from serving.runtimes.torch.conversions.input_moments import InputMoments
    from serving.runtimes.torch.conversions.layer_inputs import LayerInputs
    from serving.runtimes.torch.decoder.causal_lm import ConvertLinear, MeasureInputs, Numerics
    from serving.runtimes.torch.kernels.kernel_module import KernelModule


def generator_weight_bytes(tensor: WeightShape, options: BaseModel, device: DeviceName) -> int:
    """Return the packed size: int8 plus scales, with hardly any padding."""
    if device == "cuda":
        return cuda_eight_bit_bytes(tensor)
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
    from serving.runtimes.torch.conversions.smoothing import smoothing_factors
    from serving.runtimes.torch.kernels.int8_linear import Int8Linear

    assert isinstance(request.options, SmoothingOptions)
    strength = request.options.smooth

    def quantize(linear: nn.Linear, inputs: LayerInputs | None) -> nn.Module:
        if strength is None or inputs is None:
            return Int8Linear.of(linear)
        factors = smoothing_factors(linear.weight.detach(), inputs.largest(), strength)
        return Int8Linear.of(linear, factors=factors)

    return convert_layers(model, request, quantize)


def generator_numerics(options: BaseModel) -> Numerics:
    """How this recipe makes the parts of a generator on the CPU."""
    from serving.runtimes.torch.conversions.input_moments import measure_largest_inputs
    from serving.runtimes.torch.conversions.smoothing import smoothing_factors
    from serving.runtimes.torch.kernels.int8_compact_linear import Int8CompactLinear

    assert isinstance(options, SmoothingOptions)
    strength = options.smooth

    def quantize(linear: nn.Linear, inputs: InputMoments | None) -> KernelModule:
        if strength is None or inputs is None:
            return Int8CompactLinear.of(linear)
        assert inputs.largest is not None
        factors = smoothing_factors(linear.weight.detach(), inputs.largest, strength)
        return Int8CompactLinear.of(linear, factors=factors)

    return numerics_around(quantize, None if strength is None else measure_largest_inputs)


def numerics_around(linear: ConvertLinear, measure_inputs: MeasureInputs | None) -> Numerics:
    """Numerics of int8 weights and activations, given how linear layers are made."""
    import torch

    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
    from serving.runtimes.torch.kernels.tied_head import Int8TiedHead, Int8WeightTiedHead

    return Numerics(
        dtype=torch.float32,
        cache_dtype=torch.bfloat16,
        linear=linear,
        table=lambda table: Int8Embedding.of(table, torch.float32),
        tied_head=Int8TiedHead if multiplies_int8_exactly() else Int8WeightTiedHead,
        measure_inputs=measure_inputs,
    )


CONVERSION = Conversion(
    weight_bytes=encoder_weight_bytes,
    kernels=kernels,
    convert_encoder=convert_encoder,
    move_to_gpu=move_to_gpu,
    why_not=why_not,
    generator_numerics=generator_numerics,
    generator_weight_bytes=generator_weight_bytes,
)
