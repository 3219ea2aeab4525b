"""Round to nearest: each group on a grid from its least number to its largest."""

from __future__ import annotations

import torch
from torch import Tensor

from serving.runtimes.torch.kernels.int4_codes import Int4Codes, nearest_codes, plain_grid


def round_to_nearest(weight: Tensor, group_size: int, symmetric: bool) -> Int4Codes:
    """Choose codes that look at nothing but the weight (out, in)."""
    groups = weight.reshape(len(weight), -1, group_size)
    scale, offset = plain_grid(groups, symmetric)
    codes = nearest_codes(groups, scale, offset).flatten(1).to(torch.int32)
    return Int4Codes(codes, scale.squeeze(2).bfloat16(), offset.squeeze(2).bfloat16())
