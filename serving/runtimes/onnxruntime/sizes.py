"""Sizes of a replica and of its preparation, before anything is loaded; imports nothing heavy."""

from __future__ import annotations

from math import prod

from serving.seams import SizeEstimate, SizeRequest, WeightShape

PROCESS_BYTES = 190 * 2**20
"""Resident memory of a replica with Ray, FastAPI and ONNX Runtime, before any weights."""

ACTIVATIONS_BYTES = 48 * 2**20
"""What large batches leave behind: freed memory that malloc keeps."""

PREPARING_BYTES = 550 * 2**20
"""The process that prepares, with torch, transformers and the exporter, before any weights."""

PREPARING_COPIES = 5
"""Float32 copies of the weights that exist at once while they are exported and written."""

_POOLERS = ("pooler", "pre_classifier", "head")
_CLASSIFIERS = ("classifier", "score")
"""Parts of parameter names of layers between the last hidden state and the logits. A checkpoint
without a classifier is used without a pooler, which the graph then lacks."""


def estimate(request: SizeRequest) -> SizeEstimate:
    """Sum the sizes of a checkpoint's tensors in the graph."""
    float32 = [4 * prod(shape.shape) for shape in request.shapes]
    has_classifier = any(_is_of(_CLASSIFIERS, shape) for shape in request.shapes)
    kept = [shape for shape in request.shapes if has_classifier or not _is_of(_POOLERS, shape)]
    rounds = request.recipe != "fp32"
    return SizeEstimate(
        weights_bytes=sum(_int8_bytes(s) if rounds else 4 * prod(s.shape) for s in kept),
        process_bytes=PROCESS_BYTES,
        extra_bytes=ACTIVATIONS_BYTES,
        preparing_bytes=PREPARING_BYTES + PREPARING_COPIES * sum(float32),
    )


def _int8_bytes(shape: WeightShape) -> int:
    """Bytes of a tensor: matrices over tokens with a scale for each of their rows.

    Vectors stay float32, and so do layers that see one vector per input.
    """
    if len(shape.shape) != 2 or _is_of(_POOLERS + _CLASSIFIERS, shape):
        return 4 * prod(shape.shape)
    return prod(shape.shape) + 4 * shape.shape[0]


def _is_of(layers: tuple[str, ...], shape: WeightShape) -> bool:
    return any(part in layers for part in shape.name.split("."))
