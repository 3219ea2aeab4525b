"""From a task's arrays to what a transformers model takes."""

from __future__ import annotations

import torch
from torch import Tensor

from serving.seams import Arrays, DeviceName


def as_tensors(inputs: Arrays, device: DeviceName) -> dict[str, Tensor]:
    """Return int64 tensors by the names of the model's arguments, on ``device``."""
    return {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}
