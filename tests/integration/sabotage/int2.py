"""A variant that loses too much: weights of four values. For tests only."""

from __future__ import annotations

from dataclasses import replace

from serving.seams import EncoderEngine, LoadRequest
from serving.variants import fp32
from serving.variants.torch_encoder import TorchEncoder


def load(request: LoadRequest) -> EncoderEngine:
    """Build the engine of ``fp32`` and round every linear layer's weights, row by row."""
    import torch

    engine = fp32.load(request)
    assert isinstance(engine, TorchEncoder)
    with torch.no_grad():
        for module in engine.model.modules():
            if isinstance(module, torch.nn.Linear):
                scale = module.weight.abs().amax(1, keepdim=True) / 2
                module.weight.copy_((module.weight / scale).round().clamp(-2, 1) * scale)
    return engine


VARIANT = replace(fp32.VARIANT, recipe="2-bit weights, for tests only", load=load)
