"""Which layers of an encoder become int8, and what that takes, whichever way inputs are scaled."""

from __future__ import annotations

import platform
from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, TypeGuard

from pydantic import BaseModel

from serving.runtimes.torch.packed_sizes import (
    KEPT_IN_FLOAT,
    MIN_OUTPUTS,
    cuda_eight_bit_bytes,
    int8_embedding_bytes,
    int8_linear_bytes,
    is_kept,
)
from serving.seams import DeviceName, PrepareRequest, WeightShape

if TYPE_CHECKING:
    from torch import nn

    from serving.runtimes.torch.conversions.layer_inputs import LayerInputs


X86 = frozenset({"x86_64", "AMD64"})


def encoder_weight_bytes(tensor: WeightShape, options: BaseModel, device: DeviceName) -> int:
    """Return the packed size: int8 plus scales and, on a CPU, the kernel's padding."""
    if device == "cuda":
        return cuda_eight_bit_bytes(tensor)
    if tensor.is_embedding:
        return int8_embedding_bytes(tensor.shape)
    if len(tensor.shape) == 2 and tensor.shape[0] >= MIN_OUTPUTS and not is_kept(tensor.name):
        return int8_linear_bytes(tensor.shape)
    return 4 * prod(tensor.shape)


def is_quantized(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether ``module`` is a linear layer whose weight becomes int8."""
    from torch import nn

    # Subclasses add behaviour of their own: leave them as they are.
    return type(module) is nn.Linear and module.out_features >= MIN_OUTPUTS


def convert_layers(
    model: nn.Module,
    request: PrepareRequest,
    quantize: Callable[[nn.Linear, LayerInputs | None], nn.Module],
) -> tuple[str, ...]:
    """Replace an encoder's linear layers and tables by int8 ones; a pooler stays float.

    Args:
        model: A float32 encoder on the CPU.
        request: Its calibration data, if any, is what layers' inputs are measured on.
        quantize: Converts a linear layer; None stands for inputs of a layer that never ran.

    Returns:
        Notes for the artifact's manifest.
    """
    import torch
    from torch import nn

    from serving.runtimes.torch.conversions.direct_reads import kept_note, modules_read_directly
    from serving.runtimes.torch.conversions.layer_inputs import measure_layer_inputs
    from serving.runtimes.torch.conversions.module_swap import swap_modules
    from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding

    kept = modules_read_directly(model, request.example)
    notes = kept_note(model, kept)
    inputs = measure_layer_inputs(model, request.calibration)

    def convert(module: nn.Module) -> nn.Module | None:
        if module in kept:
            return None
        if type(module) is nn.Embedding:
            return Int8Embedding.of(module, torch.float32)
        # Taking the entry out lets go of the layer.
        return quantize(module, inputs.pop(module, None)) if is_quantized(module) else None

    swap_modules(model, convert, keep=KEPT_IN_FLOAT)
    return notes


def move_to_gpu(model: nn.Module, options: BaseModel, device: str) -> nn.Module:
    """Move it in bfloat16, linear layers and tables in int8."""
    from serving.runtimes.torch.cuda.linear_layers import CudaInt8Linear
    from serving.runtimes.torch.cuda.moving import move_quantized

    return move_quantized(model, lambda linear: CudaInt8Linear.of(linear, device), device)


def why_not(device: DeviceName) -> str | None:
    """Say that fbgemm, whose kernels these are, is made for x86 CPUs."""
    if device == "cuda" or platform.machine() in X86:
        return None
    return f"its kernels are those of fbgemm, for x86; this CPU is {platform.machine()}"
