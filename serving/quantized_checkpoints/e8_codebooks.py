"""QuIP#'s codebooks of the lattice E8: eight weights for a code (arXiv:2402.04396, section 4)."""

from __future__ import annotations

from functools import cache
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import embedding

_ONES_OF_29 = (
    "123 023 013 012 367 357 347 356 346 345 267 257 247 256 246 "
    "245 167 157 147 156 146 045 067 057 047 056 046 014 237"
)
"""Of the 29 magnitudes of norm 12 that are taken, where 1/2 stands; 3/2 stands elsewhere."""

_SIGN_BITS = (0, 4, 1, 5, 2, 6, 3, 7)
"""The bit of each coordinate's sign: those of even coordinates come first."""


def read_e8p(words: Tensor) -> Tensor:
    """Weights of two bits each.

    A block of 32 words is 8 pairs of rows by 4 groups of 16 columns, each a word of four codes: of
    the upper row, the lower, and both again for the columns 8 to 15. A word's low half has the four
    magnitudes in a byte each; its high half the signs, bit by bit of all four codes.

    Args:
        words: int64 (outputs, inputs / 32), outputs a multiple of 16 and inputs of 64.

    Returns:
        float32 (outputs, inputs), multiples of 1/4.
    """
    outputs, width = words.shape
    blocks = outputs // 16, width // 2, 8, 4
    # Eight planes of bytes, the lowest first: operations on bytes take an eighth of the time.
    planes = words.reshape(*blocks, 1).view(torch.uint8).movedim(-1, 0).contiguous()
    codes = torch.stack([_code_of(planes, number) for number in range(4)], -1)
    # (block of rows, of columns, pair, group, columns' half, row of the pair)
    codes = codes.reshape(*blocks, 2, 2).permute(0, 2, 5, 1, 3, 4)
    return embedding(codes.reshape(outputs, -1), e8p_codebook()).flatten(1)


def read_e81b(words: Tensor) -> Tensor:
    """Weights of one bit each: a word has the codes of 64 columns, the first in its lowest byte.

    Args:
        words: int64 (outputs, inputs / 64).

    Returns:
        float32 (outputs, inputs), multiples of 1/2.
    """
    codes = words.contiguous().view(torch.uint8)
    return embedding(codes.int(), e81b_codebook()).flatten(1)


def _code_of(planes: Tensor, number: int) -> Tensor:
    signs = torch.zeros_like(planes[0])
    for bit in range(8):
        signs |= (planes[4 + bit // 2] >> bit % 2 * 4 + number & 1) << bit
    return planes[number].int() << 8 | signs


@cache
def e8p_codebook() -> Tensor:
    """E8P, float32 (65,536, 8): a code's high byte tells the magnitudes, its low byte the signs.

    Points of the lattice D8 + 1/2, moved by 1/4 down where an odd number of sign bits is set, else
    up. Their coordinates' sum is even, which decides the sign that has no bit of its own.
    """
    near = [one for one in product((1, 3, 5), repeat=8) if sum(x * x for x in one) <= 40]
    far = [[1 if str(x) in ones else 3 for x in range(8)] for ones in _ONES_OF_29.split()]
    magnitudes = torch.tensor([*near, *far]) / 2
    magnitudes[:, 7] *= 1 - magnitudes.sum(1) % 2 * 2
    codes = torch.arange(2**16)
    signs = codes.unsqueeze(1) >> torch.tensor(_SIGN_BITS) & 1
    parity = signs.sum(1, keepdim=True) % 2
    signs[:, :1] ^= parity
    return magnitudes[codes >> 8] * (1 - 2 * signs) + (1 - 2 * parity) / 4


@cache
def e81b_codebook() -> Tensor:
    """E8's points up to norm 2, and 15 of norm 4; float32 (256, 8)."""
    whole = [one for one in product((-1, 0, 1), repeat=8) if sum(x * x for x in one) in (0, 2)]
    half = [one for one in product((-0.5, 0.5), repeat=8) if sum(one) % 2 == 0]
    unit = 2 * torch.eye(8)
    return torch.cat((torch.tensor(whole).float(), torch.tensor(half), unit, -unit[:7]))
