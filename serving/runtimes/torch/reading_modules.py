"""Read a converted model: kernels in their places, tensors where their file is mapped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from serving.errors import ConfigError
from serving.runtimes.torch.kernels.kernel_module import KernelModule
from serving.runtimes.torch.writing_modules import MODULES, WEIGHTS, full_name, own_tensors


def read_modules(
    model: nn.Module, folder: Path, kernel_classes: Iterable[type[KernelModule]]
) -> None:
    """Give ``model`` the modules and tensors that ``write_modules`` wrote.

    Tensors lie where the file is mapped, and their pages come in when they are used. What a kernel
    packs into a layout of its own becomes a private copy; the file's pages are let go of then.

    Args:
        model: Made from the same configuration, on the meta device.
        folder: What ``write_modules`` wrote to.
        kernel_classes: The classes that kernels may have; the file names them, but adds none.

    Raises:
        ConfigError: The files are of another model or of other kernels, the CPU cannot run a
            kernel, or ``model`` has a tensor that they do not give.
    """
    description = json.loads((folder / MODULES).read_text(encoding="utf-8"))
    classes = {kind.__name__: kind for kind in kernel_classes}
    with (
        safe_open(folder / WEIGHTS, framework="pt") as file,
        safe_open(folder / WEIGHTS, framework="pt") as passing,
    ):
        tensors = _MappedTensors(file, passing, description["tied"])
        for kernel in description["kernels"]:
            if kernel["kind"] not in classes:
                raise ConfigError(
                    f"{folder / MODULES}: {kernel['kind']} is no kernel of this recipe; it has "
                    f"{', '.join(classes) or 'none'}"
                )
            _put_kernel(model, kernel, classes[kernel["kind"]], tensors)
        for path, module in model.named_modules(remove_duplicate=False):
            if not isinstance(module, KernelModule):
                _put_tensors(module, path, tensors)
    if lost := sorted(_left_on_meta(model)):
        more = " …" if len(lost) > 3 else ""
        raise ConfigError(f"{folder / WEIGHTS}: no numbers for {', '.join(lost[:3])}{more}")


class _MappedTensors:
    """Tensors by name; a tied one is the same object under each of its names."""

    def __init__(self, file: Any, passing: Any, tied: Mapping[str, str]) -> None:
        self._file, self._passing, self._tied = file, passing, tied
        self._stored = set(file.keys())
        self._taken: dict[str, Tensor] = {}
        self._parameters: dict[str, nn.Parameter] = {}

    def find(self, path: str, attribute: str) -> str | None:
        """Name under which the file holds a tensor of the module at ``path``, if it does."""
        name = full_name(path, attribute)
        first = self._tied.get(name, name)
        return first if first in self._stored else None

    def take(self, name: str) -> Tensor:
        """Return a tensor that stays."""
        if name not in self._taken:
            self._taken[name] = self._file.get_tensor(name)
        return self._taken[name]

    def take_parameter(self, name: str) -> nn.Parameter:
        """Return a tensor that stays, as a parameter."""
        if name not in self._parameters:
            self._parameters[name] = nn.Parameter(self.take(name), requires_grad=False)
        return self._parameters[name]

    def look_at(self, name: str) -> Tensor:
        """Return a tensor that is only read: its mapping is another, which ends with it."""
        tensor: Tensor = self._passing.get_tensor(name)
        return tensor


def _put_kernel(
    model: nn.Module,
    kernel: Mapping[str, Any],
    kind: type[KernelModule],
    tensors: _MappedTensors,
) -> None:
    first, *others = kernel["paths"]
    arguments: dict[str, Tensor] = {}
    for attribute in kernel["tensors"]:
        name = tensors.find(first, attribute)
        assert name is not None, f"{first}.{attribute} was written, but is gone"
        is_copied = attribute in kind.copied_tensors
        arguments[attribute] = tensors.look_at(name) if is_copied else tensors.take(name)
    module = kind.restore(kernel["settings"], arguments)
    for path in (first, *others):
        parent, _, attribute = path.rpartition(".")
        model.get_submodule(parent)._modules[attribute] = module


def _put_tensors(module: nn.Module, path: str, tensors: _MappedTensors) -> None:
    for attribute in own_tensors(module):
        name = tensors.find(path, attribute)
        if name is None:
            continue
        if attribute in module._parameters:
            module._parameters[attribute] = tensors.take_parameter(name)
        elif attribute in module._buffers:
            module._buffers[attribute] = tensors.take(name)
        else:
            vars(module)[attribute] = tensors.take(name)


def _left_on_meta(model: nn.Module) -> Iterator[str]:
    """Name every tensor that is still without numbers, also inside of lists and dictionaries."""
    for path, module in model.named_modules():
        attributes = {**vars(module), **module._parameters, **module._buffers}
        for attribute, value in attributes.items():
            if attribute not in ("_parameters", "_buffers") and any(_on_meta(value)):
                yield full_name(path, attribute)


def _on_meta(value: Any) -> Iterator[bool]:
    if isinstance(value, Tensor):
        yield value.is_meta
    elif isinstance(value, (list, tuple)):
        yield any(isinstance(item, Tensor) and item.is_meta for item in value)
    elif isinstance(value, dict):
        yield from _on_meta(list(value.values()))
