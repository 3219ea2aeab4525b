"""Weights and inputs of made-up layers, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from serving.runtimes.torch.kernels.int4_codes import Int4Codes


def weight_and_inputs(
    outputs: int = 16, inputs: int = 64, rows: int = 400, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """A weight (out, in), and inputs (rows, in) that go together and differ in size."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64)
    mixing = torch.randn(inputs, inputs // 4, generator=generator, dtype=torch.float64)
    hidden = torch.randn(rows, inputs // 4, generator=generator, dtype=torch.float64)
    alone = torch.randn(rows, inputs, generator=generator, dtype=torch.float64)
    size = 1 + 9 * torch.rand(inputs, generator=generator, dtype=torch.float64) ** 4
    return weight, (hidden @ mixing.T + 0.5 * alone) * size


def products_of(rows: Tensor) -> Tensor:
    return rows.T @ rows / len(rows)


def error_of(codes: Int4Codes, weight: Tensor, rows: Tensor) -> float:
    """Mean square error of the layer's outputs, summed over them."""
    wrong = rows @ (codes.expanded() - weight).T
    return float(wrong.square().sum(1).mean())
