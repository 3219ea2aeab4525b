"""An embedding table of 8-bit numbers with one scale per row."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from serving.runtimes.torch.kernels.kernel_module import KernelModule, Setting
from serving.runtimes.torch.number_types import name_of, type_of

ROWS = 4096


class Int8Embedding(KernelModule):
    """Looks rows up in int8 and expands only those: ``row = weight[id] * scale[id]``.

    Args:
        weight: int8 (rows, width).
        scale: float32 (rows, 1).
        dtype: Name of the type of the rows that ``forward`` returns, e.g. ``float32``.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, scale: Tensor, dtype: str) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.dtype = type_of(dtype)

    @classmethod
    def of(cls, embedding: nn.Embedding, dtype: torch.dtype) -> Self:
        """Round a float table (rows, width) to ``scale = max|row| / 127``.

        No number is off by more than half a scale.
        """
        table = embedding.weight.detach()
        weight, scale = torch.empty_like(table, dtype=torch.int8), torch.empty(len(table), 1)
        # In parts, because a table can be most of the model and float copies would be the peak.
        for start in range(0, len(table), ROWS):
            part = slice(start, start + ROWS)
            scale[part] = table[part].abs().amax(dim=1, keepdim=True).div_(127)
            # A row of zeros, as padding tokens have, would divide by zero.
            scale[part].masked_fill_(scale[part] == 0, 1.0)
            weight[part] = (table[part] / scale[part]).round_()
        return cls(weight, scale, name_of(dtype))

    def settings(self) -> dict[str, Setting]:
        return {"dtype": name_of(self.dtype)}

    def forward(self, ids: Tensor) -> Tensor:
        """Return rows (*ids.shape, width) in the module's type."""
        rows = self.weight[ids] * self.scale[ids]
        return rows.to(self.dtype)
