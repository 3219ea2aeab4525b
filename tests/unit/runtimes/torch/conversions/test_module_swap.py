from __future__ import annotations

import gc
import weakref

import torch
from torch import nn

from serving.runtimes.torch.conversions.module_swap import cast_parameters, swap_modules


def test_nested_modules_are_replaced_and_freed_one_by_one() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 2)))
    model.register_module("absent", None)
    weights = [weakref.ref(m.weight) for m in model.modules() if isinstance(m, nn.Linear)]
    alive: list[int] = []

    def convert(module: nn.Module) -> nn.Module | None:
        gc.collect()
        alive.append(sum(weight() is not None for weight in weights))
        return nn.Identity() if type(module) is nn.Linear else None

    swap_modules(model, convert)
    assert [type(m) for m in model.modules() if not list(m.children())] == [
        nn.Identity,
        nn.ReLU,
        nn.Identity,
    ]
    # When the second linear layer is converted, the first one is gone.
    assert alive[-1] == 1
    gc.collect()
    assert [weight() for weight in weights] == [None, None]


def test_parameters_are_copied_and_buffers_are_not() -> None:
    model = nn.BatchNorm1d(3)
    old, statistics = model.weight.data_ptr(), model.running_mean
    cast_parameters(model, torch.float32)
    assert model.weight.data_ptr() != old
    cast_parameters(model, torch.bfloat16)
    assert model.weight.dtype == torch.bfloat16
    assert model.running_mean is statistics
