"""Between which numbers the inputs of each linear layer lie, over data that stands for requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from serving.runtimes.torch.model_inputs import as_tensors
from serving.seams import Arrays

BINS = 2048

CUTS = torch.linspace(0.3, 1.0, 15)
"""Shares of either end of the range that are tried."""


@dataclass
class _Seen:
    """What one layer got: extremes, then how often each of ``BINS`` even steps between them."""

    low: float = 0.0
    high: float = 0.0
    counts: Tensor | None = None


def measure_input_ranges(
    model: nn.Module, batches: Sequence[Arrays], steps: int
) -> dict[nn.Module, tuple[float, float]]:
    """Find the range of each linear layer's inputs that rounds them with the least error.

    Everything between the extremes would spend most of the steps on a few large numbers; the range
    is cut at either end where that costs less, in squared error, than finer steps gain.

    Args:
        model: A float32 encoder on the CPU.
        batches: Inputs for it; padding does not count.
        steps: Into how many a range will be divided.

    Returns:
        Least and largest number that are told apart from others, of every ``nn.Linear`` that ran;
        0 is always between them.
    """
    seen = {module: _Seen() for module in model.modules() if type(module) is nn.Linear}
    _run(model, batches, seen, _see_extremes)
    _run(model, batches, seen, _count)
    return {m: _best_range(s, steps) for m, s in seen.items() if s.counts is not None}


def _run(
    model: nn.Module,
    batches: Sequence[Arrays],
    seen: dict[nn.Module, _Seen],
    look: Callable[[_Seen, Tensor], None],
) -> None:
    is_token: Tensor

    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x: Tensor = inputs[0]
        # Poolers and classifiers see rows without tokens.
        look(seen[module], x[is_token] if x.shape[:-1] == is_token.shape else x)

    hooks = [module.register_forward_pre_hook(hook) for module in seen]
    with torch.inference_mode():
        for batch in batches:
            tensors = as_tensors(batch, "cpu")
            is_token = tensors["attention_mask"].bool()
            model(**tensors)
    for handle in hooks:
        handle.remove()


def _see_extremes(seen: _Seen, x: Tensor) -> None:
    seen.low, seen.high = min(seen.low, float(x.min())), max(seen.high, float(x.max()))


def _count(seen: _Seen, x: Tensor) -> None:
    counts = torch.histc(x, BINS, seen.low, seen.high)
    seen.counts = counts if seen.counts is None else seen.counts + counts


def _best_range(seen: _Seen, steps: int) -> tuple[float, float]:
    assert seen.counts is not None
    width = (seen.high - seen.low) / BINS
    values = seen.low + (torch.arange(BINS) + 0.5) * width
    lows, highs = torch.meshgrid(CUTS * seen.low, CUTS * seen.high, indexing="ij")
    low, high = lows.reshape(-1, 1), highs.reshape(-1, 1)
    step = ((high - low) / steps).clamp_min(1e-30)
    rounded = (values.clamp(low, high) / step).round() * step
    errors = ((rounded - values).square() * seen.counts).sum(1)
    best = int(errors.argmin())
    return float(low[best]), float(high[best])
