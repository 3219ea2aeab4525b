"""Which layers of an encoder become int8, and what that takes, whichever way inputs are scaled."""

from __future__ import annotations

import platform
from math import prod
from typing import TYPE_CHECKING, TypeGuard

from pydantic import BaseModel

from serving.runtimes.torch.packed_sizes import (
    MIN_OUTPUTS,
    int8_embedding_bytes,
    int8_linear_bytes,
)
from serving.seams import DeviceName, WeightShape

if TYPE_CHECKING:
    from torch import nn


KEPT_IN_FLOAT = frozenset({"pooler"})
"""A pooler sees one token and feeds the classifier: its rounding goes straight into the answer."""

X86 = frozenset({"x86_64", "AMD64"})


def encoder_weight_bytes(tensor: WeightShape, options: BaseModel, device: DeviceName) -> int:
    """Return the packed size on a CPU: int8 plus scales and the kernel's padding."""
    if tensor.is_embedding:
        return int8_embedding_bytes(tensor.shape)
    is_kept = bool(KEPT_IN_FLOAT & set(tensor.name.split(".")))
    if len(tensor.shape) == 2 and tensor.shape[0] >= MIN_OUTPUTS and not is_kept:
        return int8_linear_bytes(tensor.shape)
    return 4 * prod(tensor.shape)


def is_quantized(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether ``module`` is a linear layer whose weight becomes int8."""
    from torch import nn

    # Subclasses add behaviour of their own: leave them as they are.
    return type(module) is nn.Linear and module.out_features >= MIN_OUTPUTS


def move_to_cuda(model: nn.Module, options: BaseModel) -> nn.Module:
    """Move it in bfloat16 and let torchao quantize it there."""
    from serving.runtimes.torch.cuda.torchao_cuda import int8_config, quantize_on_gpu

    return quantize_on_gpu(model, int8_config(), is_quantized)


def why_not(device: DeviceName) -> str | None:
    """Say that fbgemm, whose kernels these are, is made for x86 CPUs."""
    if device == "cuda" or platform.machine() in X86:
        return None
    return f"its kernels are those of fbgemm, for x86; this CPU is {platform.machine()}"
