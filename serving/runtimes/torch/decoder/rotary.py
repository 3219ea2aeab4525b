"""Rotary positions: what turns queries and keys by their place in the text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from serving.runtimes.torch.decoder.families.family import RotaryPart


@dataclass(frozen=True, slots=True)
class Rotary:
    """Positions of one model, however many are wanted.

    Attributes:
        frequencies: float32 (width / 2,), the angle by which a position turns each pair of a head's
            numbers; 0 for pairs that no position turns.
        scaling: What lengths of those that turn are multiplied with, as YaRN does; else 1.
    """

    frequencies: Tensor
    scaling: float

    def table(self, positions: int) -> Tensor:
        """Complex numbers by which positions turn pairs of a query's or key's numbers.

        Returns:
            complex64 (positions, width / 2), of length ``scaling`` or 1.
        """
        angles = torch.arange(positions).float()[:, None] * self.frequencies
        lengths = torch.where(self.frequencies == 0, 1.0, self.scaling)
        return torch.complex(angles.cos() * lengths, angles.sin() * lengths)


def rotary_of(part: RotaryPart, width: int) -> Rotary:
    """Take the positions of a transformers model, whose own module knows how they are scaled."""
    turning = part.frequencies.detach().float()
    rest = turning.new_zeros(width // 2 - len(turning))
    return Rotary(torch.cat([turning, rest]), part.scaling)


def no_rotary(width: int) -> Rotary:
    """Of models whose positions are added to their embeddings."""
    return Rotary(torch.zeros(width // 2), 1.0)
