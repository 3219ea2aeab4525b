"""Against a float64 reference that quantizes at the given scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from serving.machine.isa import multiplies_int8_exactly
from serving.runtimes.torch.footprint import weights_bytes
from serving.runtimes.torch.kernels.fbgemm_weights import weight_steps
from serving.runtimes.torch.kernels.int8_static_linear import Int8StaticLinear
from serving.runtimes.torch.packed_sizes import int8_linear_bytes

SHAPES = [(64, 32), (100, 33), (384, 384), (7, 5)]
NEEDS_VNNI = pytest.mark.skipif(not multiplies_int8_exactly(), reason="8-bit sums saturate here")
EXACTNESS = [pytest.param(True, marks=NEEDS_VNNI), False]


def layer_and_input(inputs: int, outputs: int, seed: int) -> tuple[nn.Linear, Tensor]:
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs), torch.randn(3, 5, inputs) + 0.3


def ends(x: Tensor) -> tuple[Tensor, Tensor]:
    rows = x.flatten(0, -2)
    return rows.amin(0), rows.amax(0)


def reference(weight: Tensor, bias: Tensor, x: Tensor, steps: int) -> NDArray[np.float64]:
    wide = weight.double().numpy()
    weight_scale = np.abs(wide).max(1, keepdims=True) / steps
    weight8 = np.rint(wide / weight_scale) * weight_scale
    values = x.double().numpy()
    low, high = min(values.min(), 0), max(values.max(), 0)
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    values8 = (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
    return values8 @ weight8.T + bias.double().numpy()


@pytest.mark.parametrize("exact", EXACTNESS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
@pytest.mark.parametrize("has_factors", [False, True])
def test_it_equals_the_reference(
    inputs: int, outputs: int, seed: int, exact: bool, has_factors: bool
) -> None:
    linear, x = layer_and_input(inputs, outputs, seed)
    factors = torch.rand(inputs) + 0.5 if has_factors else None
    y = Int8StaticLinear.of(linear, *ends(x), factors, exact)(x).double().numpy()
    weight, bias = linear.weight.detach(), linear.bias.detach()
    scaled, multiplied = (x, weight) if factors is None else (x * (1 / factors), weight * factors)
    # float32 may round one input of a token to the other side of a half: one step, times one
    # weight. Besides that only the float32 rounding of scales and of the result.
    one_step = float(scaled.max() - scaled.min()) / 255 * float(multiplied.abs().max())
    off = np.abs(y - reference(multiplied, bias, scaled, weight_steps(exact)))
    assert (off <= one_step + 1e-5).all()
    assert (off <= 0.01 * one_step + 1e-5).mean() > 0.95


@pytest.mark.parametrize("exact", EXACTNESS)
def test_what_lies_beyond_the_range_is_cut(exact: bool) -> None:
    linear, x = layer_and_input(64, 32, seed=0)
    low, high = torch.full((64,), -1.0), torch.full((64,), 2.0)
    layer = Int8StaticLinear.of(linear, low, high, None, exact)
    # The ends are one step off at most, where the zero point was rounded.
    step = 3 / 255 * float(linear.weight.detach().abs().sum(1).max())
    torch.testing.assert_close(layer(x * 100), layer((x * 100).clamp(-1, 2)), rtol=0, atol=step)


@pytest.mark.parametrize("exact", EXACTNESS)
def test_sums_do_not_saturate(exact: bool) -> None:
    linear = nn.Linear(512, 32)
    nn.init.constant_(linear.weight, 0.5)
    nn.init.zeros_(linear.bias)
    ones = torch.ones(512)
    # All products at their largest: kernels that add pairs in 16 bits lose here with 8-bit inputs.
    y = Int8StaticLinear.of(linear, 0 * ones, ones, None, exact)(torch.ones(4, 512))
    torch.testing.assert_close(y, torch.full((4, 32), 256.0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("rows", [1, 2, 7, 15])
def test_a_token_does_not_depend_on_its_batch(rows: int) -> None:
    linear, x = layer_and_input(384, 96, seed=3)
    layer, tokens = Int8StaticLinear.of(linear, *ends(x)), x.flatten(0, 1)
    assert torch.equal(layer(tokens)[:rows], layer(tokens[:rows]))


def test_a_layer_that_only_saw_zeros_gives_its_bias() -> None:
    linear, _ = layer_and_input(64, 48, seed=4)
    layer = Int8StaticLinear.of(linear, torch.zeros(64), torch.zeros(64))
    y = layer(torch.zeros(2, 64))
    torch.testing.assert_close(y, linear.bias.detach().expand(2, -1), rtol=0, atol=1e-7)


@pytest.mark.parametrize("has_factors", [False, True])
def test_it_comes_back_from_what_it_stores(has_factors: bool) -> None:
    linear, x = layer_and_input(96, 40, seed=5)
    factors = torch.rand(96) + 0.5 if has_factors else None
    layer = Int8StaticLinear.of(linear, *ends(x), factors)
    stored = {name: tensor.clone() for name, tensor in layer.stored_tensors().items()}
    assert stored["weight"].dtype == torch.int8
    restored = Int8StaticLinear.restore(layer.settings(), stored)
    assert torch.equal(restored(x), layer(x))


def test_its_size_is_counted() -> None:
    linear, x = layer_and_input(64, 32, seed=0)
    plain, smooth = (
        Int8StaticLinear.of(linear, *ends(x), factors) for factors in (None, torch.ones(64))
    )
    assert weights_bytes(plain) == int8_linear_bytes((32, 64)) + 32 * 4
    assert weights_bytes(smooth) == weights_bytes(plain) + 64 * 4
