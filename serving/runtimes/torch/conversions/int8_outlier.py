"""``int8-outlier`` on torch: ``int8-dynamic``, with each layer's largest inputs in float."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from serving.recipes.int8_outlier import OutlierOptions
from serving.runtimes.torch.conversions import int8_dynamic, int8_layers
from serving.runtimes.torch.conversions.conversion import Conversion
from serving.runtimes.torch.packed_sizes import (
    MIN_OUTPUTS,
    is_kept,
    outlier_bytes,
)
from serving.seams import DeviceName, PrepareRequest, WeightShape

if TYPE_CHECKING:
    from torch import nn

    from serving.runtimes.torch.conversions.input_moments import InputMoments
    from serving.runtimes.torch.conversions.layer_inputs import LayerInputs
    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.kernel_module import KernelModule


def encoder_weight_bytes(tensor: WeightShape, options: BaseModel, device: DeviceName) -> int:
    """Return the packed size: what ``int8-dynamic`` takes, and the columns in float."""
    packed = int8_layers.encoder_weight_bytes(tensor, options, device)
    if len(tensor.shape) != 2 or tensor.shape[0] < MIN_OUTPUTS or is_kept(tensor.name):
        return packed
    return packed + _column_bytes(tensor, options)


def generator_weight_bytes(tensor: WeightShape, options: BaseModel, device: DeviceName) -> int:
    """Likewise of a generator."""
    packed = int8_dynamic.generator_weight_bytes(tensor, options, device)
    return packed + _column_bytes(tensor, options) if len(tensor.shape) == 2 else packed


def _column_bytes(tensor: WeightShape, options: BaseModel) -> int:
    assert isinstance(options, OutlierOptions)
    return 0 if tensor.is_embedding else outlier_bytes(tensor.shape, options.share)


def kernels() -> tuple[type[KernelModule], ...]:
    """Return what stands in encoders and generators."""
    from serving.runtimes.torch.kernels.outlier_linear import OutlierLinear

    return (*int8_dynamic.kernels(), OutlierLinear)


def convert_encoder(model: nn.Module, request: PrepareRequest) -> tuple[str, ...]:
    """Replace linear layers and tables; a pooler stays float."""
    from serving.runtimes.torch.kernels.int8_linear import Int8Linear
    from serving.runtimes.torch.kernels.outlier_linear import OutlierLinear, largest_columns

    assert isinstance(request.options, OutlierOptions)
    share = request.options.share

    def quantize(linear: nn.Linear, inputs: LayerInputs | None) -> nn.Module:
        if inputs is None:
            return Int8Linear.of(linear)
        columns = largest_columns(inputs.largest(), share)
        return OutlierLinear.of(linear, columns, is_compact=False)

    return int8_layers.convert_layers(model, request, quantize)


def generator_numerics(options: BaseModel) -> Numerics:
    """How this recipe makes the parts of a generator on the CPU."""
    from serving.runtimes.torch.conversions.input_moments import measure_largest_inputs
    from serving.runtimes.torch.kernels.int8_compact_linear import Int8CompactLinear
    from serving.runtimes.torch.kernels.outlier_linear import OutlierLinear, largest_columns

    assert isinstance(options, OutlierOptions)
    share = options.share

    def quantize(linear: nn.Linear, inputs: InputMoments | None) -> KernelModule:
        if inputs is None:
            return Int8CompactLinear.of(linear)
        assert inputs.largest is not None
        return OutlierLinear.of(linear, largest_columns(inputs.largest, share), is_compact=True)

    return int8_dynamic.numerics_around(quantize, measure_largest_inputs)


CONVERSION = Conversion(
    weight_bytes=encoder_weight_bytes,
    kernels=kernels,
    convert_encoder=convert_encoder,
    why_not=int8_layers.why_not,
    generator_numerics=generator_numerics,
    generator_weight_bytes=generator_weight_bytes,
)
