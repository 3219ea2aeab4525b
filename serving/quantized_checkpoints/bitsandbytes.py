"""bitsandbytes' checkpoints: int8 of LLM.int8(), and the 4-bit tables NF4 and FP4 of QLoRA."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from serving.quantized_checkpoints.form import Integers, QuantizedForm, Shapes

if TYPE_CHECKING:
    from torch import Tensor

    from serving.quantized_checkpoints.integer_weight import IntegerWeight

STATES = ("weight.quant_state.bitsandbytes__nf4", "weight.quant_state.bitsandbytes__fp4")
"""Where a 4-bit layer says its shape and block sizes, as JSON in bytes."""


def why_not(config: Mapping[str, Any]) -> str | None:
    """Read both widths; what is not is told by the tensors."""
    return None


def integers(config: Mapping[str, Any]) -> Integers | None:
    """Those of LLM.int8(); what 4 bits stand for is written in a table."""
    if not config.get("load_in_8bit"):
        return None
    return Integers(frozenset({8}), True, None, has_short_scales=False)


def shape(parts: Shapes, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Outputs and inputs of a layer; of a 4-bit one, whose header tells neither, all in one row."""
    if "SCB" in parts:
        return parts["weight"]
    stored_as = re.search(r"\d+", str(config.get("bnb_4bit_quant_storage")))
    size = int(stored_as[0]) // 8 if stored_as else 1
    return 1, 2 * size * prod(parts["weight"])


def read(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> IntegerWeight | Tensor:
    """Read a layer.

    int8 has a largest magnitude for each output (``SCB``) that stands for 127. The outliers that
    the library multiplies in float are inputs' and are not in the checkpoint.

    Raises:
        ValueError: Its integers are laid out for one kind of GPU.
    """
    if "SCB" in tensors:
        import torch

        from serving.quantized_checkpoints.integer_weight import IntegerWeight

        if (layout := int(tensors.get("weight_format", 0))) != 0:
            raise ValueError(f"weight_format is {layout}, tiles of one kind of GPU; 0 is read")
        codes = tensors["weight"].to(torch.int16)
        scales = tensors["SCB"].float().unsqueeze(1) / 127
        groups = torch.zeros(codes.shape[1], dtype=torch.int64)
        return IntegerWeight(codes, scales, torch.zeros_like(scales), groups, bits=8)
    return _read_table(tensors)


def _read_table(tensors: Mapping[str, Tensor]) -> Tensor:
    """Numbers of a table of 16, high half of a byte first, times their block's magnitude.

    Magnitudes may be small integers themselves, numbers of a table of 256 (double quantization).
    """
    import torch

    state = next(tensors[name] for name in STATES if name in tensors)
    said = json.loads(bytes(state.tolist()))
    # Bytes, though they may be stored as numbers of another type (bnb_4bit_quant_storage).
    packed = tensors["weight"].flatten().view(torch.uint8)
    codes = torch.stack((packed >> 4, packed & 15), dim=1).flatten().long()
    magnitudes = tensors["weight.absmax"]
    if "weight.nested_absmax" in tensors:
        table, outer = tensors["weight.nested_quant_map"], tensors["weight.nested_absmax"]
        of_blocks = outer.repeat_interleave(said["nested_blocksize"])[: len(magnitudes)]
        magnitudes = table[magnitudes.long()] * of_blocks + said["nested_offset"]
    numbers = tensors["weight.quant_map"][codes].float()
    of_codes = magnitudes.float().repeat_interleave(said["blocksize"])[: len(numbers)]
    count = torch.Size(said["shape"]).numel()
    return (numbers * of_codes)[:count].reshape(said["shape"])


FORM = QuantizedForm(
    marks=("SCB", *STATES),
    parts=(
        *("weight", "SCB", "weight_format", "weight.absmax", "weight.quant_map", *STATES),
        *("weight.nested_absmax", "weight.nested_quant_map"),
    ),
    why_not=why_not,
    integers=integers,
    shape=shape,
    read=read,
)
