"""Checkpoints in 8-bit floats with a scale for each block or layer.

As DeepSeek's and transformers' fp8 has them; and AutoFP8, which calls the scale otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from serving.quantized_checkpoints.form import Integers, QuantizedForm, Shapes

if TYPE_CHECKING:
    from torch import Tensor


MARKS = ("weight_scale_inv", "weight_scale")


def why_not(config: Mapping[str, Any]) -> str | None:
    """Read every such checkpoint."""
    return None


def integers(config: Mapping[str, Any]) -> Integers | None:
    """There are none: they are floats."""
    return None


def shape(parts: Shapes, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Outputs and inputs of a layer."""
    return parts["weight"]


def read(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Tensor:
    """Read a layer. What is called an inverse is what to multiply with, as the other is."""
    import torch

    from serving.quantized_checkpoints.scale_blocks import spread

    weight = tensors["weight"]
    block = config.get("weight_block_size")
    name = next(mark for mark in MARKS if mark in tensors)
    scales = tensors[name].to(torch.float32)
    return weight.float() * spread(scales, weight.shape, block)


FORM = QuantizedForm(
    marks=MARKS,
    parts=("weight", *MARKS, "activation_scale", "input_scale", "output_scale"),
    why_not=why_not,
    integers=integers,
    shape=shape,
    read=read,
)
