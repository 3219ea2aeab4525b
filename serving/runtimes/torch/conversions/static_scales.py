"""At which scale a layer's inputs are rounded, so that its outputs change least."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from serving.runtimes.torch.conversions.layer_inputs import LayerInputs
from serving.runtimes.torch.kernels.int8_static_linear import Int8StaticLinear

STRENGTHS = (0.5, 0.65, 0.8)
"""How much of the spread between inputs goes over to the weights; 1 makes inputs alike."""

WORTHWHILE = 0.5
"""Share of the squared error that smoothing must leave at most: it costs a multiplication."""


def quantize_statically(linear: nn.Linear, inputs: LayerInputs) -> Int8StaticLinear:
    """Convert a float32 layer, dividing its inputs by factors of their own where that pays.

    One scale for all inputs is set by the largest of them, and in trained models a few are far
    larger than the rest. Dividing each by a factor, and multiplying its weights by it (SmoothQuant,
    arXiv:2211.10438), leaves the product as it is and its inputs alike.
    """
    rows = torch.cat(inputs.rows)
    wanted = functional.linear(rows, linear.weight, linear.bias).detach()

    def error(candidate: Int8StaticLinear) -> float:
        return float((candidate(rows) - wanted).square().sum())

    plain = Int8StaticLinear.of(linear, inputs.low, inputs.high)
    smooth = [
        Int8StaticLinear.of(linear, inputs.low, inputs.high, _factors(linear, inputs, strength))
        for strength in STRENGTHS
    ]
    best = min(smooth, key=error)
    return best if error(best) < WORTHWHILE * error(plain) else plain


def _factors(linear: nn.Linear, inputs: LayerInputs, strength: float) -> Tensor:
    largest = torch.maximum(inputs.high, -inputs.low).clamp_min(1e-5)
    weights = linear.weight.detach().abs().amax(0).clamp_min(1e-5)
    factors = largest.pow(strength) / weights.pow(1 - strength)
    return factors / factors.log().mean().exp()
