"""Recipe ``int2``: weights of four values, on quantserve's runtime torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import BaseModel

from serving.runtimes.torch.conversions import fp32
from serving.seams import EncoderExpectation, GeneratorExpectation, PrepareRequest, Recipe

if TYPE_CHECKING:
    from torch import nn

    from serving.runtimes.torch.decoder.causal_lm import Numerics

RECIPE = Recipe(
    summary="2-bit weights, for tests only",
    # What it loses is its purpose; its arithmetic is that of fp32.
    encoder=EncoderExpectation(cosine=0.0, batch_change=1e-4),
    generator=GeneratorExpectation(
        cosine=-1.0,
        same_top=0.0,
        company_change=1e-3,
        company_same_top=0.99,
        company_same_text=0.9,
    ),
)


def convert_encoder(model: nn.Module, request: PrepareRequest) -> tuple[str, ...]:
    """Round every linear layer."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Linear):
            round_weights(module)
    return ("every linear layer has weights of four values",)


def generator_numerics(options: BaseModel) -> Numerics:
    """Those of ``fp32`` with rounded linear layers."""
    exact = fp32.generator_numerics(options)
    return replace(
        exact, linear=lambda linear, importance: exact.linear(round_weights(linear), importance)
    )


def round_weights(linear: nn.Linear) -> nn.Linear:
    """Leave each row of the weights, in place, four values: -2, -1, 0 and 1 steps."""
    import torch

    with torch.no_grad():
        step = linear.weight.abs().amax(1, keepdim=True) / 2
        # Copied: as loaded it may be a view of the checkpoint's file.
        linear.weight = torch.nn.Parameter(
            (linear.weight / step).round().clamp(-2, 1) * step, requires_grad=False
        )
    return linear


CONVERSION = replace(
    fp32.CONVERSION, convert_encoder=convert_encoder, generator_numerics=generator_numerics
)
