"""Rounding to the nearest, and the grids that other methods begin with."""

from __future__ import annotations

import pytest
import torch

from serving.runtimes.torch.int4_methods.rtn import round_to_nearest
from serving.runtimes.torch.kernels.int4_codes import plain_grid
from tests.unit.runtimes.torch.int4_methods.layers import weight_and_inputs


@pytest.mark.parametrize("symmetric", [False, True])
def test_no_number_is_further_off_than_half_a_step(symmetric: bool) -> None:
    weight, _ = weight_and_inputs()
    found = round_to_nearest(weight, 32, symmetric)
    step = found.scales.double().repeat_interleave(32, 1)
    # Scales and offsets keep 8 bits: at the ends of a grid, 8 steps away, the grid is off itself.
    assert ((found.expanded() - weight).abs() <= step * (0.5 + 16 * 2**-8)).all()
    assert found.codes.min() >= 0
    assert found.codes.max() <= 15


def test_symmetric_grids_have_no_offsets_and_reach_both_ends() -> None:
    weight, _ = weight_and_inputs()
    found = round_to_nearest(weight, 32, symmetric=True)
    assert not found.offsets.any()
    assert ((found.codes.view(16, 2, 32) - 8).abs().amax(2) == 7).all()


def test_a_grid_of_offsets_reaches_from_the_least_to_the_largest() -> None:
    groups = torch.tensor([[[-1.0, 0.5, 2.0, 2.75]]])
    scale, offset = plain_grid(groups, symmetric=False)
    assert (float(scale), float(offset)) == (0.25, 1.0)
    assert round_to_nearest(groups[0], 4, symmetric=False).codes.tolist() == [[0, 6, 12, 15]]


def test_constant_groups_survive() -> None:
    weight = torch.tensor([[0.75] * 32, [0.0] * 32])
    assert torch.equal(round_to_nearest(weight, 32, symmetric=False).expanded(), weight.double())
    assert not round_to_nearest(weight, 32, symmetric=True).expanded()[1].any()
