"""What a torch model occupies, in bytes."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from serving.runtimes.process_footprint import measure_process
from serving.runtimes.torch.kernels.kernel_module import KernelModule
from serving.seams import DeviceName, Footprint


def measure(weights_bytes: int, device: DeviceName) -> Footprint:
    """Return what the process occupies now around weights of a known size."""
    if device == "cuda":
        allocated, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
        return Footprint(weights_bytes, allocated, allocated, peak)
    return measure_process(weights_bytes)


def weights_bytes(model: nn.Module) -> int:
    """Sum the packed sizes of all parameters and buffers, tied ones once."""
    tensors = {id(t): t for t in chain(model.parameters(), model.buffers())}
    visible = sum(tensor_bytes(tensor) for tensor in tensors.values())
    kernels = [module for module in model.modules() if isinstance(module, KernelModule)]
    return visible + sum(module.packed_bytes() for module in kernels)


def tensor_bytes(tensor: Tensor) -> int:
    """Return the bytes that ``tensor`` stores; torchao's tensors are made of several inner ones."""
    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        return sum(tensor_bytes(getattr(tensor, name)) for name in names)
    return tensor.numel() * tensor.element_size()
