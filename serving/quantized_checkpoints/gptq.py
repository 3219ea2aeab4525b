"""GPTQ's checkpoints, as AutoGPTQ, GPTQModel and transformers write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from serving.quantized_checkpoints.form import Integers, QuantizedForm, Shapes

if TYPE_CHECKING:
    from torch import Tensor

    from serving.quantized_checkpoints.integer_weight import IntegerWeight

BITS = (2, 3, 4, 8)


FORMS = ("gptq", "gptq_v2")


def why_not(config: Mapping[str, Any]) -> str | None:
    """Say that other widths, and codes in another order, are not read."""
    for settings in (config, *_dynamic(config)):
        if (bits := settings.get("bits", config.get("bits"))) not in BITS:
            return f"bits is {bits}; {', '.join(map(str, BITS))} are read"
    if (form := _form(config)) not in FORMS:
        return f"checkpoint_format is {form!r}; {' and '.join(FORMS)} are read"
    return None


def integers(config: Mapping[str, Any]) -> Integers:
    """Those of all layers, and of the modules that have settings of their own."""
    # What a module does not have of its own is as it is of all.
    settings = [config, *({**config, **own} for own in _dynamic(config))]
    sizes = {_group_size(one) for one in settings}
    return Integers(
        bits=frozenset(one["bits"] for one in settings),
        is_symmetric=all(one.get("sym", False) for one in settings),
        group_size=sizes.pop() if len(sizes) == 1 else 0,
        # Static groups are laid before the order, so they are of neighbours again.
        is_by_activation=any(
            one.get("desc_act", False) and not one.get("static_groups", False) for one in settings
        ),
    )


def shape(parts: Shapes, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Outputs and inputs of a layer."""
    rows, outputs = parts["qweight"]
    return outputs, rows * 32 // _bits(parts["qzeros"], outputs)


def read(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> IntegerWeight:
    """Read a layer.

    ``qweight`` packs the inputs of an output below each other, ``qzeros`` outputs beside each
    other; the first form of the format holds every zero less 1. ``g_idx`` is the group of each
    input, in any order where the layer was quantized by activation order. A layer may have other
    bits than the configuration says of all.

    Raises:
        ValueError: Its words are no int32, or its parts do not go together.
    """
    import torch

    from serving.quantized_checkpoints.integer_weight import (
        IntegerWeight,
        even_groups,
        unpack_words,
    )

    words, scales = tensors["qweight"], tensors["scales"].float()
    if words.dtype != torch.int32:
        raise ValueError(f"qweight is {words.dtype}; torch.int32 is read")
    outputs = scales.shape[1]
    bits = _bits(tensors["qzeros"].shape, outputs)
    inputs, rest = divmod(words.shape[0] * 32, bits)
    if rest:
        raise ValueError(f"qweight is {tuple(words.shape)} for integers of {bits} bits")
    codes = unpack_words(words.T, bits, inputs)
    zeros = unpack_words(tensors["qzeros"], bits, outputs)
    if _form(config) == "gptq":
        zeros = (zeros + 1) % 2**bits
    groups = tensors.get("g_idx")
    return IntegerWeight(
        codes=codes,
        scales=scales.T,
        zeros=zeros.T.float(),
        group_of=even_groups(inputs, len(scales)) if groups is None else groups.long(),
        bits=bits,
    )


def _form(config: Mapping[str, Any]) -> str:
    # transformers writes it under the shorter name.
    return str(config.get("checkpoint_format") or config.get("format") or "gptq").lower()


def _dynamic(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Settings that some modules have of their own; those of a minus are not quantized."""
    dynamic = config.get("dynamic") or {}
    return [own for pattern, own in dynamic.items() if own and not pattern.startswith("-")]


def _bits(zeros: Sequence[int], outputs: int) -> int:
    """Of a layer, from the shape of its ``qzeros``: (groups, words of all outputs).

    Raises:
        ValueError: They are none that is read.
    """
    bits = zeros[1] * 32 // outputs
    if bits not in BITS or zeros[1] * 32 != bits * outputs:
        raise ValueError(f"qzeros are {tuple(zeros)} for {outputs} outputs")
    return bits


def _group_size(settings: Mapping[str, Any]) -> int | None:
    size: int | None = settings.get("group_size", -1)
    return None if size == -1 else size


FORM = QuantizedForm(
    marks=("qweight",),
    parts=("qweight", "qzeros", "scales", "g_idx"),
    why_not=why_not,
    integers=integers,
    shape=shape,
    read=read,
)
