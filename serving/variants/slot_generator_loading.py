"""Build a generator on the CPU: a checkpoint's model, fused, behind slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from serving.generator import SlotGenerator
from serving.seams import Decoder, GeneratorEngine, GeneratorRequest
from serving.variants.causal_lm import Numerics, fuse, rotations
from serving.variants.pretrained import load_pretrained
from serving.variants.torch_decoder import TorchDecoder

Measure = Callable[[nn.Module], Mapping[nn.Module, Tensor]]


def load_slot_generator(
    request: GeneratorRequest, numerics: Numerics, measure_importance: Measure | None = None
) -> GeneratorEngine:
    """Load, convert and start a generator.

    Args:
        request: What was asked for.
        numerics: How the parts of the model are made.
        measure_importance: Measures the inputs of linear layers, for ``Numerics.linear``.

    Raises:
        ConfigError: The model's architecture is none that can be fused.
        SourceError: The checkpoint lacks weights.
    """

    def make_decoder() -> Decoder:
        torch.set_num_threads(request.threads)
        model = load_pretrained(request.checkpoint, "AutoModelForCausalLM", torch.float32)
        importance = measure_importance(model) if measure_importance else None
        turns = rotations(model, request.max_tokens)
        fused = fuse(model, numerics, importance)
        del model, importance
        return TorchDecoder(
            fused,
            turns,
            numerics.dtype,
            numerics.cache_dtype,
            request.max_running,
            request.threads,
        )

    return SlotGenerator(make_decoder, request.max_waiting, stuck_after_s=request.stuck_after_s)
