"""Variant ``int4``: 4-bit weights in groups, computed in bfloat16."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from serving.errors import ConfigError
from serving.machine.isa import multiplies_bf16
from serving.runtimes.torch.packed_sizes import (
    MIN_OUTPUTS,
    int4_linear_bytes,
    int8_embedding_bytes,
    legal_group_size,
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


class Int4Options(BaseModel):
    """Options of the recipe.

    Attributes:
        group_size: Inputs that share a scale; smaller is more exact and larger.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    group_size: Literal[32, 64, 128] = 64


def weight_bytes(tensor: WeightShape, options: BaseModel) -> int:
    """Return the packed size on a CPU: 4-bit codes, scales, and int8 embedding tables."""
    assert isinstance(options, Int4Options)
    if tensor.is_embedding:
        return int8_embedding_bytes(tensor.shape)
    if len(tensor.shape) == 2 and tensor.shape[0] >= MIN_OUTPUTS:
        group_size = legal_group_size(tensor.shape[1], options.group_size)
        if group_size is not None:
            return int4_linear_bytes(tensor.shape, group_size)
    return 2 * prod(tensor.shape)


def load(request: LoadRequest) -> EncoderEngine:
    """Build the engine; raises ``ConfigError`` on a CPU for which torch has no 4-bit kernel."""
    import torch

    from serving.runtimes.torch.encoder import TorchEncoder
    from serving.runtimes.torch.pretrained import load_pretrained

    options = request.options
    assert isinstance(options, Int4Options)
    model = load_pretrained(request.checkpoint, request.head.auto_class, torch.float32)
    if request.device == "cuda":
        from serving.runtimes.torch.cuda.torchao_cuda import int4_config, quantize_on_gpu

        config = int4_config(options.group_size)
        model = quantize_on_gpu(model, config, lambda m: is_quantized(m, options.group_size))
    else:
        quantize_on_cpu(model, options.group_size)
    return TorchEncoder(model, request)


def load_generator(request: GeneratorRequest) -> GeneratorEngine:
    """Build the generator; raises ``ConfigError`` on a CPU for which torch has no 4-bit kernel."""
    import torch

    options = request.options
    assert isinstance(options, Int4Options)
    if request.device == "cuda":
        from serving.runtimes.torch.cuda.paged_generator import load_paged_generator
        from serving.runtimes.torch.cuda.torchao_cuda import int4_config, quantize_on_gpu

        config = int4_config(options.group_size)
        return load_paged_generator(
            request,
            torch.float32,
            lambda model: quantize_on_gpu(
                model, config, lambda m: is_quantized(m, options.group_size)
            ),
        )
    from serving.runtimes.torch.decoder.loading import load_slot_generator

    return load_slot_generator(request, generator_numerics(request.options))


def generator_numerics(options: BaseModel) -> Numerics:
    """How this variant makes the parts of a generator on the CPU."""
    import torch
    from torch import Tensor

    from serving.runtimes.torch.conversions.input_importance import measure_input_importance
    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.int4_linear import Int4Linear
    from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
    from serving.runtimes.torch.kernels.tied_head import Int8WeightTiedHead

    assert isinstance(options, Int4Options)
    dtype = torch.bfloat16 if multiplies_bf16() else torch.float32

    def quantize(linear: nn.Linear, importance: Tensor | None) -> nn.Module:
        size = legal_group_size(linear.in_features, options.group_size)
        if size is None:
            raise ConfigError(
                f"variant int4 needs layers with a multiple of 32 inputs; one of this model has "
                f"{linear.in_features}"
            )
        mass = torch.ones(linear.in_features) if importance is None else importance
        return Int4Linear(linear, mass, size, dtype)

    return Numerics(
        dtype=dtype,
        cache_dtype=torch.bfloat16,
        linear=quantize,
        table=lambda table: Int8Embedding(table, dtype),
        tied_head=Int8WeightTiedHead,
        measure_importance=measure_input_importance,
    )


def is_quantized(module: nn.Module, group_size: int) -> bool:
    """Whether ``module`` is a linear layer that groups of ``group_size`` can cover."""
    from torch import nn

    # Subclasses add behaviour of their own: leave them as they are.
    return (
        type(module) is nn.Linear
        and module.out_features >= MIN_OUTPUTS
        and module.in_features % group_size == 0
    )


def quantize_on_cpu(model: nn.Module, group_size: int) -> None:
    """Convert a float32 model in place; layers that no group size divides become bfloat16."""
    import torch
    from torch import nn

    from serving.runtimes.torch.conversions.input_importance import measure_input_importance
    from serving.runtimes.torch.conversions.module_swap import cast_parameters, swap_modules
    from serving.runtimes.torch.kernels.int4_linear import Int4Linear
    from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding

    # A CPU that cannot multiply bfloat16 expands the same codes to float32 instead.
    dtype = torch.bfloat16 if multiplies_bf16() else torch.float32
    importance = measure_input_importance(model)

    def quantize(module: nn.Module) -> nn.Module | None:
        if type(module) is nn.Embedding:
            return Int8Embedding(module, dtype)
        if type(module) is not nn.Linear:
            return None
        size = legal_group_size(module.in_features, group_size)
        # Taking the entry out lets go of the layer; one that never ran has none.
        mass = importance.pop(module, torch.ones(module.in_features))
        if size is None or not is_quantized(module, size):
            return None
        return Int4Linear(module, mass, size, dtype)

    swap_modules(model, quantize)
    cast_parameters(model, dtype)


VARIANT = Variant(
    recipe="4-bit weights in groups, bfloat16 activations, int8 embedding rows",
    runtime="torch",
    weight_bytes=weight_bytes,
    load=load,
    load_generator=load_generator,
    options=Int4Options,
)
