"""Moments of what each linear layer of a model gets, over data that stands for requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from serving.runtimes.torch.conversions.watching import watch_linears
from serving.seams import Arrays


@dataclass(frozen=True, slots=True)
class InputMoments:
    """Means over the inputs x of one layer, and how large they get.

    Attributes:
        squares: float32 (in,), of x².
        magnitudes: float32 (in,), of |x|; None where they were not measured.
        products: float32 (in, in), of x xᵀ; None likewise.
        largest: float32 (in,), the largest |x|; None likewise.
    """

    squares: Tensor
    magnitudes: Tensor | None = None
    products: Tensor | None = None
    largest: Tensor | None = None

    def reordered(self, order: Tensor) -> InputMoments:
        """Of a layer that gets the same inputs in another order."""
        return InputMoments(
            self.squares[order],
            None if self.magnitudes is None else self.magnitudes[order],
            None if self.products is None else self.products[order][:, order],
            None if self.largest is None else self.largest[order],
        )


def measure_input_moments(
    model: nn.Module, batches: Sequence[Arrays]
) -> dict[nn.Module, InputMoments]:
    """Run ``model`` and watch every ``nn.Linear``.

    Args:
        model: A float32 transformers model on the CPU.
        batches: Inputs for it; padding in them does not count, and there is none in those without
            an ``attention_mask``.

    Returns:
        The moments of each linear layer's inputs; those that never ran are left out.
    """
    counts: dict[nn.Module, int] = {}
    sums: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def see(module: nn.Module, x: Tensor) -> None:
        if module not in sums:
            counts[module] = 0
            sums[module] = torch.zeros(x.shape[1]), torch.zeros(x.shape[1], x.shape[1])
        magnitudes, products = sums[module]
        counts[module] += len(x)
        magnitudes += x.abs().sum(0)
        products.addmm_(x.T, x)

    watch_linears(model, [_with_mask(batch) for batch in batches], see)
    return {
        module: _means(magnitudes.div_(counts[module]), products.div_(counts[module]))
        for module, (magnitudes, products) in sums.items()
    }


def measure_largest_inputs(
    model: nn.Module, batches: Sequence[Arrays]
) -> dict[nn.Module, InputMoments]:
    """Likewise, but what is measured is mean squares and how large inputs get."""
    counts: dict[nn.Module, int] = {}
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def see(module: nn.Module, x: Tensor) -> None:
        squares, largest = seen.get(module, (torch.zeros(x.shape[1]), torch.zeros(x.shape[1])))
        counts[module] = counts.get(module, 0) + len(x)
        seen[module] = squares + x.square().sum(0), torch.maximum(largest, x.abs().amax(0))

    watch_linears(model, [_with_mask(batch) for batch in batches], see)
    return {
        module: InputMoments(squares / counts[module], largest=largest)
        for module, (squares, largest) in seen.items()
    }


def _means(magnitudes: Tensor, products: Tensor) -> InputMoments:
    return InputMoments(products.diagonal().clone(), magnitudes, products)


def _with_mask(batch: Arrays) -> Mapping[str, np.ndarray]:
    return {"attention_mask": np.ones_like(batch["input_ids"]), **batch}
