"""Ways to choose 4-bit codes and their grids: published methods, each a file of its own."""

from __future__ import annotations

import torch
from torch import nn

from serving.recipes.int4 import Int4Options
from serving.runtimes.torch.conversions.input_moments import InputMoments
from serving.runtimes.torch.int4_methods.awq import round_by_awq
from serving.runtimes.torch.int4_methods.gptq import round_by_gptq
from serving.runtimes.torch.int4_methods.hqq import round_by_hqq
from serving.runtimes.torch.int4_methods.rtn import round_to_nearest
from serving.runtimes.torch.kernels.int4_codes import Int4Codes
from serving.runtimes.torch.kernels.int4_rounding import round_to_int4


def round_linear(
    linear: nn.Linear, inputs: InputMoments | None, group_size: int, options: Int4Options
) -> Int4Codes:
    """Round the weight of a float32 layer (out, in) as the options say.

    Args:
        linear: The layer.
        inputs: Of the layer; None of one that never ran, whose inputs all count alike.
        group_size: Divides ``in``.
        options: Names the method.
    """
    weight, symmetric = linear.weight.detach(), bool(options.symmetric)
    if options.method is None:
        squares = torch.ones(weight.shape[1]) if inputs is None else inputs.squares
        return Int4Codes(*round_to_int4(weight, squares, group_size))
    if options.method == "hqq":
        return round_by_hqq(weight, group_size)
    if options.method == "rtn" or inputs is None:
        return round_to_nearest(weight, group_size, symmetric)
    assert inputs.products is not None, f"{options.method} measures how inputs go together"
    if options.method == "gptq":
        return round_by_gptq(weight, inputs.products, group_size, symmetric)
    assert options.method == "awq", "why_not refuses what torch has not"
    assert inputs.magnitudes is not None
    return round_by_awq(weight, inputs.magnitudes, inputs.products, group_size, symmetric)
