"""``f16`` on torch: float16 weights; on CUDA activations, too, on the CPU computed in float32."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from pydantic import BaseModel

from serving.errors import ConfigError
from serving.runtimes.torch.conversions.conversion import Conversion
from serving.seams import DeviceName, PrepareRequest, WeightShape

if TYPE_CHECKING:
    from torch import nn

    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.kernel_module import KernelModule


def weight_bytes(tensor: WeightShape, options: BaseModel, device: DeviceName) -> int:
    """Return 2 bytes per number; norms and biases keep 4 on the CPU."""
    is_half = device == "cuda" or len(tensor.shape) > 1
    return (2 if is_half else 4) * prod(tensor.shape)


def kernels() -> tuple[type[KernelModule], ...]:
    """Return what stands in encoders and generators."""
    from serving.runtimes.torch.kernels.half_stored import F16StoredEmbedding, F16StoredLinear

    return (F16StoredEmbedding, F16StoredLinear)


def convert_encoder(model: nn.Module, request: PrepareRequest) -> tuple[str, ...]:
    """Store linear layers and tables in float16, and compute in float32."""
    from serving.runtimes.torch.conversions.direct_reads import kept_note, modules_read_directly
    from serving.runtimes.torch.conversions.module_swap import swap_modules

    kept = modules_read_directly(model, request.example)
    notes = kept_note(model, kept)
    swap_modules(model, lambda module: None if module in kept else store_in_f16(module))
    return notes


def store_in_f16(module: nn.Module) -> nn.Module | None:
    """Return the stored form of a linear layer or an embedding table, None for other modules.

    Raises:
        ConfigError: A number of its weight is too large for float16.
    """
    from torch import nn

    from serving.runtimes.torch.kernels.half_stored import F16StoredEmbedding, F16StoredLinear

    # Subclasses add behaviour of their own (scaled embeddings, say): leave them as they are.
    stored: F16StoredLinear | F16StoredEmbedding
    if type(module) is nn.Linear:
        stored = F16StoredLinear.of(module)
    elif type(module) is nn.Embedding:
        stored = F16StoredEmbedding.of(module)
    else:
        return None
    if not stored.weight.isfinite().all():
        raise ConfigError(
            "float16 holds numbers up to 65,504; this model has larger ones in its weights"
        )
    return stored


def move_to_gpu(model: nn.Module, options: BaseModel, device: str) -> nn.Module:
    """Cast the parameters and move it."""
    import torch

    from serving.runtimes.torch.cuda.moving import move_in

    return move_in(model, torch.float16, device)


def generator_numerics(options: BaseModel) -> Numerics:
    """How this recipe makes the parts of a generator on the CPU."""
    import torch

    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.kernel_module import KernelModule
    from serving.runtimes.torch.kernels.tied_head import TiedHead

    def store(module: nn.Module) -> KernelModule:
        stored = store_in_f16(module)
        assert isinstance(stored, KernelModule)
        return stored

    return Numerics(
        dtype=torch.float32,
        cache_dtype=torch.float16,
        linear=lambda linear, _: store(linear),
        table=store,
        tied_head=TiedHead,
    )


CONVERSION = Conversion(
    weight_bytes=weight_bytes,
    kernels=kernels,
    convert_encoder=convert_encoder,
    move_to_gpu=move_to_gpu,
    generator_numerics=generator_numerics,
)
