"""Sizes of a replica and of its preparation, before anything is loaded; imports nothing heavy."""

from __future__ import annotations

from math import prod

from serving.runtimes.llamacpp.mixtures import MIXTURES, mixed_bytes
from serving.runtimes.llamacpp.number_types import bytes_of, stored_bytes
from serving.seams import SizeEstimate, SizeRequest, WeightShape

PROCESS_BYTES = 170 * 2**20
"""Resident memory of a replica with Ray, FastAPI and llama.cpp, before any weights."""

WORKING_BYTES = 48 * 2**20
"""Intermediate results of a step, and its logits."""

PREPARING_BYTES = 450 * 2**20
"""The process that prepares, with torch and transformers, before any weights."""

KV_NUMBER_BYTES = 2
"""Keys and values are kept in float16, llama.cpp's default."""


def estimate(request: SizeRequest) -> SizeEstimate:
    """Sum the sizes of a checkpoint's tensors in the file that is served."""
    if request.recipe in MIXTURES:
        weights = mixed_bytes(request.recipe, request.shapes)
        # The model itself, which the float32 file is compared with.
        written = 2 * sum(4 * prod(shape.shape) for shape in request.shapes)
    elif any(shape.stored_bytes is not None for shape in request.shapes):
        weights = sum(_kept_bytes(shape) for shape in request.shapes)
        written = 2 * sum(4 * prod(shape.shape) for shape in request.shapes)  # likewise
    else:
        weights = written = sum(stored_bytes(shape) for shape in request.shapes)
    return SizeEstimate(
        weights_bytes=weights,
        process_bytes=PROCESS_BYTES,
        preloaded_bytes=0,
        # Some kernels want weights in another order, and copy them; mapped pages may go.
        extra_bytes=WORKING_BYTES,
        preparing_bytes=PREPARING_BYTES + written + weights,
        kv_number_bytes=KV_NUMBER_BYTES,
    )


def _kept_bytes(shape: WeightShape) -> int:
    """Bytes of a quantized checkpoint's tensor in blocks; what is not quantized is float32."""
    numbers = prod(shape.shape)
    if shape.stored_bytes is None:
        return 4 * numbers
    return bytes_of(numbers, "Q4_0" if shape.stored_bytes < numbers else "Q8_0")
