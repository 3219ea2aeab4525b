"""Variant ``int8-dynamic``: 8-bit weights, and activations rounded to 8 bits token by token."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from pydantic import BaseModel

from serving.machine.isa import multiplies_int8_exactly
from serving.runtimes.torch.packed_sizes import (
    MIN_OUTPUTS,
    int8_compact_linear_bytes,
    int8_embedding_bytes,
    int8_linear_bytes,
)
from serving.seams import (
    EncoderEngine,
    GeneratorEngine,
    GeneratorRequest,
    LoadRequest,
    Variant,
    WeightShape,
)

if TYPE_CHECKING:
    from torch import nn

    from serving.runtimes.torch.decoder.causal_lm import Numerics


KEPT_IN_FLOAT = frozenset({"pooler"})
"""A pooler sees one token and feeds the classifier: its rounding goes straight into the answer."""


def weight_bytes(tensor: WeightShape, options: BaseModel) -> int:
    """Return the packed size on a CPU: int8 plus scales and the kernel's padding."""
    if tensor.is_embedding:
        return int8_embedding_bytes(tensor.shape)
    is_kept = bool(KEPT_IN_FLOAT & set(tensor.name.split(".")))
    if len(tensor.shape) == 2 and tensor.shape[0] >= MIN_OUTPUTS and not is_kept:
        return int8_linear_bytes(tensor.shape)
    return 4 * prod(tensor.shape)


def generator_weight_bytes(tensor: WeightShape, options: BaseModel) -> int:
    """Return the packed size on a CPU: int8 plus scales, with hardly any padding."""
    if tensor.is_embedding:
        return int8_embedding_bytes(tensor.shape)
    if len(tensor.shape) == 2:
        return int8_compact_linear_bytes(tensor.shape)
    return 4 * prod(tensor.shape)


def load(request: LoadRequest) -> EncoderEngine:
    """Build the engine; raises ``ConfigError`` on a CPU for which torch has no int8 kernel."""
    import torch

    from serving.runtimes.torch.conversions.module_swap import cast_parameters, swap_modules
    from serving.runtimes.torch.encoder import TorchEncoder
    from serving.runtimes.torch.pretrained import load_pretrained

    model = load_pretrained(request.checkpoint, request.head.auto_class, torch.float32)
    if request.device == "cuda":
        from serving.runtimes.torch.cuda.torchao_cuda import int8_config, quantize_on_gpu

        model = quantize_on_gpu(model, int8_config(), is_quantized)
    else:
        swap_modules(model, quantize, keep=KEPT_IN_FLOAT)
        cast_parameters(model, torch.float32)
    return TorchEncoder(model, request)


def load_generator(request: GeneratorRequest) -> GeneratorEngine:
    """Build the generator; raises ``ConfigError`` on a CPU for which torch has no int8 kernel."""
    import torch

    if request.device == "cuda":
        from serving.runtimes.torch.cuda.paged_generator import load_paged_generator
        from serving.runtimes.torch.cuda.torchao_cuda import int8_config, quantize_on_gpu

        return load_paged_generator(
            request,
            torch.float32,
            lambda model: quantize_on_gpu(model, int8_config(), is_quantized),
        )
    from serving.runtimes.torch.decoder.loading import load_slot_generator

    return load_slot_generator(request, generator_numerics(request.options))


def generator_numerics(options: BaseModel) -> Numerics:
    """How this variant makes the parts of a generator on the CPU."""
    import torch

    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.int8_compact_linear import Int8CompactLinear
    from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
    from serving.runtimes.torch.kernels.tied_head import Int8TiedHead, Int8WeightTiedHead

    return Numerics(
        dtype=torch.float32,
        cache_dtype=torch.bfloat16,
        linear=lambda linear, _: Int8CompactLinear(linear),
        table=lambda table: Int8Embedding(table, torch.float32),
        tied_head=Int8TiedHead if multiplies_int8_exactly() else Int8WeightTiedHead,
    )


def is_quantized(module: nn.Module) -> bool:
    """Whether ``module`` is a linear layer whose weight becomes int8."""
    from torch import nn

    # Subclasses add behaviour of their own: leave them as they are.
    return type(module) is nn.Linear and module.out_features >= MIN_OUTPUTS


def quantize(module: nn.Module) -> nn.Module | None:
    """Return the int8 form of a linear layer or embedding table, None for other modules."""
    import torch
    from torch import nn

    from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
    from serving.runtimes.torch.kernels.int8_linear import Int8Linear

    if type(module) is nn.Embedding:
        return Int8Embedding(module, torch.float32)
    if is_quantized(module):
        assert isinstance(module, nn.Linear)
        return Int8Linear(module)
    return None


VARIANT = Variant(
    recipe="int8 weights per output, int8 activations per token, int8 embedding rows",
    runtime="torch",
    weight_bytes=weight_bytes,
    load=load,
    load_generator=load_generator,
    generator_weight_bytes=generator_weight_bytes,
)
