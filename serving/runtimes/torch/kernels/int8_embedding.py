"""An embedding table of 8-bit numbers with one scale per row."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROWS = 4096


class Int8Embedding(nn.Module):
    """Looks rows up in int8 and expands only those: ``row = weight[id] * scale[id]``.

    Symmetric: ``scale = max|row| / 127``, and no element is off by more than half a scale.

    Args:
        embedding: The table to convert, float (rows, width).
        dtype: Type of the rows that ``forward`` returns.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, embedding: nn.Embedding, dtype: torch.dtype) -> None:
        super().__init__()
        table = embedding.weight.detach()
        self.register_buffer("weight", torch.empty_like(table, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(len(table), 1))
        # In parts, because a table can be most of the model and float copies would be the peak.
        for start in range(0, len(table), ROWS):
            part = slice(start, start + ROWS)
            rows, rounded, scale = table[part], self.weight[part], self.scale[part]
            scale.copy_(rows.abs().amax(dim=1, keepdim=True)).div_(127)
            # A row of zeros, as padding tokens have, would divide by zero.
            scale.masked_fill_(scale == 0, 1.0)
            rounded.copy_((rows / scale).round_())
        self.dtype = dtype

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows (*ids.shape, width) in ``dtype``."""
        rows = self.weight[ids] * self.scale[ids]
        return rows.to(self.dtype)
