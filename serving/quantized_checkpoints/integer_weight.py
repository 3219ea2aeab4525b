"""A linear layer's weight as small integers with scales, whoever wrote it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class IntegerWeight:
    """Weight (outputs, inputs) = (codes - zeros) × scales, each group of inputs with its own.

    Attributes:
        codes: int16 (outputs, inputs).
        scales: float32 (outputs, groups).
        zeros: float32 (outputs, groups): the code that means 0.
        group_of: int64 (inputs,): the group of each input.
        bits: Of a code.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    group_of: Tensor
    bits: int

    def expanded(self) -> Tensor:
        """The weight itself, float32 (outputs, inputs).

        A code has at most 8 bits and a scale of float16 or bfloat16 at most 11, so of such scales
        and whole zeros each number is exact.
        """
        zeros, scales = self.zeros[:, self.group_of], self.scales[:, self.group_of]
        return (self.codes - zeros) * scales


def even_groups(inputs: int, groups: int) -> Tensor:
    """The group of each input, int64 (inputs,), where each group has as many neighbours."""
    return torch.arange(inputs) * groups // inputs


def unpack_words(words: Tensor, bits: int, count: int) -> Tensor:
    """Take apart integers that lie without gaps in 32-bit words, lowest bits first.

    Args:
        words: int32 (rows, words in each).
        bits: Of each integer, 1 to 8; one may reach into the next word.
        count: Integers in each row.

    Returns:
        int16 (rows, count), from 0.
    """
    shifts = torch.arange(8, dtype=torch.uint8)
    in_bytes = words.contiguous().view(torch.uint8)
    single = (in_bytes.unsqueeze(-1) >> shifts & 1).flatten(1)[:, : count * bits]
    weights = (1 << torch.arange(bits)).to(torch.int16)
    return (single.view(len(words), count, bits).to(torch.int16) * weights).sum(-1).to(torch.int16)
