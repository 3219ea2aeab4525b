"""Measures what linear layers get and give, over batches of real inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from serving.runtimes.torch.conversions.watching import watch_linears
from serving.seams import Arrays


@dataclass(frozen=True, slots=True)
class Ranges:
    """The least and the largest of each number, float32 (inputs,) and (outputs,)."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    output_low: NDArray[np.float32]
    output_high: NDArray[np.float32]

    def joined(self, other: Ranges) -> Ranges:
        """What holds both."""
        return Ranges(
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            np.minimum(self.output_low, other.output_low),
            np.maximum(self.output_high, other.output_high),
        )


def measure_ranges(model: nn.Module, batches: Sequence[Arrays]) -> dict[nn.Module, Ranges]:
    """Run a float32 model over batches; what is padding in them does not count."""
    found: dict[nn.Module, Ranges] = {}

    def see(module: nn.Module, x: Tensor) -> None:
        assert isinstance(module, nn.Linear)
        y = functional.linear(x, module.weight, module.bias)
        seen = Ranges(*(each.numpy() for each in (x.amin(0), x.amax(0), y.amin(0), y.amax(0))))
        found[module] = found[module].joined(seen) if module in found else seen

    watch_linears(model, batches, see)
    return found
