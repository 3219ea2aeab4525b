"""Sizes of a replica and of its preparation, before anything is loaded; imports nothing heavy."""

from __future__ import annotations

from math import prod

from serving.seams import SizeEstimate, SizeRequest, WeightShape

PROCESS_BYTES = (170 + 20) * 2**20
"""Resident memory of a replica before any weights: Ray, FastAPI and numpy, and TVM's runtime."""

ACTIVATIONS_BYTES = 48 * 2**20
"""What large batches' intermediate results leave behind: freed memory that malloc keeps."""

PREPARING_BYTES = 530 * 2**20
"""The process that prepares, with torch, transformers and TVM's compiler, before any weights."""

PREPARING_COPIES = 3
"""Float32 copies of the weights that exist at once while the graph is compared: the model's, those
in the graph's order, and the file's where it is mapped. MiniLM took 776 MiB."""

_POOLERS = ("pooler", "pre_classifier")
_CLASSIFIERS = ("classifier", "score")
"""Parts of parameter names of layers between the last hidden state and the logits. A checkpoint
without a classifier is used without a pooler, which the graph then lacks."""


def estimate(request: SizeRequest) -> SizeEstimate:
    """Sum the sizes of a checkpoint's tensors in the graph; a replica maps them."""
    has_classifier = any(_is_of(_CLASSIFIERS, shape) for shape in request.shapes)
    kept = [shape for shape in request.shapes if has_classifier or not _is_of(_POOLERS, shape)]
    everything = sum(4 * prod(shape.shape) for shape in request.shapes)
    return SizeEstimate(
        weights_bytes=sum(_bytes(request.recipe, shape) for shape in kept),
        process_bytes=PROCESS_BYTES,
        extra_bytes=ACTIVATIONS_BYTES,
        preparing_bytes=PREPARING_BYTES + PREPARING_COPIES * everything,
    )


def _bytes(recipe: str, shape: WeightShape) -> int:
    """Bytes of a tensor: in ``f16`` two for a number of a matrix over tokens, four for others."""
    is_matrix = len(shape.shape) == 2 and not _is_of(_POOLERS + _CLASSIFIERS, shape)
    return (2 if recipe == "f16" and is_matrix else 4) * prod(shape.shape)


def _is_of(layers: tuple[str, ...], shape: WeightShape) -> bool:
    return any(part in layers for part in shape.name.split("."))
