"""GPTQ: round input by input, and let the inputs to come make up for each error.

After Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers" (arXiv:2210.17323), without its order by activation. The error of a layer's outputs is
the weight's error in the metric of H, the second moments of its inputs. With the inputs up to one
rounded and fixed, the least that an error there costs, and what it asks of the rest, stand in a row
of the upper Cholesky factor of H's inverse.
"""

from __future__ import annotations

import torch
from torch import Tensor

from serving.runtimes.torch.kernels.int4_codes import Int4Codes, nearest_codes, plain_grid

DAMPING = 0.01
"""Share of the mean square input that is added to each, so that H has an inverse."""


def round_by_gptq(weight: Tensor, products: Tensor, group_size: int, symmetric: bool) -> Int4Codes:
    """Choose codes of a weight; a group's grid is that of its numbers when its turn comes.

    Args:
        weight: (out, in).
        products: H, (in, in): the mean of x xᵀ over inputs x.
        group_size: Inputs that share a scale.
        symmetric: Whether grids are symmetric around 0.
    """
    left, factor = weight.clone(), inverse_factor(products)
    codes, scales, offsets = torch.empty_like(weight, dtype=torch.int32), [], []
    for start in range(0, weight.shape[1], group_size):
        end = start + group_size
        group = left[:, start:end]  # a view: what is rounded changes what is left of it
        scale, offset = plain_grid(group, symmetric)
        errors = torch.empty_like(group)
        for place in range(group_size):
            row = factor[start + place, start:end]
            column = group[:, place : place + 1]
            chosen = nearest_codes(column, scale, offset)
            codes[:, start + place] = chosen.squeeze(1)
            error = (column - (chosen - 8) * scale - offset) / row[place]
            group[:, place:].addmm_(error, row[None, place:], alpha=-1)
            errors[:, place] = error.squeeze(1)
        left[:, end:].addmm_(errors, factor[start:end, end:], alpha=-1)
        scales.append(scale.bfloat16())
        offsets.append(offset.bfloat16())
    return Int4Codes(codes, torch.cat(scales, 1), torch.cat(offsets, 1))


def inverse_factor(products: Tensor) -> Tensor:
    """Upper triangular U (in, in) with UᵀU the inverse of the damped second moments."""
    damped = products.clone()
    diagonal = damped.diagonal()
    diagonal += DAMPING * diagonal.mean() + 1e-30
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor
