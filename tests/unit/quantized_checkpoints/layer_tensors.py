"""Integers packed as libraries pack them, bit by bit, for layers that no library made."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def packed_rows(numbers: Tensor, bits: int, per_word: int | None = None) -> Tensor:
    """Rows of numbers in 32-bit words, lowest bits first.

    Args:
        numbers: (rows, count), from 0.
        bits: Of each.
        per_word: Numbers in a word, whose other bits stay empty; None leaves no gaps.
    """
    in_a_row = per_word or numbers.shape[1]
    places = [n // in_a_row * 32 + n % in_a_row * bits for n in range(numbers.shape[1])]
    words = np.zeros((len(numbers), (places[-1] + bits - 1) // 32 + 1), np.uint64)
    for (row, column), number in np.ndenumerate(numbers.numpy()):
        for bit in range(bits):
            place = places[column] + bit
            words[row, place // 32] |= np.uint64((int(number) >> bit & 1) << place % 32)
    return torch.from_numpy(words.astype(np.uint32).view(np.int32))
