"""Replace a model's modules one at a time, so that the memory of the old ones is free at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

Convert = Callable[[nn.Module], nn.Module | None]
"""Returns the replacement of a module, or None to look at its children instead."""


def swap_modules(model: nn.Module, convert: Convert, keep: frozenset[str] = frozenset()) -> None:
    """Replace every module below ``model`` for which ``convert`` returns another one.

    Modules whose attribute name is in ``keep`` stay as they are, with all below them.
    No reference to a replaced module is kept: the peak is the unconverted model and one module.
    """
    for name in list(model._modules):
        child = model._modules[name]
        if child is None or name in keep:
            continue
        replacement = convert(child)
        if replacement is None:
            swap_modules(child, convert, keep)
        else:
            setattr(model, name, replacement)


def cast_parameters(model: nn.Module, dtype: torch.dtype) -> None:
    """Convert all parameters in place, but no buffers: scales are buffers, and stay exact.

    Copies even those that have ``dtype`` already: parameters as loaded are views of the mapped
    checkpoint file, and a single one keeps the whole of it resident.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype, copy=True)
