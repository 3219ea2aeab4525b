"""NF4 layers against the published numbers, against bitsandbytes, and against float64 products."""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from serving.runtimes.torch.footprint import weights_bytes
from serving.runtimes.torch.kernels.nf4_codes import LEVELS, nearest_codes, pack_pairs
from serving.runtimes.torch.kernels.nf4_linear import Nf4Linear
from serving.runtimes.torch.packed_sizes import nf4_linear_bytes

BITSANDBYTES = Path(__file__).parents[3] / "quantized_checkpoints/checkpoints/bitsandbytes-nf4"

SHAPES = [(64, 64, 32), (128, 192, 64), (384, 100, 128), (512, 2_500, 64)]
"""The last is expanded in three pieces."""


def test_levels_are_quantiles_of_a_normal_distribution() -> None:
    """8 on its upper half, 7 on its lower one, and 0; QLoRA, section 3 and appendix E."""
    last = 1 - (1 / 32 + 1 / 30) / 2
    upper = [NormalDist().inv_cdf(last + (0.5 - last) * step / 8) for step in range(8)]
    lower = [-NormalDist().inv_cdf(last + (0.5 - last) * step / 7) for step in range(7)]
    expected = sorted(level / upper[0] for level in (*upper, *lower, 0.0))
    # The published ones come of float32.
    torch.testing.assert_close(torch.tensor(LEVELS), torch.tensor(expected), rtol=1e-6, atol=1e-6)


def test_levels_are_bitsandbytes_own() -> None:
    tensors = load_file(BITSANDBYTES / "model.safetensors")
    tables = [table for name, table in tensors.items() if name.endswith("quant_map")]
    assert tables
    assert all(torch.equal(table, torch.tensor(LEVELS)) for table in tables)


def test_what_bitsandbytes_rounded_is_rounded_to_the_same() -> None:
    """Its numbers lie on the grid, so rounding them again finds its codes and magnitudes."""
    stored = load_file(BITSANDBYTES / "model.safetensors")
    for name, weight in load_file(BITSANDBYTES / "expected.safetensors").items():
        codes, magnitudes = nearest_codes(weight, 64)
        assert torch.equal(pack_pairs(codes).flatten(), stored[name].flatten())
        assert torch.equal(magnitudes.flatten(), stored[f"{name}.absmax"])
        linear = nn.Linear(weight.shape[1], len(weight), bias=False)
        linear.weight = nn.Parameter(weight)
        assert torch.equal(Nf4Linear.of(linear, 64, torch.float32).expand(), weight)


def expanded(weight: Tensor, group_size: int) -> Tensor:
    """The nearest of all levels times the block's magnitude, float64 (out, in)."""
    blocks = weight.double().unflatten(1, (-1, group_size))
    magnitudes = blocks.abs().amax(2, keepdim=True)
    grid = magnitudes.unsqueeze(3) * torch.tensor(LEVELS, dtype=torch.float64)
    places = (blocks.unsqueeze(3) - grid).abs().argmin(3, keepdim=True)
    return grid.expand(*blocks.shape, -1).gather(3, places).flatten(1)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("inputs", "outputs", "group_size"), SHAPES)
def test_each_number_becomes_the_nearest(
    inputs: int, outputs: int, group_size: int, seed: int
) -> None:
    torch.manual_seed(seed)
    linear = nn.Linear(inputs, outputs)
    found = Nf4Linear.of(linear, group_size, torch.float32).expand()
    # Products of float32 with float32, rounded once.
    torch.testing.assert_close(
        found.double(), expanded(linear.weight.detach(), group_size), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("rows", [1, 5, 100])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("inputs", "outputs", "group_size"), SHAPES)
def test_products_are_those_of_the_expanded_weight(
    inputs: int, outputs: int, group_size: int, dtype: torch.dtype, rows: int
) -> None:
    torch.manual_seed(rows)
    linear, x = nn.Linear(inputs, outputs), torch.randn(rows, inputs).to(dtype)
    weight = expanded(linear.weight.detach(), group_size)
    wanted = x.double() @ weight.T + linear.bias.detach().double()
    found = Nf4Linear.of(linear, group_size, dtype)(x)
    assert found.dtype == dtype
    # bfloat16 has 8 bits: of the weight's two factors and their product, and of the result.
    tolerance = 0.02 if dtype == torch.bfloat16 else 1e-5
    assert (found.double() - wanted).norm() / wanted.norm() < tolerance


def test_a_block_of_zeros_stays_zeros() -> None:
    linear = nn.Linear(64, 32, bias=False)
    linear.weight.data[3] = 0
    assert not Nf4Linear.of(linear, 32, torch.float32).expand()[3].any()


@pytest.mark.parametrize(("inputs", "outputs", "group_size"), SHAPES)
def test_the_estimate_is_the_size(inputs: int, outputs: int, group_size: int) -> None:
    layer = Nf4Linear.of(nn.Linear(inputs, outputs, bias=False), group_size, torch.float32)
    assert weights_bytes(layer) == nf4_linear_bytes((outputs, inputs), group_size)
