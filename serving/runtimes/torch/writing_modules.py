"""Write a converted model: its tensors, and which modules are kernels with what settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from serving.runtimes.torch.aligned_file import save_aligned
from serving.runtimes.torch.kernels.kernel_module import KernelModule

WEIGHTS, MODULES = "weights.safetensors", "modules.json"


def write_modules(model: nn.Module, folder: Path) -> None:
    """Write every parameter, buffer and tensor attribute of ``model``, tied ones once.

    Each ``KernelModule`` writes what it is made from instead. ``read_modules`` reads it.
    """
    tensors: dict[str, Tensor] = {}
    first_names: dict[int, str] = {}
    tied: dict[str, str] = {}
    kernels: dict[int, dict[str, Any]] = {}
    for path, module in _outermost(model):
        if id(module) in kernels:
            kernels[id(module)]["paths"].append(path)
            continue
        if isinstance(module, KernelModule):
            found = module.stored_tensors()
            kernels[id(module)] = {
                "paths": [path],
                "kind": type(module).__name__,
                "settings": module.settings(),
                "tensors": sorted(found),
            }
        else:
            found = own_tensors(module)
        for attribute, tensor in found.items():
            name = full_name(path, attribute)
            first = first_names.setdefault(id(tensor), name)
            if first == name:
                tensors[name] = tensor
            else:
                tied[name] = first
    save_aligned(tensors, folder / WEIGHTS)
    description = {"kernels": list(kernels.values()), "tied": tied}
    (folder / MODULES).write_text(json.dumps(description, indent=1), encoding="utf-8")


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return tensors of the module itself: parameters, buffers and plain attributes, by name."""
    found = {**module._parameters, **module._buffers, **vars(module)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def full_name(path: str, attribute: str) -> str:
    """Name a tensor, or a module, of the module at ``path``; the model's own path is empty."""
    return f"{path}.{attribute}" if path else attribute


def _outermost(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Every module under every path that leads to it, but nothing inside of a kernel."""
    yield path, module
    if not isinstance(module, KernelModule):
        for name, child in module._modules.items():
            if child is not None:
                yield from _outermost(child, full_name(path, name))
