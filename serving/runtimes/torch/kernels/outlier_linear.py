"""A linear layer whose largest inputs are multiplied in float, and all others in 8 bits (CPU)."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from serving.runtimes.torch.kernels.int8_compact_linear import Int8CompactLinear
from serving.runtimes.torch.kernels.int8_linear import Int8Linear
from serving.runtimes.torch.kernels.kernel_module import KernelModule, Setting
from serving.runtimes.torch.packed_sizes import num_outliers


class OutlierLinear(KernelModule):
    """``y = x[k] @ W[:, k].T + Int8(x without k)``, with ``k`` the columns of large inputs.

    A token's scale is set by its largest input, so a few that are far larger than the rest leave
    the rest few steps. LLM.int8() (arXiv:2208.07339, section 3.2) parts products so, and looks for
    the columns in each batch; here they are known before, so that nobody's answer depends on the
    others in a batch, and no weight is kept twice.

    Args:
        columns: int64 (k,), each once.
        column_weight: float32 (out, k), the weights of these inputs.
        is_compact: Whether ``Int8CompactLinear`` multiplies the others, or ``Int8Linear``.
        others: What that is made from; its weights of the columns are 0.
    """

    copied_tensors = Int8Linear.copied_tensors | Int8CompactLinear.copied_tensors

    columns: Tensor
    column_weight: Tensor

    def __init__(
        self, columns: Tensor, column_weight: Tensor, is_compact: bool, **others: Tensor
    ) -> None:
        super().__init__()
        self.others = (Int8CompactLinear if is_compact else Int8Linear)(**others)
        self.register_buffer("columns", columns)
        self.register_buffer("column_weight", column_weight)

    @classmethod
    def of(
        cls, linear: nn.Linear, columns: Tensor, is_compact: bool, exact: bool | None = None
    ) -> Self:
        """Part and round the weight of a float layer (out, in).

        Args:
            linear: The layer.
            columns: int64 (k,), each once.
            is_compact: As of the class.
            exact: As of ``Int8Linear.of``.
        """
        weight = linear.weight.detach().float()
        rest = nn.Linear(linear.in_features, linear.out_features, linear.bias is not None)
        rest.weight = nn.Parameter(weight.index_fill(1, columns, 0), requires_grad=False)
        rest.bias = linear.bias
        others = (Int8CompactLinear if is_compact else Int8Linear).of(rest, exact)
        picked = weight.index_select(1, columns)
        return cls(columns, picked, is_compact, **others.stored_tensors())

    def settings(self) -> dict[str, Setting]:
        return {"is_compact": isinstance(self.others, Int8CompactLinear)}

    def stored_tensors(self) -> dict[str, Tensor]:
        own = {"columns": self.columns, "column_weight": self.column_weight}
        return {**own, **self.others.stored_tensors()}

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (..., in) to float32 (..., out); ``Int8CompactLinear`` takes (rows, in)."""
        y: Tensor = self.others(x.index_fill(-1, self.columns, 0))
        large = x.index_select(-1, self.columns)
        return y.add_(nn.functional.linear(large, self.column_weight))


def largest_columns(largest: Tensor, share: float) -> Tensor:
    """int64 (k,), ascending: which inputs get largest, as many as ``num_outliers`` says.

    Args:
        largest: float32 (in,), largest magnitude of each input.
        share: Of all inputs.
    """
    found = torch.topk(largest, num_outliers(len(largest), share)).indices
    return found.sort().values
