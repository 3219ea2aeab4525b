"""``nf4`` on torch: 4-bit weights on a grid that is not even, expanded at each pass (CPU)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from serving.errors import ConfigError
from serving.recipes.nf4 import Nf4Options
from serving.runtimes.torch.conversions import expanded_layers
from serving.runtimes.torch.conversions.conversion import Conversion
from serving.runtimes.torch.packed_sizes import legal_group_size, nf4_linear_bytes
from serving.seams import DeviceName, PrepareRequest, WeightShape

if TYPE_CHECKING:
    import torch
    from torch import nn

    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.kernel_module import KernelModule


def weight_bytes(tensor: WeightShape, options: BaseModel, device: DeviceName) -> int:
    """Return the packed size: half a byte a number, and a float32 magnitude for each block."""
    assert isinstance(options, Nf4Options)
    wanted = options.group_size

    def packed_bytes(shape: tuple[int, ...]) -> int | None:
        size = legal_group_size(shape[1], wanted)
        return None if size is None else nf4_linear_bytes(shape, size)

    return expanded_layers.weight_bytes(tensor, packed_bytes)


def kernels() -> tuple[type[KernelModule], ...]:
    """Return what stands in encoders and generators."""
    from serving.runtimes.torch.kernels.int8_embedding import Int8Embedding
    from serving.runtimes.torch.kernels.nf4_linear import Nf4Linear

    return (Nf4Linear, Int8Embedding)


def convert_encoder(model: nn.Module, request: PrepareRequest) -> tuple[str, ...]:
    """Replace linear layers and tables; layers that no block divides stay float."""
    from serving.runtimes.torch.kernels.nf4_linear import Nf4Linear

    assert isinstance(request.options, Nf4Options)
    wanted = request.options.group_size

    def convert(linear: nn.Linear, dtype: torch.dtype) -> KernelModule | None:
        size = legal_group_size(linear.in_features, wanted)
        return None if size is None else Nf4Linear.of(linear, size, dtype)

    return expanded_layers.convert_encoder(model, request, convert)


def generator_numerics(options: BaseModel) -> Numerics:
    """How this recipe makes the parts of a generator on the CPU."""
    from serving.runtimes.torch.kernels.nf4_linear import Nf4Linear

    assert isinstance(options, Nf4Options)
    wanted = options.group_size

    def convert(linear: nn.Linear, dtype: torch.dtype) -> KernelModule:
        size = legal_group_size(linear.in_features, wanted)
        if size is None:
            raise ConfigError(
                f"recipe nf4 needs layers with a multiple of 32 inputs; one of this model has "
                f"{linear.in_features}"
            )
        return Nf4Linear.of(linear, size, dtype)

    return expanded_layers.generator_numerics(convert)


CONVERSION = Conversion(
    weight_bytes=weight_bytes,
    kernels=kernels,
    convert_encoder=convert_encoder,
    generator_numerics=generator_numerics,
)
