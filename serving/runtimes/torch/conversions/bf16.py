"""``bf16`` on torch: weights in bfloat16, activations too where the CPU can multiply them."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from pydantic import BaseModel

from serving.machine.isa import multiplies_bf16
from serving.runtimes.torch.conversions.conversion import Conversion
from serving.seams import DeviceName, PrepareRequest, WeightShape

if TYPE_CHECKING:
    from torch import nn

    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.kernel_module import KernelModule


def weight_bytes(tensor: WeightShape, options: BaseModel, device: DeviceName) -> int:
    """Return 2 bytes per number; norms and biases keep 4 where the CPU computes in float32."""
    is_half = device == "cuda" or multiplies_bf16() or len(tensor.shape) > 1
    return (2 if is_half else 4) * prod(tensor.shape)


def kernels() -> tuple[type[KernelModule], ...]:
    """Return what stands in encoders and generators."""
    from serving.runtimes.torch.kernels.half_stored import Bf16StoredEmbedding, Bf16StoredLinear
    from serving.runtimes.torch.kernels.prepacked_linear import PrepackedLinear

    return (Bf16StoredEmbedding, Bf16StoredLinear, PrepackedLinear)


def convert_encoder(model: nn.Module, request: PrepareRequest) -> tuple[str, ...]:
    """Cast all of it, or store linear layers and tables in bfloat16 and compute in float32."""
    import torch

    from serving.runtimes.torch.conversions.module_swap import cast_parameters, swap_modules

    if multiplies_bf16():
        cast_parameters(model, torch.bfloat16)
        return ()
    from serving.runtimes.torch.conversions.direct_reads import kept_note, modules_read_directly

    kept = modules_read_directly(model, request.example)
    notes = ("computed in float32: this CPU multiplies no bfloat16", *kept_note(model, kept))
    swap_modules(model, lambda module: None if module in kept else store_in_bf16(module))
    return notes


def store_in_bf16(module: nn.Module) -> nn.Module | None:
    """Return the stored form of a linear layer or an embedding table, None for other modules."""
    from torch import nn

    from serving.runtimes.torch.kernels.half_stored import Bf16StoredEmbedding, Bf16StoredLinear

    # Subclasses add behaviour of their own (scaled embeddings, say): leave them as they are.
    if type(module) is nn.Linear:
        return Bf16StoredLinear.of(module)
    if type(module) is nn.Embedding:
        return Bf16StoredEmbedding.of(module)
    return None


def move_to_gpu(model: nn.Module, options: BaseModel, device: str) -> nn.Module:
    """Cast the parameters and move it."""
    import torch

    from serving.runtimes.torch.cuda.moving import move_in

    return move_in(model, torch.bfloat16, device)


def generator_numerics(options: BaseModel) -> Numerics:
    """How this recipe makes the parts of a generator on the CPU."""
    import torch

    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.half_stored import Bf16StoredEmbedding, Bf16StoredLinear
    from serving.runtimes.torch.kernels.prepacked_linear import PrepackedLinear
    from serving.runtimes.torch.kernels.tied_head import TiedHead

    is_native = multiplies_bf16()
    return Numerics(
        dtype=torch.bfloat16 if is_native else torch.float32,
        cache_dtype=torch.bfloat16,
        linear=lambda linear, _: (
            PrepackedLinear.of(linear.bfloat16()) if is_native else Bf16StoredLinear.of(linear)
        ),
        table=Bf16StoredEmbedding.of,
        tied_head=TiedHead,
    )


CONVERSION = Conversion(
    weight_bytes=weight_bytes,
    kernels=kernels,
    convert_encoder=convert_encoder,
    move_to_gpu=move_to_gpu,
    generator_numerics=generator_numerics,
)
