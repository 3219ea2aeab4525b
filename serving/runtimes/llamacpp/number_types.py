"""Sizes of tensors in ggml's number types."""

from __future__ import annotations

from math import prod

from serving.seams import WeightShape

BLOCK = 32
"""Numbers of a block of ``Q4_0`` and ``Q8_0``, which share a scale of float16."""


def bytes_of(numbers: int, kind: str) -> int:
    """Bytes of so many numbers of a ggml type, named as in GGUF files, e.g. ``Q4_1``."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return numbers // block * size


def stored_bytes(shape: WeightShape) -> int:
    """Bytes of a tensor of a GGUF file as it is."""
    return bytes_of(prod(shape.shape), shape.dtype)
