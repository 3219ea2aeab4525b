"""GPTQ's checkpoints, as AutoGPTQ, GPTQModel and transformers write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from serving.quantized_checkpoints.form import Integers, QuantizedForm, Shapes

if TYPE_CHECKING:
    from torch import Tensor

    from serving.quantized_checkpoints.integer_weight import IntegerWeight

BITS = (2, 3, 4, 8)


def why_not(config: Mapping[str, Any]) -> str | None:
    """Say that other widths, and codes in another order, are not read."""
    if (bits := config.get("bits")) not in BITS:
        return f"bits is {bits}; {', '.join(map(str, BITS))} are read"
    if (form := config.get("checkpoint_format", "gptq")) not in ("gptq", "gptq_v2"):
        return f"checkpoint_format is {form!r}; gptq and gptq_v2 are read"
    return None


def integers(config: Mapping[str, Any]) -> Integers:
    """One width for all layers."""
    size = config.get("group_size", -1)
    return Integers(
        bits=frozenset({config["bits"]}),
        is_symmetric=bool(config.get("sym", False)),
        group_size=None if size == -1 else size,
        is_by_activation=bool(config.get("desc_act", False)),
    )


def shape(parts: Shapes, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Outputs and inputs of a layer."""
    rows, outputs = parts["qweight"]
    return outputs, rows * 32 // config["bits"]


def read(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> IntegerWeight:
    """Read a layer.

    ``qweight`` packs the inputs of an output below each other, ``qzeros`` outputs beside each
    other; the first form of the format holds every zero less 1. ``g_idx`` is the group of each
    input, in any order where the layer was quantized by activation order.
    """
    from serving.quantized_checkpoints.integer_weight import (
        IntegerWeight,
        even_groups,
        unpack_words,
    )

    bits, scales = config["bits"], tensors["scales"].float()
    inputs, outputs = tensors["qweight"].shape[0] * 32 // bits, scales.shape[1]
    codes = unpack_words(tensors["qweight"].T, bits, inputs)
    zeros = unpack_words(tensors["qzeros"], bits, outputs)
    if config.get("checkpoint_format", "gptq") == "gptq":
        zeros = (zeros + 1) % 2**bits
    groups = tensors.get("g_idx")
    return IntegerWeight(
        codes=codes,
        scales=scales.T,
        zeros=zeros.T.float(),
        group_of=even_groups(inputs, len(scales)) if groups is None else groups.long(),
        bits=bits,
    )


FORM = QuantizedForm(
    marks=("qweight",),
    parts=("qweight", "qzeros", "scales", "g_idx"),
    why_not=why_not,
    integers=integers,
    shape=shape,
    read=read,
)
