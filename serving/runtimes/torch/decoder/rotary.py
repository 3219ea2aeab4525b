"""Rotary positions: what turns queries and keys by their place in the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Rotary:
    """Positions of one model, however many are wanted.

    Attributes:
        frequencies: float32 (width / 2,), the angle by which a position turns each pair.
        scaling: What lengths are multiplied with, as YaRN does; else 1.
    """

    frequencies: Tensor
    scaling: float

    def table(self, positions: int) -> Tensor:
        """Complex numbers by which positions turn pairs of a query's or key's numbers.

        Returns:
            complex64 (positions, width / 2), of length ``scaling``.
        """
        angles = torch.arange(positions).float()[:, None] * self.frequencies
        return torch.complex(angles.cos() * self.scaling, angles.sin() * self.scaling)


def rotary_of(model: Any) -> Rotary:
    """Take the positions of a transformers model, whose own module knows how they are scaled."""
    module = model.model.rotary_emb
    return Rotary(module.inv_freq.detach().float().clone(), float(module.attention_scaling))
