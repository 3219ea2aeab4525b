"""Sizes of a replica and of its preparation, before anything is loaded; imports nothing heavy."""

from __future__ import annotations

from math import prod

from serving.seams import SizeEstimate, SizeRequest, WeightShape

PROCESS_BYTES = (170 + 20) * 2**20
"""Resident memory of a replica before any weights: Ray, FastAPI and numpy, and LiteRT."""

ACTIVATIONS_BYTES = 24 * 2**20
"""What the longest row's intermediate results take."""

PREPARING_BYTES = 390 * 2**20
"""The process that prepares, with torch and transformers, before any weights."""

PREPARING_COPIES = 3
"""Float32 copies of the weights that exist at once while the graph is compared: the model's, the
file's where it is mapped, and what the kernels packed. MiniLM took 554 to 591 MiB."""

_POOLERS = ("pooler", "pre_classifier")
_CLASSIFIERS = ("classifier", "score")
"""Parts of parameter names of layers between the last hidden state and the logits. A checkpoint
without a classifier is used without a pooler, which the graph then lacks."""


def estimate(request: SizeRequest) -> SizeEstimate:
    """Sum the sizes of a checkpoint's tensors in the graph.

    The kernels pack copies of all matrices but tables, which are read where the file is mapped.
    """
    float32 = sum(4 * prod(shape.shape) for shape in request.shapes)
    has_classifier = any(_is_of(_CLASSIFIERS, shape) for shape in request.shapes)
    kept = [shape for shape in request.shapes if has_classifier or not _is_of(_POOLERS, shape)]
    # What is packed of 16 bits has 32.
    packed = "fp32" if request.recipe == "f16" else request.recipe
    return SizeEstimate(
        weights_bytes=sum(_bytes(request.recipe, shape) for shape in kept),
        process_bytes=PROCESS_BYTES,
        extra_bytes=ACTIVATIONS_BYTES
        + sum(_bytes(packed, shape) for shape in kept if not shape.is_embedding),
        preparing_bytes=PREPARING_BYTES + PREPARING_COPIES * float32,
    )


def _bytes(recipe: str, shape: WeightShape) -> int:
    """Bytes of a tensor: matrices over tokens in the recipe's numbers, all others in float32."""
    is_matrix = len(shape.shape) == 2 and not _is_of(_POOLERS + _CLASSIFIERS, shape)
    if recipe == "fp32" or not is_matrix:
        return 4 * prod(shape.shape)
    if recipe == "f16":
        return 2 * prod(shape.shape)
    rows, columns = shape.shape
    if recipe == "int8-dynamic" or shape.is_embedding:
        return rows * columns + 4 * rows
    # Scales of the weights and of the bias, and the reach and the middle of the outputs; factors of
    # the inputs.
    return rows * columns + 4 * (4 * rows + columns)


def _is_of(layers: tuple[str, ...], shape: WeightShape) -> bool:
    return any(part in layers for part in shape.name.split("."))
