"""Against a float64 reference that quantizes each token on its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from serving.machine.isa import multiplies_int8_exactly
from serving.runtimes.torch.footprint import weights_bytes
from serving.runtimes.torch.kernels.fbgemm_weights import weight_steps
from serving.runtimes.torch.kernels.int8_compact_linear import Int8CompactLinear
from serving.runtimes.torch.kernels.int8_linear import Int8Linear
from serving.runtimes.torch.packed_sizes import int8_compact_linear_bytes

SHAPES = [(64, 64), (128, 192), (576, 320), (1536, 64), (100, 33), (7, 5)]
NEEDS_VNNI = pytest.mark.skipif(not multiplies_int8_exactly(), reason="8-bit sums saturate here")
EXACTNESS = [pytest.param(True, marks=NEEDS_VNNI), False]


def layer_and_input(
    inputs: int, outputs: int, seed: int, rows: int = 15
) -> tuple[nn.Linear, Tensor]:
    torch.manual_seed(seed)
    # Tokens of very different size: one scale for all of them would lose the small ones.
    x = torch.randn(rows, inputs) * 10 ** torch.linspace(-3, 3, rows)[:, None]
    return nn.Linear(inputs, outputs), x


def reference(linear: nn.Linear, x: Tensor, steps: int) -> NDArray[np.float64]:
    weight = linear.weight.detach().double().numpy()
    weight_scale = np.abs(weight).max(1, keepdims=True) / steps
    weight8 = np.rint(weight / weight_scale) * weight_scale
    values = x.double().numpy()
    largest = np.abs(values).max(-1, keepdims=True)
    values8 = np.floor(values / largest * 127 + 0.5) / 127 * largest
    return values8 @ weight8.T + linear.bias.detach().double().numpy()


@pytest.mark.parametrize("exact", EXACTNESS)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_it_equals_the_reference(inputs: int, outputs: int, seed: int, exact: bool) -> None:
    linear, x = layer_and_input(inputs, outputs, seed)
    y = Int8CompactLinear.of(linear, exact)(x).double().numpy()
    assert y.shape == (15, outputs)
    # float32 may round one input of a token to the other side of a half: one step, times one
    # weight. Besides that only the float32 rounding of scales and of the result.
    largest = x.abs().amax(-1, keepdim=True).double().numpy()
    one_step = largest / 127 * float(linear.weight.detach().abs().max())
    expected = reference(linear, x, weight_steps(exact))
    off = np.abs(y - expected)
    assert (off <= one_step + 1e-6 * np.abs(expected) + 1e-5 * largest).all()
    assert (off <= 0.01 * one_step + 1e-6 * np.abs(expected) + 1e-5 * largest).mean() > 0.85


@pytest.mark.parametrize("exact", EXACTNESS)
def test_its_numbers_are_those_of_the_padded_layer(exact: bool) -> None:
    linear, x = layer_and_input(576, 128, seed=6)
    compact, padded = Int8CompactLinear.of(linear, exact)(x), Int8Linear.of(linear, exact)(x)
    error = torch.linalg.norm(compact - padded, dim=1) / torch.linalg.norm(padded, dim=1)
    # The same codes but where a value lies on a half, which one rounds up and the other to even.
    assert error.median() < 1e-6
    assert error.max() < 1e-3


@pytest.mark.parametrize("rows", [1, 2, 7, 64, 90])
@pytest.mark.parametrize("seed", range(3))
def test_a_token_does_not_depend_on_its_batch(rows: int, seed: int) -> None:
    linear, x = layer_and_input(576, 192, seed, rows=90)
    layer = Int8CompactLinear.of(linear)
    # Sums of integers have no rounding that their order could change. With AMX, the kernel for many
    # rows multiplies the two scales in another order than that for few: the last bit of a float32.
    for part in (slice(rows), slice(rows - 1, rows)):
        torch.testing.assert_close(layer(x)[part], layer(x[part]), rtol=2**-22, atol=1e-9)


@pytest.mark.parametrize("exact", EXACTNESS)
def test_sums_do_not_saturate(exact: bool) -> None:
    linear = nn.Linear(512, 64)
    nn.init.constant_(linear.weight, 0.5)
    nn.init.zeros_(linear.bias)
    # All products at their largest: kernels that add pairs in 16 bits lose here with 8-bit weights.
    y = Int8CompactLinear.of(linear, exact)(torch.ones(4, 512))
    torch.testing.assert_close(y, torch.full((4, 64), 256.0), rtol=1e-5, atol=0)
    y = Int8CompactLinear.of(linear, exact)(-torch.ones(4, 512))
    torch.testing.assert_close(y, torch.full((4, 64), -256.0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("size", [0.0, 1e-42, 1e-38, 1e-30])
def test_tokens_of_zeros_or_next_to_nothing_give_the_bias(size: float) -> None:
    linear, x = layer_and_input(64, 48, seed=4, rows=3)
    tokens = torch.stack([x[1], torch.full((64,), size), x[2]])
    y = Int8CompactLinear.of(linear)(tokens)
    torch.testing.assert_close(y[1], linear.bias.detach(), rtol=0, atol=1e-7)
    assert torch.equal(y[[0, 2]], Int8CompactLinear.of(linear)(x[1:]))


def test_without_bias_and_with_an_output_of_zeros() -> None:
    linear = nn.Linear(64, 40, bias=False)
    nn.init.zeros_(linear.weight[3:4])
    y = Int8CompactLinear.of(linear)(torch.randn(2, 64))
    assert torch.isfinite(y).all()
    assert not y[:, 3].any()
    assert y[:, 4].all()


def test_the_saved_weight_is_int8_and_within_half_a_step() -> None:
    linear, _ = layer_and_input(128, 40, seed=5)
    saved = Int8CompactLinear.of(linear).stored_tensors()
    assert set(saved) == {"weight", "scale", "bias"}
    assert saved["weight"].dtype == torch.int8
    restored = saved["weight"] * saved["scale"][:, None]
    half_step = saved["scale"][:, None] / 2
    assert ((restored - linear.weight).abs() <= half_step * 1.0001).all()
    assert torch.equal(saved["bias"], linear.bias.detach())


def test_its_size_is_counted() -> None:
    layer = Int8CompactLinear.of(nn.Linear(576, 192, bias=False))
    # The two constants of a layer are eight bytes more.
    assert weights_bytes(layer) == int8_compact_linear_bytes((192, 576)) + 8
    assert int8_compact_linear_bytes((192, 576)) == 192 * 576 + 192 * 8
    assert int8_compact_linear_bytes((33, 100)) == 64 * 128 + 33 * 8
