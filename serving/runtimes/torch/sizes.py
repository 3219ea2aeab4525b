"""Sizes of a torch replica and of its preparation, before anything is loaded; imports no torch."""

from __future__ import annotations

from math import prod

from serving.recipes.int4 import Int4Options
from serving.runtimes.torch.conversions import CONVERSIONS
from serving.seams import SizeEstimate, SizeRequest

PROCESS_BYTES = 440 * 2**20
"""Resident memory of a replica with Ray, torch and transformers, before any weights (CPU)."""

PRELOADED_BYTES = 290 * 2**20
"""What replicas share that were forked from one process."""

FREED_BYTES = 64 * 2**20
"""Freed activations that malloc may keep; see ``serving.machine.process_memory``."""


def estimate(request: SizeRequest) -> SizeEstimate:
    """Sum the packed sizes of a checkpoint's tensors.

    Preparing holds the float32 model and the converted one, and writes from a copy of that;
    rounding a layer takes scratch.
    """
    conversion = CONVERSIONS[request.recipe]
    is_generator = request.kind == "generator"
    weight_bytes = conversion.weight_bytes
    if is_generator and conversion.generator_weight_bytes is not None:
        weight_bytes = conversion.generator_weight_bytes
    weights = sum(weight_bytes(s, request.options, request.device) for s in request.shapes)
    float32 = sum(4 * prod(shape.shape) for shape in request.shapes)
    return SizeEstimate(
        weights_bytes=weights,
        process_bytes=PROCESS_BYTES,
        extra_bytes=FREED_BYTES if request.device == "cpu" else 0,
        preparing_bytes=PROCESS_BYTES + float32 + 2 * weights + FREED_BYTES + _moments(request),
        kv_number_bytes=conversion.kv_number_bytes if is_generator else 0,
        preloaded_bytes=PRELOADED_BYTES,
    )


def _moments(request: SizeRequest) -> int:
    """What is held of each layer where its inputs' products are measured, float32 (in, in)."""
    options = request.options
    if not isinstance(options, Int4Options) or options.method not in ("awq", "gptq"):
        return 0
    layers = [s.shape for s in request.shapes if len(s.shape) == 2 and not s.is_embedding]
    return sum(4 * inputs * inputs for _, inputs in layers)
