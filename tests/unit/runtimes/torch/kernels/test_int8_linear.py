"""Against a float64 reference that quantizes each token on its own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from serving.machine.isa import multiplies_int8_exactly
from serving.runtimes.torch.kernels.fbgemm_weights import weight_steps
from serving.runtimes.torch.kernels.int8_linear import Int8Linear
from serving.runtimes.torch.packed_sizes import int8_linear_bytes

SHAPES = [(64, 32), (100, 33), (384, 384), (1536, 40), (7, 5)]


def layer_and_input(inputs: int, outputs: int, seed: int) -> tuple[nn.Linear, torch.Tensor]:
    torch.manual_seed(seed)
    # Tokens of very different size: one scale for all of them would lose the small ones.
    x = torch.randn(3, 5, inputs) * 10 ** torch.linspace(-3, 3, 15).view(3, 5, 1)
    return nn.Linear(inputs, outputs), x


def reference(linear: nn.Linear, x: torch.Tensor, steps: int) -> NDArray[np.float64]:
    weight = linear.weight.detach().double().numpy()
    weight_scale = np.abs(weight).max(1, keepdims=True) / steps
    weight8 = np.rint(weight / weight_scale) * weight_scale
    values = x.double().numpy()
    largest = np.abs(values).max(-1, keepdims=True)
    values8 = np.rint(values / largest * 127) / 127 * largest
    return values8 @ weight8.T + linear.bias.detach().double().numpy()


NEEDS_VNNI = pytest.mark.skipif(not multiplies_int8_exactly(), reason="8-bit sums saturate here")
EXACTNESS = [pytest.param(True, marks=NEEDS_VNNI), False]


@pytest.mark.parametrize("exact", EXACTNESS)
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_it_equals_the_reference(inputs: int, outputs: int, seed: int, exact: bool) -> None:
    linear, x = layer_and_input(inputs, outputs, seed)
    y = Int8Linear.of(linear, exact)(x).double().numpy()
    # float32 may round one input to the other side of a half: one step, times one weight. Besides
    # that only the float32 rounding of scales and of the result.
    largest = x.abs().amax(-1, keepdim=True).double().numpy()
    one_step = largest / 127 * float(linear.weight.detach().abs().max())
    expected = reference(linear, x, weight_steps(exact))
    off = np.abs(y - expected)
    assert (off <= one_step + 1e-6 * np.abs(expected) + 1e-5 * largest).all()
    assert (off <= 0.01 * one_step + 1e-6 * np.abs(expected) + 1e-5 * largest).mean() > 0.95


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_a_token_does_not_depend_on_its_batch(rows: int) -> None:
    linear, x = layer_and_input(384, 96, seed=3)
    layer, tokens = Int8Linear.of(linear), x.flatten(0, 1).repeat(6, 1)
    assert torch.equal(layer(tokens)[:rows], layer(tokens[:rows]))


@pytest.mark.parametrize("exact", EXACTNESS)
def test_sums_do_not_saturate(exact: bool) -> None:
    linear = nn.Linear(512, 32)
    nn.init.constant_(linear.weight, 0.5)
    nn.init.zeros_(linear.bias)
    # All products at their largest: kernels that add pairs in 16 bits lose here with 8-bit weights.
    y = Int8Linear.of(linear, exact)(torch.ones(4, 512))
    torch.testing.assert_close(y, torch.full((4, 32), 256.0), rtol=1e-5, atol=0)


def test_a_token_of_zeros_gives_the_bias() -> None:
    linear, _ = layer_and_input(64, 48, seed=4)
    y = Int8Linear.of(linear)(torch.zeros(2, 64))
    torch.testing.assert_close(y, linear.bias.detach().expand(2, -1), rtol=0, atol=1e-7)


def test_without_bias_and_with_an_output_of_zeros() -> None:
    linear = nn.Linear(64, 40, bias=False)
    nn.init.zeros_(linear.weight[3:4])
    y = Int8Linear.of(linear)(torch.randn(2, 64))
    assert torch.isfinite(y).all()
    assert not y[:, 3].any()
    assert y[:, 4].all()


def test_the_saved_weight_is_int8_and_within_half_a_step() -> None:
    linear, _ = layer_and_input(96, 40, seed=5)
    saved = Int8Linear.of(linear).stored_tensors()
    assert saved["weight"].dtype == torch.int8
    restored = saved["weight"] * saved["scale"][:, None]
    half_step = saved["scale"][:, None] / 2
    assert ((restored - linear.weight).abs() <= half_step * 1.0001).all()


CHILD = """
import psutil, torch
torch.backends.quantized.engine = "fbgemm"
weight, scale = torch.ones(30_000, 384, dtype=torch.int8), torch.ones(30_000).double()
tensor = torch._make_per_channel_quantized_tensor(weight, scale, torch.zeros(30_000).long(), 0)
pack = torch.ops.quantized.linear_prepack
# The first one also starts threads, which reserve address space.
packed = [pack(tensor, None)]
before = psutil.Process().memory_info().vms
packed += [pack(tensor, None) for _ in range(8)]
print((psutil.Process().memory_info().vms - before) / 8)
"""


def test_the_packed_size_is_what_the_kernel_allocates() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", CHILD], check=True, capture_output=True, text=True
    )
    # Address space, not resident memory: the padding is allocated but partly never touched.
    assert float(answer.stdout) == pytest.approx(int8_linear_bytes((30_000, 384)), rel=0.02)
