"""A variant that loses too much: weights of four values. For tests only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from serving.runtimes.torch.conversions import fp32
from serving.seams import EncoderEngine, GeneratorEngine, GeneratorRequest, LoadRequest

if TYPE_CHECKING:
    from torch import nn


def load(request: LoadRequest) -> EncoderEngine:
    """Build the engine of ``fp32`` with rounded linear layers."""
    from torch import nn

    from serving.runtimes.torch.encoder import TorchEncoder

    engine = fp32.load(request)
    assert isinstance(engine, TorchEncoder)
    for module in engine.model.modules():
        if isinstance(module, nn.Linear):
            round_weights(module)
    return engine


def load_generator(request: GeneratorRequest) -> GeneratorEngine:
    """Build the generator of ``fp32`` with rounded linear layers."""
    from serving.runtimes.torch.decoder.loading import load_slot_generator

    exact = fp32.generator_numerics(request.options)
    rounded = replace(
        exact, linear=lambda linear, importance: exact.linear(round_weights(linear), importance)
    )
    return load_slot_generator(request, rounded)


def round_weights(linear: nn.Linear) -> nn.Linear:
    """Leave each row of the weights, in place, four values: -2, -1, 0 and 1 steps."""
    import torch

    with torch.no_grad():
        step = linear.weight.abs().amax(1, keepdim=True) / 2
        linear.weight.copy_((linear.weight / step).round().clamp(-2, 1) * step)
    return linear


VARIANT = replace(
    fp32.VARIANT,
    recipe="2-bit weights, for tests only",
    load=load,
    load_generator=load_generator,
)
