"""What the linear layers of a model get, over data that stands for requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from serving.runtimes.torch.conversions.watching import watch_linears
from serving.seams import Arrays

SAMPLED_ROWS = 128


@dataclass
class LayerInputs:
    """The inputs of one layer.

    Attributes:
        low: float32 (in,), the least number of each input.
        high: float32 (in,), the largest.
        rows: Some of them as they came, float32 (about ``SAMPLED_ROWS``, in).
    """

    low: Tensor
    high: Tensor
    rows: list[Tensor] = field(default_factory=list)

    def largest(self) -> Tensor:
        """float32 (in,), the largest magnitude of each input."""
        return torch.maximum(self.high, -self.low)


def measure_layer_inputs(
    model: nn.Module, batches: Sequence[Arrays]
) -> dict[nn.Module, LayerInputs]:
    """Run ``model`` and watch every ``nn.Linear``.

    Args:
        model: A float32 encoder on the CPU.
        batches: Inputs for it; what is padding in them does not count.

    Returns:
        What each linear layer got; those that never ran are left out.
    """
    seen: dict[nn.Module, LayerInputs] = {}
    rows_of_a_batch = -(-SAMPLED_ROWS // max(len(batches), 1))

    def see(module: nn.Module, x: Tensor) -> None:
        low, high = x.amin(0), x.amax(0)
        known = seen.setdefault(module, LayerInputs(low, high))
        known.low, known.high = torch.minimum(known.low, low), torch.maximum(known.high, high)
        stride = max(1, len(x) // rows_of_a_batch)
        known.rows.append(x[::stride][:rows_of_a_batch].clone())

    watch_linears(model, batches, see)
    return seen
