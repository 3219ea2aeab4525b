"""At which scale a layer's inputs are rounded, so that its outputs change least."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from serving.runtimes.torch.conversions.layer_inputs import LayerInputs
from serving.runtimes.torch.conversions.smoothing import smoothing_factors
from serving.runtimes.torch.kernels.int8_static_linear import Int8StaticLinear

STRENGTHS = (0.5, 0.65, 0.8)
"""How much of the spread between inputs goes over to the weights; 1 makes inputs alike."""

WORTHWHILE = 0.5
"""Share of the squared error that smoothing must leave at most: it costs a multiplication."""


def quantize_statically(
    linear: nn.Linear, inputs: LayerInputs, strength: float | None = None
) -> Int8StaticLinear:
    """Convert a float32 layer, dividing its inputs by factors of their own where that pays.

    Args:
        linear: The layer.
        inputs: Of it.
        strength: As of ``smoothing_factors``, whether it pays or not; None searches.
    """
    if strength is not None:
        return _smooth(linear, inputs, strength)
    rows = torch.cat(inputs.rows)
    wanted = functional.linear(rows, linear.weight, linear.bias).detach()

    def error(candidate: Int8StaticLinear) -> float:
        return float((candidate(rows) - wanted).square().sum())

    plain = Int8StaticLinear.of(linear, inputs.low, inputs.high)
    smooth = [_smooth(linear, inputs, tried) for tried in STRENGTHS]
    best = min(smooth, key=error)
    return best if error(best) < WORTHWHILE * error(plain) else plain


def _smooth(linear: nn.Linear, inputs: LayerInputs, strength: float) -> Int8StaticLinear:
    factors = smoothing_factors(linear.weight.detach(), inputs.largest(), strength)
    return Int8StaticLinear.of(linear, inputs.low, inputs.high, factors)
