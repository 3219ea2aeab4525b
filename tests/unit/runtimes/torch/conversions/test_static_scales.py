from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from serving.runtimes.torch.conversions.layer_inputs import LayerInputs
from serving.runtimes.torch.conversions.static_scales import quantize_statically


def layer_and_rows(outlier: float) -> tuple[nn.Linear, Tensor]:
    """Inputs of like size, but for two that are ``outlier`` times larger."""
    torch.manual_seed(0)
    rows = torch.randn(100, 64)
    rows[:, :2] *= outlier
    return nn.Linear(64, 48), rows


def inputs_of(rows: Tensor) -> LayerInputs:
    return LayerInputs(rows.amin(0), rows.amax(0), [rows])


@pytest.mark.parametrize(("outlier", "is_smoothed"), [(1, False), (50, True)])
def test_inputs_are_divided_where_a_few_are_far_larger(outlier: float, is_smoothed: bool) -> None:
    linear, rows = layer_and_rows(outlier)
    layer = quantize_statically(linear, inputs_of(rows))
    assert (layer.shares is not None) is is_smoothed


def test_the_division_keeps_the_small_inputs() -> None:
    linear, rows = layer_and_rows(outlier=50)
    layer = quantize_statically(linear, inputs_of(rows))
    rows[:, :2] = 0
    expected = functional.linear(rows, linear.weight, linear.bias)
    error = torch.linalg.norm(layer(rows) - expected) / torch.linalg.norm(expected)
    # Rounded at one scale, set by the large ones, 50 times the usual step would be lost: over 0.3.
    assert error < 0.1
