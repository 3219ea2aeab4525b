"""Build a generator on the CPU: a checkpoint's model, fused, behind slots."""

from __future__ import annotations

import torch

from serving.generator import SlotGenerator
from serving.machine.process_memory import (
    keep_freed_memory,
    release_freed_memory,
    return_freed_memory,
)
from serving.runtimes.torch.decoder.causal_lm import Numerics, fuse, rotations
from serving.runtimes.torch.decoder.torch_decoder import TorchDecoder
from serving.runtimes.torch.pretrained import load_pretrained
from serving.seams import Decoder, GeneratorEngine, GeneratorRequest


def load_slot_generator(request: GeneratorRequest, numerics: Numerics) -> GeneratorEngine:
    """Load, convert and start a generator.

    Raises:
        ConfigError: The model's architecture is none that can be fused.
        SourceError: The checkpoint lacks weights.
    """
    return SlotGenerator(
        lambda: load_decoder(request, numerics),
        request.max_waiting,
        stuck_after_s=request.stuck_after_s,
    )


def load_decoder(request: GeneratorRequest, numerics: Numerics) -> Decoder:
    """Load and convert a model, in the thread that will run it; raises as its caller says."""
    torch.set_num_threads(request.threads)
    return_freed_memory()
    model = load_pretrained(request.checkpoint, "AutoModelForCausalLM", torch.float32)
    fused = fuse(model, numerics)
    turns = rotations(model, request.max_tokens)
    del model
    release_freed_memory()
    keep_freed_memory()
    return TorchDecoder(
        fused, turns, numerics.dtype, numerics.cache_dtype, request.max_running, request.threads
    )
