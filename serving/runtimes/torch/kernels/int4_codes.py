"""Weights as 4-bit codes on a grid of each group's own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = 15


@dataclass(frozen=True, slots=True)
class Int4Codes:
    """A weight (out, in): ``(codes - 8) * scales + offsets``, each group of inputs with its own.

    Attributes:
        codes: 0 … 15, int32 (out, in).
        scales: bfloat16 (out, groups), as the kernel multiplies with them.
        offsets: Likewise.
        shares: float32 (in,), what inputs are multiplied by before the weight; None multiplies
            none.
    """

    codes: Tensor
    scales: Tensor
    offsets: Tensor
    shares: Tensor | None = None

    def expanded(self) -> Tensor:
        """What inputs as they come are multiplied with, float64 (out, in)."""
        size = self.codes.shape[1] // self.scales.shape[1]
        scales, offsets = (
            numbers.double().repeat_interleave(size, 1) for numbers in (self.scales, self.offsets)
        )
        weight = (self.codes.double() - 8) * scales + offsets
        return weight if self.shares is None else weight * self.shares.double()


def as_stored(numbers: Tensor) -> Tensor:
    """Round to bfloat16 in the type that they have.

    Codes must be chosen for the scales and offsets that the kernel will multiply with.
    """
    return numbers.bfloat16().to(numbers.dtype)


def nearest_codes(groups: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Codes of a grid that are nearest to numbers, of their type: see ``Int4Codes``."""
    return ((groups - offset) / scale).round_().add_(8).clamp_(0, LARGEST)


def plain_grid(groups: Tensor, symmetric: bool) -> tuple[Tensor, Tensor]:
    """The grid that reaches over all numbers of each group.

    Args:
        groups: (…, numbers of a group).
        symmetric: Whether it is one around 0, from -7 to 7 scales; else from the least number to
            the largest.

    Returns:
        Scale and offset of each group, (…, 1), rounded as they are stored.
    """
    if symmetric:
        scale = _scale(groups.abs().amax(-1, keepdim=True) / 7)
        return scale, torch.zeros_like(scale)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scale = _scale((high - low) / LARGEST)
    return scale, as_stored(low + 8 * scale)


def _scale(numbers: Tensor) -> Tensor:
    # Of a constant group it would be zero.
    return as_stored(numbers.clamp_min(1e-8))
