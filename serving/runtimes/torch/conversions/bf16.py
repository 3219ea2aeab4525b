"""Variant ``bf16``: weights in bfloat16, and activations too where the CPU can multiply them."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from pydantic import BaseModel

from serving.machine.isa import multiplies_bf16
from serving.seams import (
    EncoderEngine,
    GeneratorEngine,
    GeneratorRequest,
    LoadRequest,
    Variant,
    WeightShape,
)

if TYPE_CHECKING:
    from serving.runtimes.torch.decoder.causal_lm import Numerics


def weight_bytes(tensor: WeightShape, options: BaseModel) -> int:
    """Return 2 bytes per number."""
    return 2 * prod(tensor.shape)


def load(request: LoadRequest) -> EncoderEngine:
    """Build the engine on the device that ``request`` names."""
    import torch

    from serving.runtimes.torch.encoder import TorchEncoder
    from serving.runtimes.torch.pretrained import load_pretrained

    checkpoint, auto_class = request.checkpoint, request.head.auto_class
    if request.device == "cpu" and not multiplies_bf16():
        from serving.runtimes.torch.kernels.bf16_stored import store_in_bf16

        model = load_pretrained(checkpoint, auto_class, torch.float32)
        store_in_bf16(model)
    else:
        model = load_pretrained(checkpoint, auto_class, torch.bfloat16)
    return TorchEncoder(model.to(request.device), request)


def load_generator(request: GeneratorRequest) -> GeneratorEngine:
    """Build the generator on the device that ``request`` names."""
    import torch

    if request.device == "cuda":
        from serving.runtimes.torch.cuda.paged_generator import load_paged_generator

        return load_paged_generator(request, torch.bfloat16)
    from serving.runtimes.torch.decoder.loading import load_slot_generator

    return load_slot_generator(request, generator_numerics(request.options))


def generator_numerics(options: BaseModel) -> Numerics:
    """How this variant makes the parts of a generator on the CPU."""
    import torch

    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.bf16_stored import Bf16StoredEmbedding, Bf16StoredLinear
    from serving.runtimes.torch.kernels.prepacked_linear import PrepackedLinear
    from serving.runtimes.torch.kernels.tied_head import TiedHead

    is_native = multiplies_bf16()
    return Numerics(
        dtype=torch.bfloat16 if is_native else torch.float32,
        cache_dtype=torch.bfloat16,
        linear=lambda linear, _: (
            PrepackedLinear(linear.bfloat16()) if is_native else Bf16StoredLinear(linear)
        ),
        table=Bf16StoredEmbedding,
        tied_head=TiedHead,
    )


VARIANT = Variant(
    recipe="bfloat16 weights and activations",
    runtime="torch",
    weight_bytes=weight_bytes,
    load=load,
    load_generator=load_generator,
)
