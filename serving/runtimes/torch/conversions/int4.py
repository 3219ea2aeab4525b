"""``int4`` on torch: 4-bit weights in groups, computed in bfloat16 or float32."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, TypeGuard

from pydantic import BaseModel

from serving.errors import ConfigError
from serving.machine.isa import cpu_flags, multiplies_bf16
from serving.recipes.int4 import Int4Options
from serving.runtimes.torch.conversions.conversion import Conversion
from serving.runtimes.torch.packed_sizes import (
    MIN_OUTPUTS,
    cuda_weight_bytes,
    int4_linear_bytes,
    int8_embedding_bytes,
    is_expert,
    legal_group_size,
)
from serving.seams import Arrays, DeviceName, PrepareRequest, WeightShape

if TYPE_CHECKING:
    import torch
    from torch import nn

    from serving.runtimes.torch.conversions.input_moments import InputMoments
    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.adapted_linear import AdaptedLinear
    from serving.runtimes.torch.kernels.kernel_module import KernelModule


def weight_bytes(tensor: WeightShape, options: BaseModel, device: DeviceName) -> int:
    """Return the packed size: 4-bit codes, scales, int8 embedding tables.

    What stays float is bfloat16, or float32 on a CPU that does not multiply bfloat16.
    """
    assert isinstance(options, Int4Options)
    wanted = options.group_size
    if device == "cuda":
        return cuda_weight_bytes(tensor, lambda shape: _cuda_bytes(shape, wanted))
    if tensor.is_embedding:
        return int8_embedding_bytes(tensor.shape)
    if len(tensor.shape) == 2 and tensor.shape[0] >= MIN_OUTPUTS and not is_expert(tensor.name):
        group_size = legal_group_size(tensor.shape[1], wanted)
        if group_size is not None:
            shares = _float_bytes() * tensor.shape[1] if options.method == "awq" else 0
            return int4_linear_bytes(tensor.shape, group_size) + shares
    return _float_bytes() * prod(tensor.shape)


def _float_bytes() -> int:
    return 2 if multiplies_bf16() else 4


def _cuda_bytes(shape: tuple[int, ...], wanted: int) -> int | None:
    group_size = legal_group_size(shape[1], wanted)
    return None if group_size is None else int4_linear_bytes(shape, group_size)


def why_not(device: DeviceName) -> str | None:
    """Say that torch's 4-bit kernel needs AVX2."""
    if device == "cuda" or "avx2" in cpu_flags():
        return None
    return "torch's 4-bit kernel needs a CPU with AVX2 or AVX-512"


def kernels() -> tuple[type[KernelModule], ...]:
    """Return what stands in encoders and generators."""
    from serving.runtimes.torch.kernels.int4_linear import Int4Linear
    from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding

    return (Int4Linear, Int8Embedding, adapted_linear())


def adapted_linear() -> type[AdaptedLinear]:
    """Return what stands in the place of a layer with an adapter beside it."""
    from serving.runtimes.torch.kernels.adapted_linear import AdaptedInt4Linear

    return AdaptedInt4Linear


def convert_encoder(model: nn.Module, request: PrepareRequest) -> tuple[str, ...]:
    """Replace linear layers and tables; layers that no group size divides stay float."""
    from torch import nn

    from serving.runtimes.torch.conversions.direct_reads import kept_note, modules_read_directly
    from serving.runtimes.torch.conversions.module_swap import cast_parameters, swap_modules
    from serving.runtimes.torch.int4_methods import round_linear
    from serving.runtimes.torch.kernels.int4_linear import Int4Linear
    from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding

    assert isinstance(request.options, Int4Options)
    options, dtype = request.options, compute_dtype()
    kept = modules_read_directly(model, request.example)
    notes = kept_note(model, kept)
    inputs = _measure_inputs(model, options, request.example, request.calibration)

    def quantize(module: nn.Module) -> nn.Module | None:
        if module in kept:
            return None
        if type(module) is nn.Embedding:
            return Int8Embedding.of(module, dtype)
        if type(module) is not nn.Linear:
            return None
        size = legal_group_size(module.in_features, options.group_size)
        if size is None or not is_quantized(module, size):
            return None
        # Taking the entry out lets go of the layer; one that never ran has none.
        rounded = round_linear(module, inputs.pop(module, None), size, options)
        return Int4Linear.of_codes(rounded, module.bias, dtype)

    swap_modules(model, quantize)
    cast_parameters(model, dtype)
    return notes


