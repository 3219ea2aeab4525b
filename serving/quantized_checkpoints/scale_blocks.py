"""Scales that hold for blocks of a weight."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def spread(scales: Tensor, shape: Sequence[int], block: Sequence[int] | None = None) -> Tensor:
    """Give each number of a weight its scale.

    Args:
        scales: One for all, one for each output in a column or alone, or (blocks of outputs,
            blocks of inputs), of which there may be as many as outputs.
        shape: Of the weight: outputs, inputs.
        block: Outputs and inputs of a block, the last of which may be cut off; None takes blocks
            that divide the weight evenly.

    Returns:
        Something that multiplies a weight of this shape.
    """
    outputs, inputs = shape
    if scales.numel() == 1 or scales.shape in ((outputs,), (outputs, 1)):
        return scales.reshape(-1, 1)
    rows, columns = block or (outputs // scales.shape[0], inputs // scales.shape[1])
    by_row = scales.repeat_interleave(rows, 0)[:outputs]
    return by_row.repeat_interleave(columns, 1)[:, :inputs]
