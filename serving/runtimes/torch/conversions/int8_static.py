"""``int8-static`` on torch: 8-bit weights, activations rounded to 8 bits at calibrated scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.machine.isa import multiplies_int8_exactly
from serving.runtimes.torch.conversions.conversion import Conversion
from serving.runtimes.torch.conversions.int8_layers import (
    KEPT_IN_FLOAT,
    encoder_weight_bytes,
    is_quantized,
    why_not,
)
from serving.seams import PrepareRequest

if TYPE_CHECKING:
    from torch import nn

    from serving.runtimes.torch.kernels.kernel_module import KernelModule


def kernels() -> tuple[type[KernelModule], ...]:
    """Return what stands in an encoder; layers that calibration never reached are dynamic."""
    from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
    from serving.runtimes.torch.kernels.int8_linear import Int8Linear
    from serving.runtimes.torch.kernels.int8_static_linear import Int8StaticLinear

    return (Int8Embedding, Int8StaticLinear, Int8Linear)


def convert_encoder(model: nn.Module, request: PrepareRequest) -> tuple[str, ...]:
    """Measure the inputs of linear layers, then replace these and tables; a pooler stays float."""
    import torch
    from torch import nn

    from serving.runtimes.torch.conversions.direct_reads import kept_note, modules_read_directly
    from serving.runtimes.torch.conversions.input_ranges import measure_input_ranges
    from serving.runtimes.torch.conversions.module_swap import swap_modules
    from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
    from serving.runtimes.torch.kernels.int8_linear import Int8Linear
    from serving.runtimes.torch.kernels.int8_static_linear import Int8StaticLinear

    kept = modules_read_directly(model, request.example)
    notes = kept_note(model, kept)
    steps = 255 if multiplies_int8_exactly() else 127
    ranges = measure_input_ranges(model, request.calibration, steps)

    def quantize(module: nn.Module) -> nn.Module | None:
        if module in kept:
            return None
        if type(module) is nn.Embedding:
            return Int8Embedding.of(module, torch.float32)
        if not is_quantized(module):
            return None
        if module not in ranges:
            return Int8Linear.of(module)
        # Taking the entry out lets go of the layer.
        return Int8StaticLinear.of(module, *ranges.pop(module))

    swap_modules(model, quantize, keep=KEPT_IN_FLOAT)
    return notes


CONVERSION = Conversion(
    weight_bytes=encoder_weight_bytes,
    kernels=kernels,
    convert_encoder=convert_encoder,
    why_not=why_not,
)
