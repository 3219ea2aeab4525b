"""AWQ: give inputs that are strongly driven finer steps, by a factor of their own.

After Lin et al., "AWQ: Activation-aware Weight Quantization for On-Device LLM Compression and
Acceleration" (arXiv:2306.00978): weights are multiplied by a factor for each input and rounded, and
inputs divided by it. Factors are powers of the inputs' mean magnitude; the power is searched for
the least error of the layer's outputs. The original folds the division into the layer before; here
the layer itself multiplies its inputs, whatever comes before it. Its search for clipped ranges is
left out.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from serving.runtimes.torch.int4_methods.rtn import round_to_nearest
from serving.runtimes.torch.kernels.int4_codes import Int4Codes, as_stored

POWERS = tuple(step / 20 for step in range(20))
LEAST_MAGNITUDE = 1e-4


def round_by_awq(
    weight: Tensor, magnitudes: Tensor, products: Tensor, group_size: int, symmetric: bool
) -> Int4Codes:
    """Choose factors and codes of a weight.

    Args:
        weight: (out, in).
        magnitudes: (in,), mean magnitude of each input.
        products: (in, in): the mean of x xᵀ over inputs x.
        group_size: Inputs that share a scale.
        symmetric: Whether grids are symmetric around 0.
    """

    def rounded(power: float) -> Int4Codes:
        # Layers may multiply in bfloat16: what they multiply inputs by shall lose nothing.
        shares = as_stored(1 / input_factors(magnitudes, power))
        codes = round_to_nearest(weight / shares, group_size, symmetric)
        return codes if power == 0 else replace(codes, shares=shares.float())

    return min(map(rounded, POWERS), key=lambda codes: output_error(codes, weight, products))


def input_factors(magnitudes: Tensor, power: float) -> Tensor:
    """What each input's weights are multiplied by, (in,); least and largest are inverse."""
    factors = magnitudes.pow(power).clamp_min(LEAST_MAGNITUDE)
    return factors / (factors.max() * factors.min()).sqrt()


def output_error(codes: Int4Codes, weight: Tensor, products: Tensor) -> float:
    """Mean square error of a layer's outputs, summed over them: the weight's in the metric of H."""
    error = codes.expanded().to(weight.dtype) - weight
    return float(((error @ products) * error).sum())
