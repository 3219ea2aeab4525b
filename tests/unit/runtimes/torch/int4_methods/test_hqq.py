"""HQQ's solver against its published steps, which count in codes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from serving.runtimes.torch.int4_methods.hqq import round_by_hqq, solve_offset
from serving.runtimes.torch.int4_methods.rtn import round_to_nearest
from serving.runtimes.torch.kernels.int4_codes import plain_grid
from tests.unit.runtimes.torch.int4_methods.layers import weight_and_inputs


def published(groups: Tensor, inverse_scale: Tensor, zero: Tensor) -> Tensor:
    """The zero with the least error among those that the published steps pass through."""
    pull, power, best, least = 10.0, 0.7, zero, float("inf")
    for _ in range(20):
        codes = torch.round(groups * inverse_scale + zero).clamp(0, 15)
        reconstructed = (codes - zero) / inverse_scale
        error = groups - reconstructed
        if error.abs().mean() >= least:
            break
        best, least = zero, float(error.abs().mean())
        shrunk = error.abs() - (1 / pull) * error.abs().pow(power - 1)
        rest = torch.sign(error) * torch.relu(shrunk)
        zero = torch.mean(codes - (groups - rest) * inverse_scale, dim=2, keepdim=True)
        pull *= 1.01
    return best


@pytest.mark.parametrize("spread", [0.05, 1.0, 10.0])
def test_offsets_are_those_of_the_published_steps(spread: float) -> None:
    weight, _ = weight_and_inputs()
    groups = weight.view(16, 2, 32) * spread
    scale, offset = plain_grid(groups, symmetric=False)
    zero = published(groups, 1 / scale, 8 - offset / scale)
    found = solve_offset(groups, scale, offset)
    torch.testing.assert_close(found, (8 - zero) * scale, rtol=1e-9, atol=1e-12)
    assert not torch.equal(found, offset)


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_off_by_less_than_those_rounded_to_the_nearest(seed: int) -> None:
    weight, _ = weight_and_inputs(outputs=300, seed=seed)  # more rows than are rounded at a time
    hqq, plain = round_by_hqq(weight, 32), round_to_nearest(weight, 32, symmetric=False)
    assert torch.equal(hqq.scales, plain.scales)
    errors = [float((codes.expanded() - weight).abs().mean()) for codes in (hqq, plain)]
    assert errors[0] < errors[1]
