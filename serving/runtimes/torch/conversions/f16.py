"""``f16`` on torch: float16 weights and activations, on CUDA.

CPUs without instructions for it take several times as long as in float32.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from pydantic import BaseModel

from serving.runtimes.torch.conversions.conversion import Conversion
from serving.seams import DeviceName, WeightShape

if TYPE_CHECKING:
    from torch import nn


def weight_bytes(tensor: WeightShape, options: BaseModel, device: DeviceName) -> int:
    """Return 2 bytes per number."""
    return 2 * prod(tensor.shape)


def move_to_gpu(model: nn.Module, options: BaseModel, device: str) -> nn.Module:
    """Cast the parameters and move it."""
    import torch

    from serving.runtimes.torch.cuda.moving import move_in

    return move_in(model, torch.float16, device)


CONVERSION = Conversion(weight_bytes=weight_bytes, kernels=tuple, move_to_gpu=move_to_gpu)
