"""Variant ``fp32``: the checkpoint in full precision, what the others are judged against."""

from __future__ import annotations

from copy import deepcopy
from math import prod
from typing import TYPE_CHECKING

from pydantic import BaseModel

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
    """Return 4 bytes per number."""
    return 4 * prod(tensor.shape)


def load(request: LoadRequest) -> EncoderEngine:
    """Build the engine on the device that ``request`` names."""
    import torch

    from serving.runtimes.torch.encoder import TorchEncoder
    from serving.runtimes.torch.pretrained import load_pretrained

    model = load_pretrained(request.checkpoint, request.head.auto_class, torch.float32)
    return TorchEncoder(model.to(request.device), request)


def load_generator(request: GeneratorRequest) -> GeneratorEngine:
    """Build the generator on the device that ``request`` names."""
    import torch

    if request.device == "cuda":
        from serving.runtimes.torch.cuda.paged_generator import load_paged_generator

        return load_paged_generator(request, torch.float32)
    from serving.runtimes.torch.decoder.loading import load_slot_generator

    return load_slot_generator(request, generator_numerics(request.options))


def generator_numerics(options: BaseModel) -> Numerics:
    """How this variant makes the parts of a generator on the CPU."""
    import torch

    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.prepacked_linear import PrepackedLinear
    from serving.runtimes.torch.kernels.tied_head import TiedHead

    return Numerics(
        dtype=torch.float32,
        cache_dtype=torch.float32,
        linear=lambda linear, _: PrepackedLinear(linear),
        # As loaded it is a view of the mapped file, all of which it would keep resident.
        table=deepcopy,
        tied_head=TiedHead,
    )


VARIANT = Variant(
    recipe="float32 weights and activations, as trained",
    runtime="torch",
    weight_bytes=weight_bytes,
    load=load,
    load_generator=load_generator,
    kv_cache_bytes_per_number=4,
)
