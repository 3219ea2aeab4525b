"""Factors that make a layer's inputs alike, so that 8 bits hold all of them (SmoothQuant)."""

from __future__ import annotations

from torch import Tensor

LEAST = 1e-5
"""Of inputs that stayed silent, and of weights that are 0: their factors need a number."""


def smoothing_factors(weight: Tensor, largest: Tensor, strength: float) -> Tensor:
    """By what each input is divided, and its weights are multiplied.

    One scale for all inputs is set by the largest of them, and in trained models a few are far
    larger than the rest. Dividing each by a factor, and multiplying its weights by it
    (arXiv:2211.10438, equation 4), leaves the product as it is.

    Args:
        weight: float32 (out, in).
        largest: float32 (in,), largest magnitude of each input.
        strength: How much of the spread between inputs goes over to the weights.

    Returns:
        float32 (in,), with a geometric mean of 1.
    """
    weights = weight.abs().amax(0).clamp_min(LEAST)
    factors = largest.clamp_min(LEAST).pow(strength) / weights.pow(1 - strength)
    return factors / factors.log().mean().exp()
