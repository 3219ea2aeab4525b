"""4-bit layers: layout, rounding and both ways to multiply, against float64 references."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from serving.runtimes.torch.footprint import weights_bytes
from serving.runtimes.torch.kernels.int4_codes import Int4Codes
from serving.runtimes.torch.kernels.int4_layout import pack_codes, unpack_centred
from serving.runtimes.torch.kernels.int4_linear import MAX_KERNEL_ROWS, Int4Linear
from serving.runtimes.torch.kernels.int4_rounding import round_to_int4
from serving.runtimes.torch.packed_sizes import int4_linear_bytes, legal_group_size

SHAPES = [(64, 64, 32), (128, 192, 64), (384, 128, 128), (1536, 384, 64)]


def dequantized(codes: Tensor, scale: Tensor, offset: Tensor, group_size: int) -> Tensor:
    """(code - 8) * scale + offset in float64, (out, in)."""
    spread = [t.double().repeat_interleave(group_size, dim=1) for t in (scale, offset)]
    return (codes.double() - 8) * spread[0] + spread[1]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("inputs", "outputs", "_"), SHAPES)
def test_unpacking_undoes_packing(inputs: int, outputs: int, _: int, seed: int) -> None:
    torch.manual_seed(seed)
    codes = torch.randint(16, (outputs, inputs), dtype=torch.int32)
    packed = pack_codes(codes)
    assert packed.nbytes == outputs * inputs // 2
    assert torch.equal(unpack_centred(packed, torch.bfloat16), (codes - 8).t().bfloat16())


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("inputs", "outputs", "group_size"), SHAPES)
def test_the_expanded_weight_is_the_reference(
    inputs: int, outputs: int, group_size: int, seed: int
) -> None:
    torch.manual_seed(seed)
    linear, importance = nn.Linear(inputs, outputs), torch.rand(inputs) + 0.1
    expected = dequantized(*round_to_int4(linear.weight.data, importance, group_size), group_size)
    layer = Int4Linear.of(linear, importance, group_size, torch.bfloat16)
    assert torch.equal(layer.expand().t(), expected.bfloat16())
    wide = Int4Linear.of(linear, importance, group_size, torch.float32)
    assert torch.equal(wide.expand().t(), expected.float())


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("inputs", "outputs", "group_size"), SHAPES)
def test_both_ways_to_multiply_equal_the_reference(
    inputs: int, outputs: int, group_size: int, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    linear, importance = nn.Linear(inputs, outputs), torch.ones(inputs)
    weight = dequantized(*round_to_int4(linear.weight.data, importance, group_size), group_size)
    layer = Int4Linear.of(linear, importance, group_size, dtype)
    x = torch.randn(MAX_KERNEL_ROWS + 1, inputs).bfloat16().to(dtype)
    expected = x.double() @ weight.T + linear.bias.detach().double()
    for rows in (MAX_KERNEL_ROWS, MAX_KERNEL_ROWS + 1):
        y = layer(x[:rows]).double()
        # bfloat16 keeps 8 bits: half of 2^-8 for the weight, the result and the sum with the bias.
        error = torch.linalg.norm(y - expected[:rows]) / torch.linalg.norm(expected[:rows])
        assert error < 2**-8


def test_outputs_are_padded_to_whole_blocks_and_cut_again() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 70, bias=False)
    layer = Int4Linear.of(linear, torch.ones(64), 32, torch.bfloat16)
    x = torch.randn(2, 50, 64).bfloat16()
    assert layer(x).shape == (2, 50, 70)
    # A slice of every other token is not contiguous, which the kernel alone would refuse.
    some = x[:, ::2]
    torch.testing.assert_close(layer(some), layer(x)[:, ::2], rtol=0.02, atol=0.01)
    assert weights_bytes(layer) == int4_linear_bytes((70, 64), 32) == 128 * 32 + 128 * 2 * 4


@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_rounding_beats_plain_ranges(group_size: int) -> None:
    torch.manual_seed(0)
    weight, importance = torch.randn(64, 256), torch.rand(256) ** 4 + 0.01
    found = dequantized(*round_to_int4(weight, importance, group_size), group_size)
    groups = weight.double().view(64, -1, group_size)
    low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
    step = (high - low) / 15
    plain = (((groups - low) / step).round() * step + low).view_as(weight)

    def error(rounded: Tensor) -> float:
        return float(((rounded - weight).square() * importance).sum())

    # Clipping and fitting together bring a quarter on normal weights; leave room for other seeds.
    assert error(found) < 0.85 * error(plain)


def test_weights_on_a_4_bit_grid_survive() -> None:
    torch.manual_seed(0)
    codes = torch.randint(16, (32, 128))
    codes[:, ::64], codes[:, 1::64] = 0, 15
    weight = (codes - 8) * 0.25 + 0.5
    found = dequantized(*round_to_int4(weight, torch.ones(128), 64), 64)
    assert torch.equal(found, weight.double())


def test_constant_groups_survive() -> None:
    weight = torch.full((4, 64), 0.75)
    weight[1] = 0
    found = dequantized(*round_to_int4(weight, torch.ones(64), 64), 64)
    np.testing.assert_allclose(found.numpy(), weight.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "wanted", "legal"),
    [(384, 128, 128), (384, 64, 64), (96, 128, 32), (320, 128, 64), (100, 64, None)],
)
def test_the_group_fits_the_layer(inputs: int, wanted: int, legal: int | None) -> None:
    assert legal_group_size(inputs, wanted) == legal


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_inputs_are_multiplied_by_their_shares(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    linear, shares = nn.Linear(64, 70), (torch.rand(64) + 0.5).bfloat16().float()
    plain = Int4Codes(*round_to_int4(linear.weight.data, torch.ones(64), 32))
    layer = Int4Linear.of_codes(replace(plain, shares=shares), linear.bias, dtype)
    weight = replace(plain, shares=shares).expanded()
    assert torch.equal(weight, plain.expanded() * shares.double())
    x = torch.randn(MAX_KERNEL_ROWS + 1, 64).bfloat16().to(dtype)
    expected = x.double() @ weight.T + linear.bias.detach().double()
    for rows in (MAX_KERNEL_ROWS, MAX_KERNEL_ROWS + 1):
        error = torch.linalg.norm(layer(x[:rows]).double() - expected[:rows])
        # As without shares, and one more rounding of the inputs.
        assert error / torch.linalg.norm(expected[:rows]) < 2**-7
    again = Int4Linear.restore(layer.settings(), layer.stored_tensors())
    assert torch.equal(again(x), layer(x))
