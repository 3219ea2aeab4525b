"""What a torch model occupies, in bytes."""

from __future__ import annotations

import resource
from itertools import chain
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from serving.runtimes.torch.kernels.packed_module import PackedModule
from serving.seams import DeviceName, Footprint


def measure(model: nn.Module, device: DeviceName) -> Footprint:
    """Return what ``model`` and the process around it occupy now."""
    if device == "cuda":
        resident, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    else:
        resident = psutil.Process().memory_info().rss
        peak = peak_resident_bytes()
    return Footprint(weights_bytes(model), disk_bytes(model), resident, max(peak, resident))


def peak_resident_bytes() -> int:
    """Return the largest resident memory of this process so far.

    ``ru_maxrss`` would start from what the process had that forked this one.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def weights_bytes(model: nn.Module) -> int:
    """Sum the packed sizes of all parameters and buffers, tied ones once."""
    tensors = {id(t): t for t in chain(model.parameters(), model.buffers())}
    visible = sum(tensor_bytes(tensor) for tensor in tensors.values())
    packed = [module for module in model.modules() if isinstance(module, PackedModule)]
    return visible + sum(module.packed_bytes() for module in packed)


def disk_bytes(model: nn.Module) -> int:
    """Sum the sizes of all tensors of ``state_dict``, tied ones once.

    The dictionary itself would bring packed weights back into rows, which takes as much memory
    again as they do.
    """
    tensors: dict[int, Tensor] = {}
    packed = 0
    for module in model.modules():
        left_out = module._non_persistent_buffers_set
        saved = [tensor for name, tensor in module._buffers.items() if name not in left_out]
        found = chain(module._parameters.values(), saved)
        tensors |= {id(tensor): tensor for tensor in found if tensor is not None}
        if isinstance(module, PackedModule):
            packed += module.saved_bytes()
    return packed + sum(tensor_bytes(tensor) for tensor in tensors.values())


def tensor_bytes(tensor: Tensor) -> int:
    """Return the bytes that ``tensor`` stores; torchao's tensors are made of several inner ones."""
    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        return sum(tensor_bytes(getattr(tensor, name)) for name in names)
    return tensor.numel() * tensor.element_size()
