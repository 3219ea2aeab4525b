"""``fp32`` on torch: the checkpoint as it is, in float32."""

from __future__ import annotations

from copy import deepcopy
from math import prod
from typing import TYPE_CHECKING

from pydantic import BaseModel

from serving.runtimes.torch.conversions.conversion import Conversion
from serving.seams import DeviceName, PrepareRequest, WeightShape

if TYPE_CHECKING:
    from torch import nn

    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.kernel_module import KernelModule


def weight_bytes(tensor: WeightShape, options: BaseModel, device: DeviceName) -> int:
    """Return 4 bytes per number."""
    return 4 * prod(tensor.shape)


def kernels() -> tuple[type[KernelModule], ...]:
    """Return what stands in a generator; encoders keep their own modules."""
    from serving.runtimes.torch.kernels.prepacked_linear import PrepackedLinear

    return (PrepackedLinear,)


def convert_encoder(model: nn.Module, request: PrepareRequest) -> tuple[str, ...]:
    """Leave the model as it was loaded."""
    return ()


def move_to_gpu(model: nn.Module, options: BaseModel, device: str) -> nn.Module:
    """Move it as it is."""
    return model.to(device)


def generator_numerics(options: BaseModel) -> Numerics:
    """How this recipe makes the parts of a generator on the CPU."""
    import torch

    from serving.runtimes.torch.decoder.causal_lm import Numerics
    from serving.runtimes.torch.kernels.prepacked_linear import PrepackedLinear
    from serving.runtimes.torch.kernels.tied_head import TiedHead

    return Numerics(
        dtype=torch.float32,
        cache_dtype=torch.float32,
        linear=lambda linear, _: PrepackedLinear.of(linear),
        # As loaded it is a view of the mapped file, all of which it would keep resident.
        table=deepcopy,
        tied_head=TiedHead,
    )


CONVERSION = Conversion(
    weight_bytes=weight_bytes,
    kernels=kernels,
    convert_encoder=convert_encoder,
    move_to_gpu=move_to_gpu,
    generator_numerics=generator_numerics,
    kv_number_bytes=4,
)
