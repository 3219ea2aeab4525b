"""Hadamard matrices (entries 1 and -1, rows orthogonal), as QuIP# orders them, and their transform.

Of a size that is four times an odd number there are many; which one is meant is part of a format.
QuIP#'s are of the library of N. J. A. Sloane (http://neilsloane.com/hadamard/).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

_PALEY_1 = (12, 20, 60, 108, 140)
"""Sizes of Paley's first construction: a prime of the form 4k + 3, and 1."""

_PALEY_2 = (28, 36)
"""Sizes of Paley's second construction: a prime of the form 4k + 1, and 1, twice."""

_WILLIAMSON = {
    52: ("+-+--++++--+-", "+---++++++---", "++-+--++--+-+", "+----+--+----"),
    116: (
        "++--+--+-+++-++++-+++-+--+--+",
        "++++-++-+---++++++---+-++-+++",
        "+-+---++--+-++++++-+--++---+-",
        "+++---++--+-+----+-+--++---++",
    ),
    124: (
        "+--+++-+--+----++----+--+-+++--",
        "+--+++-+--+----++----+--+-+++--",
        "+-----+++-+-+--++--+-+-+++-----",
        "++++++---+-+-++--++-+-+---+++++",
    ),
    156: (
        "+++--+-+-----+--++----++--+-----+-+--++",
        "++++---+--++----+-+--+-+----++--+---+++",
        "+++--++-+---+-+--+----+--+-+---+-++--++",
        "+---++-+-+-----+++-++-+++-----+-+-++---",
    ),
    172: (
        "+---++--++++-+-+++-++--++-+++-+-++++--++---",
        "++-++++++----+-+--++-++-++--+-+----++++++-+",
        "+++-+-++--+-+-++++-+----+-++++-+-+--++-+-++",
        "++---++++-+--+--++--------++--+--+-++++---+",
    ),
}
"""First rows of the four circulant blocks of each of Williamson's matrices, by size."""

_LARGEST_POWER = 64
"""A larger power of two is the product of such, which takes fewer additions."""

_PIECE = 2**20
"""Numbers that are transformed at a time: what a core's cache holds goes twice as fast."""


def transform_rows(weight: Tensor) -> None:
    """Multiply each row by the Hadamard matrix of its length, in place and not normalised.

    Args:
        weight: float32 (rows, columns).

    Raises:
        ValueError: No matrix of this size belongs to the format.
    """
    columns = weight.shape[1]
    factors = hadamard_factors(columns)
    for piece in torch.split(weight, max(1, _PIECE // columns)):
        turned = piece
        for factor in reversed(factors):
            # The axis that was last becomes the first, until all are where they were.
            by_axis = turned.reshape(len(piece), -1, len(factor))
            turned = (by_axis @ factor.T).transpose(1, 2)
        piece.copy_(turned.reshape(piece.shape))


def transform_columns(weight: Tensor) -> None:
    """Multiply each column by the Hadamard matrix of its length, likewise.

    The transposed weight's rows would be the same, at four times the time.
    """
    rows = len(weight)
    factors = hadamard_factors(rows)
    for piece in torch.split(weight, max(1, _PIECE // rows), 1):
        turned = piece
        for factor in factors:
            # The axis that was first becomes the last but for the columns.
            by_axis = factor @ turned.reshape(len(factor), -1)
            turned = by_axis.reshape(len(factor), -1, piece.shape[1]).transpose(0, 1)
        piece.copy_(turned.reshape(piece.shape))


def hadamard_factors(size: int) -> list[Tensor]:
    """Matrices whose Kronecker product is the Hadamard matrix of this size; float32.

    Raises:
        ValueError: No matrix of this size belongs to the format.
    """
    power = size & -size
    odd = size // power
    factors = []
    if odd > 1:
        if power < 4:
            raise ValueError(f"there is no Hadamard matrix of size {size}")
        factors.append(hadamard_matrix(4 * odd))
        power //= 4
    while power > 1:
        part = min(power, _LARGEST_POWER)
        factors.append(_sylvester(part))
        power //= part
    return factors


@cache
def hadamard_matrix(size: int) -> Tensor:
    """The matrix of a size that is four times an odd number, more than 1; float32.

    Raises:
        ValueError: None of this size belongs to the format.
    """
    if size in _PALEY_1:
        return _paley_1(size - 1)
    if size in _PALEY_2:
        return _paley_2(size // 2 - 1)
    if size in _WILLIAMSON:
        return _williamson(*map(_circulant, _WILLIAMSON[size]))
    known = sorted((*_PALEY_1, *_PALEY_2, *_WILLIAMSON))
    raise ValueError(f"no Hadamard matrix of size {size} is known, but of {known}")


@cache
def _sylvester(size: int) -> Tensor:
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
    return matrix


def _paley_1(prime: int) -> Tensor:
    matrix = torch.ones(prime + 1, prime + 1)
    matrix[0, 1:] = -1
    matrix[1:, 1:] = torch.eye(prime) - _jacobsthal(prime)
    return matrix


def _paley_2(prime: int) -> Tensor:
    conference = torch.ones(prime + 1, prime + 1)
    conference[0, 0] = 0
    conference[1:, 1:] = _jacobsthal(prime)
    unit = torch.eye(prime + 1)
    above = torch.cat((conference + unit, conference - unit), 1)
    return torch.cat((above, torch.cat((conference - unit, -conference - unit), 1)))


def _jacobsthal(prime: int) -> Tensor:
    """1 where column - row is a square modulo the prime, -1 where it is none, 0 where it is 0."""
    squares = {number * number % prime for number in range(1, prime)}
    signs = torch.tensor([0.0] + [1.0 if one in squares else -1.0 for one in range(1, prime)])
    numbers = torch.arange(prime)
    return signs[(numbers - numbers.unsqueeze(1)) % prime]


def _williamson(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    rows = ((a, b, c, d), (-b, a, -d, c), (-c, d, a, -b), (-d, -c, b, a))
    return torch.cat([torch.cat(row, 1) for row in rows])


def _circulant(signs: str) -> Tensor:
    row = torch.tensor([1.0 if sign == "+" else -1.0 for sign in signs])
    return torch.stack([row.roll(places) for places in range(len(row))])
