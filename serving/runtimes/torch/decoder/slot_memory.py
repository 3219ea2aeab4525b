"""Memory of a cache's slots, which the system gives as it is written and gets back."""

from __future__ import annotations

import mmap
import sys
from math import prod

import torch

PAGE = mmap.PAGESIZE

LEAST_RETURNED_BYTES = 16 * PAGE
"""Of a layer; less is written over: a call for each layer would take longer."""


class SlotMemory:
    """Zeros, but for what is written, in pages of the system that hold nothing before that.

    ``torch.zeros`` writes all of it at once.

    Args:
        layers: At least 1.
        slots: Sequences that it holds.
        token_shape: Of what a layer keeps of a token.
        slot_tokens: Tokens of a slot.
        dtype: Of its numbers.

    Attributes:
        numbers: (layers, slots, slot_tokens, *token_shape).
    """

    def __init__(
        self,
        layers: int,
        slots: int,
        slot_tokens: int,
        token_shape: tuple[int, ...],
        dtype: torch.dtype,
    ) -> None:
        shape = (layers, slots, slot_tokens, *token_shape)
        self._layers, self._slots, self._slot_tokens = layers, slots, slot_tokens
        self._token_bytes = prod(token_shape) * dtype.itemsize
        size = layers * slots * slot_tokens * self._token_bytes
        self._pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._bytes = torch.frombuffer(self._pages, dtype=torch.uint8)
        self.numbers = torch.frombuffer(self._pages, dtype=dtype).view(shape)

    def forget(self, slot: int, start: int, end: int) -> None:
        """Make the tokens from ``start`` to ``end`` of a slot zeros, and return their pages.

        So a slot takes the memory of what it holds, not of the longest that it ever held.
        """
        # Only Linux promises that a page which was returned reads as zeros.
        if sys.platform != "linux" or (end - start) * self._token_bytes < LEAST_RETURNED_BYTES:
            self.numbers[:, slot, start:end].zero_()
            return
        for layer in range(self._layers):
            before = (layer * self._slots + slot) * self._slot_tokens
            first, last = ((before + token) * self._token_bytes for token in (start, end))
            first_page, last_page = -(-first // PAGE) * PAGE, last // PAGE * PAGE
            self._pages.madvise(mmap.MADV_DONTNEED, first_page, last_page - first_page)
            self._bytes[first:first_page].zero_()
            self._bytes[last_page:last].zero_()
