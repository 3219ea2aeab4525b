"""AWQ's checkpoints in the layout of its matrix kernel, as AutoAWQ writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from serving.quantized_checkpoints.form import Integers, QuantizedForm, Shapes

if TYPE_CHECKING:
    from torch import Tensor

    from serving.quantized_checkpoints.integer_weight import IntegerWeight

BITS = 4

ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where in a word each of eight neighbours lies, as the kernel's tensor cores want them."""


def why_not(config: Mapping[str, Any]) -> str | None:
    """Say that other layouts are not read."""
    if (bits := config.get("bits", config.get("w_bit", BITS))) != BITS:
        return f"bits is {bits}; {BITS} are read"
    layout = str(config.get("format", config.get("version", "gemm"))).lower()
    return None if layout == "gemm" else f"format is {layout!r}; gemm is read"


def integers(config: Mapping[str, Any]) -> Integers:
    """The only width that is read."""
    size = config.get("group_size", config.get("q_group_size", -1))
    return Integers(frozenset({BITS}), False, None if size == -1 else size)


def shape(parts: Shapes, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Outputs and inputs of a layer."""
    inputs, words = parts["qweight"]
    return words * 32 // BITS, inputs


def read(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> IntegerWeight:
    """Read a layer, all of whose integers pack outputs beside each other.

    Raises:
        ValueError: Its words hold more or fewer outputs than it has.
    """
    from serving.quantized_checkpoints.integer_weight import (
        IntegerWeight,
        even_groups,
        unpack_words,
    )

    scales = tensors["scales"].float()
    outputs = scales.shape[1]
    if tensors["qweight"].shape[1] * 32 != BITS * outputs:
        found = tuple(tensors["qweight"].shape)
        raise ValueError(f"qweight is {found} for {outputs} outputs of {BITS} bits")
    codes, zeros = (
        unpack_words(tensors[name], BITS, outputs)
        .view(-1, outputs // 8, 8)[:, :, ORDER]
        .flatten(1)
        .T
        for name in ("qweight", "qzeros")
    )
    return IntegerWeight(
        codes=codes,
        scales=scales.T,
        zeros=zeros.float(),
        group_of=even_groups(codes.shape[1], len(scales)),
        bits=BITS,
    )


FORM = QuantizedForm(
    marks=("qweight",),
    parts=("qweight", "qzeros", "scales"),
    why_not=why_not,
    integers=integers,
    shape=shape,
    read=read,
)
