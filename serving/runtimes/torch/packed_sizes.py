"""How many bytes the packed forms of a tensor take; imports no torch, so that plans stay light."""

from __future__ import annotations

FBGEMM_BLOCK_IN, FBGEMM_BLOCK_OUT = 512, 32
"""fbgemm pads int8 weights to blocks of this size (with AVX-512 but no VNNI, to 256 inputs)."""

ONEDNN_BLOCK = 64
"""oneDNN pads int8 weights to blocks of so many inputs and outputs."""

INT4_BLOCK_OUT = 64
"""Outputs per block of torch's int4 layout with AVX-512; 32 elsewhere, which divides it."""

GROUP_SIZES = (128, 64, 32)

MIN_OUTPUTS = 32
"""Layers with fewer outputs stay as they are: a classifier's last one above all, whose errors would
go straight into the answer, and which the kernels' padding would make larger, not smaller."""


def int8_embedding_bytes(shape: tuple[int, ...]) -> int:
    """Return the size of an int8 table (rows, width) with one float32 scale per row."""
    rows, width = shape
    return rows * (width + 4)


def int8_linear_bytes(shape: tuple[int, ...]) -> int:
    """Return the size of fbgemm's packed weight (out, in), without bias.

    Each output has a float32 scale, and an int32 zero point and column sum.
    """
    outputs, inputs = shape
    return _pad(outputs, FBGEMM_BLOCK_OUT) * _pad(inputs, FBGEMM_BLOCK_IN) + outputs * 12


def int8_compact_linear_bytes(shape: tuple[int, ...]) -> int:
    """Return the size of oneDNN's packed int8 weight (out, in), without bias.

    Each output has a float32 scale and an int32 zero point.
    """
    outputs, inputs = shape
    return _pad(outputs, ONEDNN_BLOCK) * _pad(inputs, ONEDNN_BLOCK) + outputs * 8


def int4_linear_bytes(shape: tuple[int, ...], group_size: int) -> int:
    """Return the size of a 4-bit weight (out, in), without bias.

    Each group of ``group_size`` inputs of one output has a bfloat16 scale and offset.
    """
    outputs, inputs = _pad(shape[0], INT4_BLOCK_OUT), shape[1]
    return outputs * inputs // 2 + outputs * (inputs // group_size) * 4


def legal_group_size(inputs: int, wanted: int) -> int | None:
    """Return the largest group size up to ``wanted`` that divides ``inputs``, if there is one."""
    fitting = [size for size in GROUP_SIZES if size <= wanted and inputs % size == 0]
    return fitting[0] if fitting else None


def _pad(size: int, block: int) -> int:
    return -(-size // block) * block
