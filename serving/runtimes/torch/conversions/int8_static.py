"""``int8-static`` on torch: 8-bit weights, activations rounded to 8 bits at calibrated scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.recipes.smoothing import SmoothingOptions
from serving.runtimes.torch.conversions.conversion import Conversion
from serving.runtimes.torch.conversions.int8_layers import (
    convert_layers,
    encoder_weight_bytes,
    why_not,
)
from serving.seams import PrepareRequest

if TYPE_CHECKING:
    from torch import nn

    from serving.runtimes.torch.conversions.layer_inputs import LayerInputs
    from serving.runtimes.torch.kernels.kernel_module import KernelModule


def kernels() -> tuple[type[KernelModule], ...]:
    """Return what stands in an encoder; layers that calibration never reached are dynamic."""
    from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
    from serving.runtimes.torch.kernels.int8_linear import Int8Linear
    from serving.runtimes.torch.kernels.int8_static_linear import Int8StaticLinear

    return (Int8Embedding, Int8StaticLinear, Int8Linear)


def convert_encoder(model: nn.Module, request: PrepareRequest) -> tuple[str, ...]:
    """Measure what linear layers get, then replace them and tables; a pooler stays float."""
    from serving.runtimes.torch.conversions.static_scales import quantize_statically
    from serving.runtimes.torch.kernels.int8_linear import Int8Linear

    assert isinstance(request.options, SmoothingOptions)
    strength = request.options.smooth

    def quantize(linear: nn.Linear, inputs: LayerInputs | None) -> nn.Module:
        if inputs is None:
            return Int8Linear.of(linear)
        return quantize_statically(linear, inputs, strength)

    notes = convert_layers(model, request, quantize)
    return (*notes, _smoothing_note(model))


def _smoothing_note(model: nn.Module) -> str:
    from serving.runtimes.torch.kernels.int8_static_linear import Int8StaticLinear

    layers = [module for module in model.modules() if isinstance(module, Int8StaticLinear)]
    smooth = sum(layer.shares is not None for layer in layers)
    return f"{smooth} of {len(layers)} layers divide their inputs by factors of their own"


CONVERSION = Conversion(
    weight_bytes=encoder_weight_bytes,
    kernels=kernels,
    convert_encoder=convert_encoder,
    why_not=why_not,
)
