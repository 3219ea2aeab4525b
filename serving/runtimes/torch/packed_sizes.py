"""How many bytes the packed forms of a tensor take; imports no torch, so that plans stay light."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from serving.seams import WeightShape

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

CUDA_ALIGNED = 16
"""Inputs and outputs that CUDA's kernels take are multiples: of 8, or of 16 for float8."""

KEPT_IN_FLOAT = frozenset({"pooler"})
"""A pooler sees one token and feeds the classifier: its rounding goes straight into the answer."""


EXPERTS = "experts"
"""Part of the names of a mixture's experts. transformers has those of a layer in one parameter, and
no linear layers that could be replaced, though files often hold two dimensions of each."""


def is_expert(name: str) -> bool:
    """Whether a tensor of this name is of experts, which no recipe rounds."""
    return EXPERTS in name.split(".")


def is_kept(name: str) -> bool:
    """Whether a tensor of this name is of a layer that stays in float."""
    return is_expert(name) or bool(KEPT_IN_FLOAT & set(name.split(".")))


def cuda_weight_bytes(
    tensor: WeightShape, packed_bytes: Callable[[tuple[int, ...]], int | None]
) -> int:
    """Return the size of a tensor on CUDA: tables in int8, and bfloat16 where nothing is packed.

    Args:
        tensor: Of a checkpoint.
        packed_bytes: Size of a linear layer's weight of a shape; None if it stays bfloat16.
    """
    if tensor.is_embedding:
        return int8_embedding_bytes(tensor.shape)
    packed = None
    if len(tensor.shape) == 2 and fits_cuda(*tensor.shape) and not is_kept(tensor.name):
        packed = packed_bytes(tensor.shape)
    return 2 * prod(tensor.shape) if packed is None else packed


def cuda_eight_bit_bytes(tensor: WeightShape) -> int:
    """Likewise of 8-bit weights with a float32 scale per output."""
    return cuda_weight_bytes(tensor, lambda shape: prod(shape) + 4 * shape[0])


def fits_cuda(outputs: int, inputs: int) -> bool:
    """Whether the kernels for GPUs take a weight of these sizes, and it is worth it."""
    is_aligned = outputs % CUDA_ALIGNED == 0 and inputs % CUDA_ALIGNED == 0
    return outputs >= MIN_OUTPUTS and is_aligned


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


def num_outliers(inputs: int, share: float) -> int:
    """Return how many of a layer's inputs are multiplied in float: a share, at least one."""
    return max(1, round(share * inputs))


def outlier_bytes(shape: tuple[int, ...], share: float) -> int:
    """Return the size of the float32 weights (out, in) of these inputs, and of their places."""
    outputs, inputs = shape
    return num_outliers(inputs, share) * (4 * outputs + 8)


def int4_linear_bytes(shape: tuple[int, ...], group_size: int) -> int:
    """Return the size of a 4-bit weight (out, in), without bias.

    Each group of ``group_size`` inputs of one output has a bfloat16 scale and offset.
    """
    outputs, inputs = _pad(shape[0], INT4_BLOCK_OUT), shape[1]
    return outputs * inputs // 2 + outputs * (inputs // group_size) * 4


def nf4_linear_bytes(shape: tuple[int, ...], group_size: int) -> int:
    """Return the size of an NF4 weight (out, in), without bias.

    Each block of ``group_size`` inputs of one output has a float32 magnitude.
    """
    outputs, inputs = shape
    return outputs * inputs // 2 + outputs * (inputs // group_size) * 4


def fp8_linear_bytes(shape: tuple[int, ...]) -> int:
    """Return the size of a float8 weight (out, in), without bias, a float32 scale per output."""
    outputs, inputs = shape
    return outputs * (inputs + 4)


def legal_group_size(inputs: int, wanted: int) -> int | None:
    """Return the largest group size up to ``wanted`` that divides ``inputs``, if there is one."""
    fitting = [size for size in GROUP_SIZES if size <= wanted and inputs % size == 0]
    return fitting[0] if fitting else None


def _pad(size: int, block: int) -> int:
    return -(-size // block) * block
