"""HQQ: offsets that leave most numbers nearly exact and a few far off, by a half-quadratic solver.

After Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning Models" (2023). It
looks at the weight alone. Errors e of a group count as |e|^0.7, which weighs a few large ones less
than squares would. A second variable takes those large ones over, and is pulled towards the errors
more strongly at each turn; between, the offset has a closed form. With the pull of the original's
own program, which is kept here, it takes over errors above 0.17: of usual weights, none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from serving.runtimes.torch.kernels.int4_codes import (
    Int4Codes,
    as_stored,
    nearest_codes,
    plain_grid,
)

POWER = 0.7
PULL, GROWTH = 10.0, 1.01
"""How strongly the second variable is pulled at first, and how much more at each turn."""

TURNS = 20

ROWS = 256
"""Rounded at a time, as of ``kernels.int4_rounding``."""


def round_by_hqq(weight: Tensor, group_size: int) -> Int4Codes:
    """Choose codes and offsets of a weight (out, in); scales are those of its plain grid."""
    parts = []
    for rows in torch.split(weight, ROWS):
        groups = rows.reshape(len(rows), -1, group_size)
        scale, offset = plain_grid(groups, symmetric=False)
        offset = as_stored(solve_offset(groups, scale, offset))
        codes = nearest_codes(groups, scale, offset).flatten(1).to(torch.int32)
        parts.append((codes, scale.squeeze(2).bfloat16(), offset.squeeze(2).bfloat16()))
    return Int4Codes(*(torch.cat(part) for part in zip(*parts, strict=True)))


def solve_offset(groups: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Improve the offset of each group until the mean error of all of them grows.

    The original counts in codes: its zero is 8 less the offset in scales, and its mean runs over
    the same numbers. Its pull is that on weights as they are.

    Args:
        groups: (out, groups, numbers of a group).
        scale: (out, groups, 1).
        offset: Where to begin, (out, groups, 1).

    Returns:
        The best offsets that were met, (out, groups, 1), not rounded.
    """
    best, least, pull = offset, float("inf"), PULL
    for _ in range(TURNS):
        steps = (nearest_codes(groups, scale, offset) - 8) * scale
        error = groups - steps - offset
        mean = float(error.abs().mean())
        if mean >= least:
            break
        best, least = offset, mean
        offset = (groups - _shrunk(error, pull) - steps).mean(-1, keepdim=True)
        pull *= GROWTH
    return best


def _shrunk(error: Tensor, pull: float) -> Tensor:
    """The second variable: what minimises |e|^p and a square that holds it to the error."""
    size = error.abs()
    return error.sign() * (size - size.clamp_min(1e-30).pow(POWER - 1) / pull).clamp_min(0)
