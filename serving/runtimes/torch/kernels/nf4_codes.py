"""NormalFloat of 4 bits: 16 quantiles of a normal distribution, and the codes that mean them."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

LEVELS = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The numbers of a block whose largest magnitude is 1 (QLoRA, arXiv:2305.14314, appendix E)."""


def nearest_codes(weight: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """Round each number to the nearest level times its block's largest magnitude.

    Args:
        weight: float32 (out, in).
        group_size: Inputs of a block; divides ``in``.

    Returns:
        Codes, uint8 (out, in), the places in ``LEVELS``; magnitudes, float32 (out, blocks).
    """
    blocks = weight.view(len(weight), -1, group_size)
    magnitudes = blocks.abs().amax(2)
    # A block of zeros has no largest magnitude, and every level times 0 is right for it.
    unit = blocks / magnitudes.masked_fill(magnitudes == 0, 1.0).unsqueeze(2)
    levels = torch.tensor(LEVELS)
    between = (levels[1:] + levels[:-1]) / 2
    return torch.bucketize(unit, between).to(torch.uint8).flatten(1), magnitudes


def pack_pairs(codes: Tensor) -> Tensor:
    """Put two neighbours into a byte, the first into its high half: uint8 (out, in / 2)."""
    return codes[:, ::2] << 4 | codes[:, 1::2]


def look_up(packed: Tensor, dtype: torch.dtype) -> Tensor:
    """The levels that bytes of ``pack_pairs`` mean, of a type, all in one row.

    A pair is looked up as a single number: for each number alone, or by ``embedding``, the same
    takes some five times as long (``benchmarks.expanding``).
    """
    return _pairs(dtype).index_select(0, packed.flatten().int()).view(dtype)


@cache
def _pairs(dtype: torch.dtype) -> Tensor:
    levels = torch.tensor(LEVELS, dtype=dtype)
    pairs = torch.stack([levels.repeat_interleave(16), levels.repeat(16)], dim=1)
    as_one = torch.int64 if dtype == torch.float32 else torch.int32
    return pairs.view(as_one).flatten()
