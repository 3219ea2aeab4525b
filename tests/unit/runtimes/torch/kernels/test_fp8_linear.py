"""Layers of 8-bit floats, against float64 products of the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from serving.runtimes.torch.footprint import weights_bytes
from serving.runtimes.torch.kernels.fp8_linear import LARGEST, Fp8Linear
from serving.runtimes.torch.packed_sizes import fp8_linear_bytes


@pytest.mark.parametrize("rows", [1, 5, 100])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_products_are_those_of_the_stored_numbers(seed: int, dtype: torch.dtype, rows: int) -> None:
    torch.manual_seed(seed)
    linear, x = nn.Linear(96, 40), torch.randn(rows, 96).to(dtype)
    layer = Fp8Linear.of(linear, dtype)
    weight = layer.weight.double() * layer.scale.double().unsqueeze(1)
    wanted = x.double() @ weight.T + linear.bias.detach().double()
    found = layer(x)
    assert found.dtype == dtype
    # Of bfloat16's 8 bits the weights need 4, so that only sums and results are rounded.
    tolerance = 0.01 if dtype == torch.bfloat16 else 1e-6
    assert (found.double() - wanted).norm() / wanted.norm() < tolerance


def test_each_number_is_within_half_a_step_of_the_float_one() -> None:
    """3 bits of mantissa: a step is an eighth of the power of two below the number."""
    torch.manual_seed(0)
    linear = nn.Linear(256, 64)
    layer = Fp8Linear.of(linear, torch.float32)
    assert layer.weight.float().abs().amax(1).eq(LARGEST).all()
    wanted = linear.weight.detach() / layer.scale.unsqueeze(1)
    # Below 2**-6 steps no longer get smaller.
    step = 2.0 ** (wanted.abs().clamp_min(2**-6).log2().floor() - 3)
    assert ((layer.weight.float() - wanted).abs() <= step / 2 * (1 + 1e-6)).all()


def test_an_output_of_zeros_stays_zeros() -> None:
    linear = nn.Linear(64, 32, bias=False)
    linear.weight.data[3] = 0
    assert not Fp8Linear.of(linear, torch.float32)(torch.randn(2, 64))[:, 3].any()


def test_the_estimate_is_the_size() -> None:
    layer = Fp8Linear.of(nn.Linear(96, 40, bias=False), torch.float32)
    assert weights_bytes(layer) == fp8_linear_bytes((40, 96))