def _measure_inputs(
    model: nn.Module, options: Int4Options, example: Arrays, calibration: Sequence[Arrays]
) -> dict[nn.Module, InputMoments]:
    """Measure what the method looks at: by default how strongly a few texts drive each input."""
    from serving.runtimes.torch.conversions.input_importance import measure_input_importance
    from serving.runtimes.torch.conversions.input_moments import InputMoments, measure_input_moments

    if options.method is None:
        importance = measure_input_importance(model, example)
        return {module: InputMoments(squares) for module, squares in importance.items()}
    return measure_input_moments(model, calibration)


def compute_dtype() -> torch.dtype:
    """A CPU that cannot multiply bfloat16 expands the same codes to float32 instead."""
    import torch

    return torch.bfloat16 if multiplies_bf16() else torch.float32


def is_quantized(module: nn.Module, group_size: int) -> TypeGuard[nn.Linear]:
    """Whether ``module`` is a linear layer that groups of ``group_size`` can cover."""
    from torch import nn

    # Subclasses add behaviour of their own: leave them as they are.
    return (
        type(module) is nn.Linear
        and module.out_features >= MIN_OUTPUTS
        and module.in_features % group_size == 0
    )


def move_to_gpu(model: nn.Module, options: BaseModel, device: str) -> nn.Module:
    """Move it in bfloat16, tables in int8, linear layers in 4 bits where a group divides them."""
    from serving.runtimes.torch.cuda.linear_layers import CudaInt4Linear
    from serving.runtimes.torch.cuda.moving import move_quantized

    assert isinstance(options, Int4Options)
    wanted = options.group_size

    def quantize(linear: nn.Linear) -> nn.Module | None:
        size = legal_group_size(linear.in_features, wanted)
        return None if size is None else CudaInt4Linear.of(linear, size, device)

    return move_quantized(model, quantize, device)


def generator_numerics(options: BaseModel) -> Numerics:
    """How this recipe makes the parts of a generator on the CPU."""
    import torch

    from serving.runtimes.torch.conversions.input_importance import random_tokens
    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.int4_methods import round_linear
    from serving.runtimes.torch.kernels.int4_linear import Int4Linear
    from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
    from serving.runtimes.torch.kernels.tied_head import Int8WeightTiedHead

    assert isinstance(options, Int4Options)
    dtype = compute_dtype()

    def quantize(linear: nn.Linear, inputs: InputMoments | None) -> KernelModule:
        size = legal_group_size(linear.in_features, options.group_size)
        if size is None:
            raise ConfigError(
                f"recipe int4 needs layers with a multiple of 32 inputs; one of this model has "
                f"{linear.in_features}"
            )
        return Int4Linear.of_codes(round_linear(linear, inputs, size, options), linear.bias, dtype)

    return Numerics(
        dtype=dtype,
        cache_dtype=torch.bfloat16,
        linear=quantize,
        table=lambda table: Int8Embedding.of(table, dtype),
        tied_head=Int8WeightTiedHead,
        measure_inputs=lambda model, texts: _measure_inputs(
            model, options, random_tokens(model), texts
        ),
    )


CONVERSION = Conversion(
    weight_bytes=weight_bytes,
    kernels=kernels,
    convert_encoder=convert_encoder,
    move_to_gpu=move_to_gpu,
    why_not=why_not,
    generator_numerics=generator_numerics,
    adapted_linear=adapted_linear,
)
