"""Sizes of an OpenVINO replica and of its preparation, before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil, prod

from serving.recipes import RECIPES
from serving.recipes.int4 import Int4Options
from serving.runtimes.openvino.execution import GENERATOR_EXECUTIONS
from serving.seams import SizeEstimate, SizeRequest, WeightShape

PROCESS_BYTES = (170 + 70) * 2**20
"""Resident memory of a replica before any weights: Ray, FastAPI and numpy, and OpenVINO."""

GROWN_BYTES = 100 * 2**20
"""What activations and kernels for the shapes seen come to take: for MiniLM in int8-static 128 MiB
after 2,000 batches of up to 1,024 tokens with 128 kept kernels, and 31 MiB less with half of them;
less in other recipes; see ``opening.KERNELS_KEPT``."""

PREPARING_PROCESS_BYTES = 560 * 2**20
"""Resident memory of the process that prepares: torch, transformers, nncf and OpenVINO."""

CALIBRATING_BYTES = 200 * 2**20
"""What measuring activations takes beside that."""

SMALLEST_GROUP = 32

INTEGERS = frozenset({"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"})
"""Types of tensors that are no weights, such as positions, as safetensors files name them."""

KV_GROUP = 32
"""Numbers of an 8-bit cache that share two float32 of scale and zero point: keys of a block, in
each place of a head, or a value; of heads that are wider, somewhat more."""


def estimate(request: SizeRequest) -> SizeEstimate:
    """Sum what the tensors of a checkpoint become.

    Linear layers are packed into private copies beside the mapped file; embedding tables are not.
    """
    kept = _kept(request.shapes)
    last = _output_layer(kept) if request.kind == "generator" else _last_layer(kept)
    sizes = {shape: _bytes(shape, request, shape is last) for shape in kept}
    weights = sum(sizes.values())
    packed = sum(size for shape, size in sizes.items() if not shape.is_embedding)
    float32 = sum(4 * prod(shape.shape) for shape in request.shapes)
    return SizeEstimate(
        weights_bytes=weights,
        process_bytes=PROCESS_BYTES,
        extra_bytes=packed + GROWN_BYTES,
        preparing_bytes=PREPARING_PROCESS_BYTES
        + 4 * float32  # the model, the graph, and what nncf compiles to compare
        + (CALIBRATING_BYTES if RECIPES[request.recipe].calibrates(request.options) else 0),
        kv_number_bytes=_cached_number_bytes(request),
    )


def _cached_number_bytes(request: SizeRequest) -> float:
    if request.kind != "generator":
        return 0
    if request.kv_cache == "int8":
        return 1 + 8 / KV_GROUP
    return 2 if GENERATOR_EXECUTIONS[request.recipe].precision == "bf16" else 4


def _kept(shapes: Sequence[WeightShape]) -> list[WeightShape]:
    """Leave out what no output depends on: only classifiers read a pooler."""
    has_classifier = any(re.search(r"\b(classifier|score)\b", shape.name) for shape in shapes)
    return [
        shape
        for shape in shapes
        if shape.dtype not in INTEGERS and (has_classifier or "pooler" not in shape.name)
    ]


def _last_layer(shapes: Sequence[WeightShape]) -> WeightShape | None:
    """The linear layer that is nearest to the output, of which nncf makes int8 in ``int4``."""
    linear = [shape for shape in shapes if len(shape.shape) == 2 and not shape.is_embedding]
    return max(linear, key=lambda shape: _natural(shape.name), default=None)


def _output_layer(shapes: Sequence[WeightShape]) -> WeightShape | None:
    """Likewise of a generator; where it shares the embedding table there is none of its own."""
    names = ("lm_head.weight", "output.weight", "embed_out.weight")
    return next((shape for shape in shapes if shape.name in names), None)


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key in which layer 10 comes after layer 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _bytes(shape: WeightShape, request: SizeRequest, is_last: bool) -> int:
    numbers = prod(shape.shape)
    if request.recipe == "bf16":
        return 2 * numbers
    if request.recipe == "stored":
        return 4 * numbers if shape.stored_bytes is None else shape.stored_bytes
    if request.recipe == "fp32" or len(shape.shape) != 2:
        return 4 * numbers
    rows, width = shape.shape
    if request.recipe == "int8-static":
        return numbers + 4 * rows  # a float32 scale
    int8 = numbers + 3 * rows  # a float16 scale and a zero point
    if not isinstance(request.options, Int4Options) or shape.is_embedding or is_last:
        return int8
    group = _group(width, request.options)
    if group is None:
        return int8
    groups = rows * width // group
    has_zero_points = not request.options.symmetric
    return ceil(numbers / 2 + (2.5 if has_zero_points else 2) * groups)  # likewise, in 4 bits


def _group(width: int, options: Int4Options) -> int | None:
    """The group size that nncf takes: a power of two of at least 32 that divides the inputs."""
    size: int = options.group_size
    while size >= SMALLEST_GROUP:
        if width % size == 0:
            return size
        size //= 2
    return None
