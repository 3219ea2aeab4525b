"""Checkpoints in 8-bit floats with a scale for each block, as DeepSeek's and transformers' fp8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from serving.quantized_checkpoints.form import Integers, QuantizedForm, Shapes

if TYPE_CHECKING:
    from torch import Tensor


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
    """Read a layer. What is called an inverse is what to multiply with."""
    import torch

    from serving.quantized_checkpoints.scale_blocks import spread

    weight = tensors["weight"]
    block = config.get("weight_block_size")
    scales = tensors["weight_scale_inv"].to(torch.float32)
    return weight.float() * spread(scales, weight.shape, block)


FORM = QuantizedForm(
    marks=("weight_scale_inv",),
    parts=("weight", "weight_scale_inv", "activation_scale", "input_scale"),
    why_not=why_not,
    integers=integers,
    shape=shape,
    read=read,
)
