"""Checkpoints of compressed-tensors, as llm-compressor writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from serving.quantized_checkpoints.form import Integers, QuantizedForm, Shapes

if TYPE_CHECKING:
    from torch import Tensor

    from serving.quantized_checkpoints.integer_weight import IntegerWeight

FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized")


def why_not(config: Mapping[str, Any]) -> str | None:
    """Say that sparse weights and 4-bit floats are not read."""
    if config.get("sparsity_config"):
        return "it has a sparsity_config; dense weights are read"
    groups = list((config.get("config_groups") or {}).values())
    formats = {group.get("format") or config.get("format") for group in groups}
    if others := sorted(str(one) for one in formats - {*FORMATS}):
        return f"format is {', '.join(others)}; {', '.join(FORMATS)} are read"
    return None


def integers(config: Mapping[str, Any]) -> Integers | None:
    """Of every group of layers, unless one of them is made of floats."""
    groups = [group.get("weights") or {} for group in config["config_groups"].values()]
    if any(group.get("type", "int") != "int" for group in groups):
        return None
    sizes = {group.get("group_size") for group in groups}
    return Integers(
        bits=frozenset(group.get("num_bits", 8) for group in groups),
        is_symmetric=all(group.get("symmetric", True) for group in groups),
        group_size=sizes.pop() if len(sizes) == 1 else 0,
        is_by_activation=any(group.get("actorder") for group in groups),
    )


def shape(parts: Shapes, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Outputs and inputs of a layer; of packed ones some more where the last word has room."""
    if "weight_packed" not in parts:
        return parts["weight"]
    outputs, words = parts["weight_packed"]
    return outputs, words * 32 // min(_weights(config, "num_bits", [8]))


def read(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> IntegerWeight | Tensor:
    """Read a layer: packed or whole integers, or 8-bit floats.

    Packed integers are moved up to begin at 0; so are packed zeros. Each lies along the inputs, but
    zeros along the outputs.
    """
    import torch

    from serving.quantized_checkpoints.integer_weight import IntegerWeight, even_groups
    from serving.quantized_checkpoints.scale_blocks import spread

    scales = tensors["weight_scale"].float()
    if "weight_packed" in tensors:
        return _read_packed(tensors, scales)
    weight = tensors["weight"]
    if weight.dtype != torch.int8:
        return weight.float() * spread(
            scales, weight.shape, _weights(config, "block_structure", [None])[0]
        )
    scales = scales.reshape(-1, 1) if scales.numel() in (1, len(weight)) else scales
    zeros = tensors.get("weight_zero_point")
    return IntegerWeight(
        codes=weight.to(torch.int16),
        scales=scales.expand(len(weight), -1),
        zeros=(torch.zeros_like(scales) if zeros is None else zeros.float().view_as(scales)).expand(
            len(weight), -1
        ),
        group_of=even_groups(weight.shape[1], scales.shape[1]),
        bits=8,
    )


def _read_packed(tensors: Mapping[str, Tensor], scales: Tensor) -> IntegerWeight:
    import torch

    from serving.quantized_checkpoints.integer_weight import (
        IntegerWeight,
        even_groups,
        unpack_words,
    )

    outputs, inputs = (int(size) for size in tensors["weight_shape"])
    words = tensors["weight_packed"]
    bits = words.shape[1] * 32 // inputs  # the last word may have room left, but not for a row
    scales = scales.reshape(1, 1).expand(outputs, 1) if scales.numel() == 1 else scales
    zeros, groups = tensors.get("weight_zero_point"), tensors.get("weight_g_idx")
    half = 1 << (bits - 1)
    return IntegerWeight(
        codes=unpack_words(words, bits, inputs),
        scales=scales,
        zeros=torch.full_like(scales, half)
        if zeros is None
        else unpack_words(zeros.T, bits, outputs).T.float(),
        group_of=even_groups(inputs, scales.shape[1]) if groups is None else groups.long(),
        bits=bits,
    )


def _weights(config: Mapping[str, Any], key: str, default: list[Any]) -> list[Any]:
    """What the groups of layers say of their weights, where they say it."""
    groups = [group.get("weights") or {} for group in config["config_groups"].values()]
    return [group[key] for group in groups if group.get(key)] or default


FORM = QuantizedForm(
    marks=("weight_packed", "weight_scale"),
    parts=(
        *("weight", "weight_packed", "weight_scale", "weight_zero_point", "weight_shape"),
        *("weight_g_idx", "input_scale", "input_zero_point", "output_scale"),
    ),
    why_not=why_not,
    integers=integers,
    shape=shape,
    read=read,
)
