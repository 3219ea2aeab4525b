"""Round weights to 4 bits per group so that a layer's output, not the weight, changes least."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from serving.runtimes.torch.kernels.int4_codes import as_stored, nearest_codes

CLIPS = (1.0, 0.9, 0.8)
REFITS = 3

ROWS = 256
"""Rounded at a time: rows do not depend on each other, and every step makes float32 copies."""


def round_to_int4(
    weight: Tensor, importance: Tensor, group_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Find codes, scales and offsets with ``weight ≈ (code - 8) * scale + offset``.

    Minimises the squared error of each group, weighted by ``importance``: first over ranges that
    clip either end of the group, then by fitting scale and offset to the codes by least squares
    and rounding again.

    Args:
        weight: float32 (out, in), in a multiple of ``group_size``.
        importance: float32 (in,), positive: mean square of each input of the layer.
        group_size: Inputs that share a scale.

    Returns:
        Codes 0 … 15, int32 (out, in); scales and offsets, bfloat16 (out, in / group_size).
    """
    parts = [_round_rows(rows, importance, group_size) for rows in torch.split(weight, ROWS)]
    codes, scales, offsets = zip(*parts, strict=True)
    return torch.cat(codes), torch.cat(scales), torch.cat(offsets)


def _round_rows(
    weight: Tensor, importance: Tensor, group_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    groups = weight.reshape(len(weight), -1, group_size)
    mass = importance.reshape(-1, group_size)
    scale, offset = _best_clipped_range(groups, mass)
    for _ in range(REFITS):
        scale, offset = _fit(groups, nearest_codes(groups, scale, offset), mass)
    codes = nearest_codes(groups, scale, offset).to(torch.int32).flatten(1)
    return codes, scale.squeeze(2).bfloat16(), offset.squeeze(2).bfloat16()


def _best_clipped_range(groups: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
    best_error = torch.full_like(low, torch.inf)
    best_scale, best_offset = torch.ones_like(low), torch.zeros_like(low)
    for clip_low, clip_high in product(CLIPS, CLIPS):
        scale = _stored_scale((high * clip_high - low * clip_low) / 15)
        offset = as_stored(low * clip_low + 8 * scale)
        rounded = (nearest_codes(groups, scale, offset) - 8) * scale + offset
        error = ((rounded - groups).square_() * mass).sum(2, keepdim=True)
        is_better = error < best_error
        best_error = torch.where(is_better, error, best_error)
        best_scale = torch.where(is_better, scale, best_scale)
        best_offset = torch.where(is_better, offset, best_offset)
    return best_scale, best_offset


def _fit(groups: Tensor, codes: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    centred = codes - 8
    total = mass.sum(1, keepdim=True)
    mean_code = (centred * mass).sum(2, keepdim=True) / total
    mean_weight = (groups * mass).sum(2, keepdim=True) / total
    deviation = centred - mean_code
    slope = (deviation * (groups - mean_weight) * mass).sum(2, keepdim=True)
    slope /= (deviation.square() * mass).sum(2, keepdim=True).clamp_min_(1e-30)
    scale = _stored_scale(slope)
    return scale, as_stored(mean_weight - scale * mean_code)


def _stored_scale(value: Tensor) -> Tensor:
    # Of a constant group it would be zero.
    return as_stored(value.clamp_min(1e-8))
